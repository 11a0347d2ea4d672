"""The page in a browser, where there is one."""

import re
import shutil
import subprocess

import pytest


@pytest.fixture(scope="module")
def chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip("no headless browser (chromium) on this machine")
    return found


def browse(chromium, file, folder, *options):
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ]
    command += [f"--user-data-dir={folder}", "--enable-logging=stderr", "--virtual-time-budget=2000", *options]
    return subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=60, check=True)


def test_in_a_browser(chromium, made, page, tmp_path):
    """No word on the console; the content policy would complain there of any request that leaves the file."""
    done = browse(chromium, made / "reports" / "index.html", tmp_path, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert "<button" in done.stdout  # the script ran

    noisy = tmp_path / "noisy.html"  # the check would see a request that leaves the file
    noisy.write_text(page.replace("</body>", '<img src="https://example.org/x.png"></body>'), encoding="utf-8")
    assert "CONSOLE" in browse(chromium, noisy, tmp_path, "--dump-dom").stderr


def test_tables_sort_in_a_browser(chromium, page, tmp_path):
    click = "document.querySelectorAll('#results table.sortable thead button')[1].click()"
    sorted_page = tmp_path / "sorted.html"
    sorted_page.write_text(page.replace("</body>", f"<script>{click}</script></body>"), encoding="utf-8")
    dom = browse(chromium, sorted_page, tmp_path, "--dump-dom").stdout
    table = dom[dom.index('aria-sort="descending"') :]
    first_values = re.findall(r'<th scope="row">\w+</th><td class="number" data-value="([\d.]+)"', table)[:4]
    assert [float(value) for value in first_values] == sorted((float(value) for value in first_values), reverse=True)
    assert len(set(first_values)) > 1
