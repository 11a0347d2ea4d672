"""The page in a browser, where there is one."""

import html
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

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
    return subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=240, check=True)


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


def shown_after(chromium, page, folder, script, *options):
    """What `script`, which calls `put(...)`, found in the page."""
    file = folder / "asked.html"
    put = "const put = (x) => { document.body.append(Object.assign(document.createElement('pre'), {id: 'found', "
    put += "textContent: JSON.stringify(x)})); };"
    file.write_text(page.replace("</body>", f"<script>{put}{script}</script></body>"), encoding="utf-8")
    dom = browse(chromium, file, folder, "--dump-dom", *options).stdout
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)[1]))


def test_the_page_is_short_while_closed(chromium, page, tmp_path):
    height = shown_after(
        chromium, page, tmp_path, "put(document.documentElement.scrollHeight)", "--window-size=1440,900"
    )
    assert height / 900 < 25


def test_filters_hide_what_is_about_something_else(chromium, page, tmp_path):
    script = """
      const choose = (name, value) => {
        filters.elements[name].value = value; filters.dispatchEvent(new Event("change", {bubbles: true}));
      };
      const shown = (of) => getComputedStyle(document.querySelector(of)).display !== "none";
      choose("task", "los"); choose("kind", "fusion");
      put([shown('details[data-task="los"]'), shown('details[data-task="mortality"]'),
        shown('tr[data-kind="fusion"]'), shown('tr[data-kind="EHR only"]')]);"""
    assert shown_after(chromium, page, tmp_path, script) == [True, False, True, False]


def test_a_link_opens_what_holds_its_target(chromium, page, tmp_path):
    script = """
      const inside = document.querySelector("details details table[id], details table[id]").closest("details");
      const before = inside.open;
      location.hash = inside.querySelector("table").id;
      addEventListener("hashchange", () => put([before, inside.open]));"""
    assert shown_after(chromium, page, tmp_path, script) == [False, True]


def test_axe_finds_nothing_with_all_details_open(chromium, page, tmp_path):
    """axe-core is no dependency: AXE_CORE names its axe.min.js, or npm fetches it."""
    axe = Path(os.environ.get("AXE_CORE", "")) if os.environ.get("AXE_CORE") else fetched_axe(tmp_path)
    code = axe.read_text(encoding="utf-8").replace("</script", r"<\/script")
    script = f"""{code};
      document.querySelectorAll("details").forEach((each) => {{ each.open = true; }});
      axe.run().then((r) => put(r.violations.map((v) => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200)])));"""
    assert shown_after(chromium, page, tmp_path, script, "--virtual-time-budget=200000") == []
    broken = page.replace("</main>", "<button></button></main>")
    (found,) = shown_after(chromium, broken, tmp_path, script, "--virtual-time-budget=200000")
    assert found[:2] == ["button-name", 1]


def fetched_axe(folder):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no axe-core: AXE_CORE names no axe.min.js, and there is no npm to fetch it with")
    done = subprocess.run(
        [npm, "pack", "axe-core@4.14.1", "--silent"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no axe-core: npm could not fetch it: {done.stderr.strip()[:200]}")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "axe.min.js"
