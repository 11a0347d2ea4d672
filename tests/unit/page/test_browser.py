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


def shown_after(chromium, page, folder, script, *options, screen=None):
    """What `script`, which calls `put(...)`, found in the page; `screen`: width and height, as no window is narrow."""
    file = folder / "asked.html"
    put = "const put = (x) => { parent.document.body.append(Object.assign(parent.document.createElement('pre'), "
    put += "{id: 'found', textContent: JSON.stringify(x)})); };"
    asked = page.replace("</body>", f"<script>{put}{script}</script></body>")
    if screen:
        size = f'style="border: 0; width: {screen[0]}px; height: {screen[1]}px"'
        asked = f'<!doctype html><body><iframe {size} srcdoc="{html.escape(asked)}"></iframe></body>'
    file.write_text(asked, encoding="utf-8")
    dom = browse(chromium, file, folder, "--dump-dom", *options).stdout
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)[1]))


def test_the_page_is_short_while_closed(chromium, page, tmp_path):
    height = shown_after(
        chromium, page, tmp_path, "put(document.documentElement.scrollHeight)", "--window-size=1440,900"
    )
    assert height / 900 < 25


@pytest.mark.parametrize(("width", "height", "last"), [(1280, 900, ".briefs"), (390, 844, "#verdicts")])
def test_the_answers_stand_on_the_first_screen(chromium, page, tmp_path, width, height, last):
    ask = f"put([innerWidth, document.querySelector('{last}').getBoundingClientRect().bottom])"
    seen, bottom = shown_after(chromium, page, tmp_path, ask, screen=(width, height))
    assert seen == width
    assert bottom < height


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_screen_and_every_verdict_is_on_it(chromium, page, tmp_path, width):
    script = """
      document.querySelectorAll("details").forEach((each) => { each.open = true; });
      put([document.documentElement.scrollWidth, [...document.querySelectorAll(".verdict, #verdicts td")]
        .filter((each) => each.getBoundingClientRect().right > innerWidth).map((each) => each.textContent)]);"""
    wide, off = shown_after(chromium, page, tmp_path, script, screen=(width, 900))
    assert wide <= width
    assert off == []


def test_no_table_is_cut_on_paper(chromium, page, tmp_path):
    """On A4 less its margins, as print styles lay the page out, with all that a reader may have opened."""
    script = """
      document.querySelectorAll("details").forEach((each) => { each.open = true; });
      put([...document.querySelectorAll(".scroll")].filter((each) => each.scrollWidth > each.clientWidth + 1)
        .map((each) => each.getAttribute("aria-label")));"""
    paper = page.replace("@media print {", "@media all {")
    assert paper != page
    assert shown_after(chromium, paper, tmp_path, script, "--window-size=688,1000") == []


def test_no_word_is_broken_on_paper_but_where_columns_are_too_many(chromium, page, tmp_path):
    script = """
      document.querySelectorAll("details").forEach((each) => { each.open = true; });
      const broken = [];
      document.querySelectorAll(".wide:not(:has(thead :nth-child(15))) :is(th, td)").forEach((cell) => {
        const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), range = document.createRange();
        for (let text = texts.nextNode(); text; text = texts.nextNode())
          for (const word of text.data.matchAll(/[A-Za-z_]+/g)) {
            range.setStart(text, word.index);
            range.setEnd(text, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map((each) => each.top)).size > 1) broken.push(word[0]);
          }
      });
      put(broken);"""
    paper = page.replace("@media print {", "@media all {")
    assert shown_after(chromium, paper, tmp_path, script, "--window-size=688,1000") == []


def printed(chromium, file, folder):
    browse(chromium, file, folder, f"--print-to-pdf={folder / 'page.pdf'}", "--no-pdf-header-footer")
    return len(re.findall(rb"/Type\s*/Page[^s]", (folder / "page.pdf").read_bytes()))


def test_paper_has_what_answers_and_what_was_opened(chromium, page, tmp_path):
    file = tmp_path / "paper.html"
    file.write_text(page, encoding="utf-8")
    closed = printed(chromium, file, tmp_path)
    opened = "<script>document.querySelectorAll('details').forEach((each) => { each.open = true; });</script></body>"
    file.write_text(page.replace("</body>", opened), encoding="utf-8")
    assert closed < 40
    assert printed(chromium, file, tmp_path) > 1.5 * closed


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


def test_a_link_to_what_a_filter_hides_shows_it(chromium, page, tmp_path):
    script = """
      filters.elements.task.value = "los"; filters.dispatchEvent(new Event("change", {bubbles: true}));
      const row = document.getElementById("verdict-mortality-base");
      const before = row.closest(".not-task") !== null;
      addEventListener("hashchange", () => put([before, row.closest(".not-task") === null, row.checkVisibility()]));
      location.hash = row.id;"""
    assert shown_after(chromium, page, tmp_path, script) == [True, True, True]


def test_one_button_opens_and_closes_all(chromium, page, tmp_path):
    script = """
      const open = () => document.querySelectorAll("details[open]").length;
      const counts = [open()];
      for (const _ of [1, 2]) { every.click(); counts.push(open()); }
      put([...counts, document.querySelectorAll("details").length]);"""
    before, opened, closed, all_of_them = shown_after(chromium, page, tmp_path, script)
    assert (before, closed) == (0, 0)
    assert opened == all_of_them > 100


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_axe_finds_nothing_with_all_details_open(chromium, page, tmp_path, scheme):
    """axe-core is no dependency: AXE_CORE names its axe.min.js, or npm fetches it."""
    axe = Path(os.environ.get("AXE_CORE", "")) if os.environ.get("AXE_CORE") else fetched_axe(tmp_path)
    code = axe.read_text(encoding="utf-8").replace("</script", r"<\/script")
    script = f"""{code};
      document.querySelectorAll("details").forEach((each) => {{ each.open = true; }});
      axe.run().then((r) => put(r.violations.map((v) => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200)])));"""
    options = ("--virtual-time-budget=200000", f"--blink-settings=preferredColorScheme={scheme}")
    ask = "put(matchMedia('(prefers-color-scheme: dark)').matches)"
    assert shown_after(chromium, page, tmp_path, ask, options[1]) == (scheme == 0)
    assert shown_after(chromium, page, tmp_path, script, *options) == []
    broken = '<!doctype html><html lang="en"><title>broken</title><main><h1>broken</h1><button></button></main></body>'
    (found,) = shown_after(chromium, broken, tmp_path, script, *options)
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
