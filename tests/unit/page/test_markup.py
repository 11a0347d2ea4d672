"""The page's markup: escaped, self-contained, linked, fit for screen readers, the same bytes twice."""

import itertools
import re
from html.parser import HTMLParser

import pytest

from pipeline.page.page import build
from pipeline.params import Report

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "path", "use"}


class Outline(HTMLParser):
    """Tags in order, with their attributes; checks that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def outline(page):
    parsed = Outline()
    parsed.feed(page)
    assert parsed.open == []
    return parsed.tags


def test_text_from_the_data_is_text(page):
    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;bold&lt;/b&gt;|pipe" in page


def test_it_is_self_contained_and_small(page, outline):
    assert len(page.encode()) < 2_000_000
    for tag, attributes in outline:
        assert tag not in ("iframe", "object", "embed", "img")
        assert "src" not in attributes
        if tag == "link":
            assert attributes["href"] == "data:,"
        if "href" in attributes:
            assert not re.match(r"(https?:)?//", attributes["href"])
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_anchors_and_files_beside_the_page_are_there(outline, made):
    ids = [attributes["id"] for _, attributes in outline if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in outline if tag == "a"]
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert (made / "reports" / link).is_file(), link
    assert {"#results", "#cohort", "#audit", "#provenance"} <= set(links)


def test_it_is_fit_for_screen_readers(outline, page):
    assert ("html", {"lang": "en"}) in outline
    levels = [int(tag[1]) for tag, _ in outline if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    for _, attributes in (item for item in outline if item[0] == "svg"):
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
    for tag, attributes in outline:
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]


def test_no_cell_is_blank_and_every_column_has_a_name(page):
    assert re.findall(r"<t[dh][^>]*>\s*</t[dh]>", page) == []


def test_where_no_number_of_a_column_has_an_interval_none_is_missed(page):
    table = page[page.index('id="t-where-the-uncertainty-comes-from"') :]
    assert "no interval" not in table[: table.index("</table>")]


def test_the_same_bytes_twice(made, page, shown, tmp_path):
    html, drawn = build(made / "data", made / "reports", shown)
    assert html == page
    for name, svg in drawn.items():
        assert (made / "reports" / "figures" / f"{name}.svg").read_text() == svg


@pytest.mark.usefixtures("undrawn")
def test_a_mailed_page_links_to_the_repository_where_one_is_configured(made, page, shown):
    assert 'href="tables/results.csv"' in page
    told = {**shown, "report": Report("https://example.org/fusion/")}
    html = build(made / "data", made / "reports", told)[0]
    assert 'href="https://example.org/fusion/blob/main/reports/tables/results.csv"' in html
    links = set(re.findall(r'href="([^"]+)"', html)) - {"data:,"}
    assert [link for link in links if not link.startswith(("#", "https://example.org/fusion/blob/main/"))] == []


def test_every_table_and_figure_can_be_linked_to(outline):
    permalinks = {attributes["href"] for tag, attributes in outline if attributes.get("class") == "permalink"}
    made = [attributes for tag, attributes in outline if tag in ("figure", "table")]
    assert len(made) > 100
    assert [attributes for attributes in made if "#" + attributes.get("id", "") not in permalinks] == []
