"""Facts of stages, of any shape, as tables of the page."""

import json
import shutil

import pytest

from pipeline.page.facts import besides, blocks, rows_read
from pipeline.page.page import build
from tests.support.pages import SMALL


@pytest.mark.usefixtures("undrawn")
def test_markup_anywhere_in_facts_and_manifest_is_escaped(own, shown):
    evil = "<img src=x onerror=alert(1)>"
    (own / "reports" / "data" / "more.json").write_text(json.dumps({evil: {evil: [evil, 1]}, "rows": [{evil: evil}]}))
    path = own / "data" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["mimiciv"]["release"] = evil
    path.write_text(json.dumps(manifest))
    attrition = [{"step": evil, "stays": 10, "subjects": 9}]
    (own / "reports" / "data" / "cohort.json").write_text(json.dumps({"attrition": attrition}))
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") >= 6


@pytest.mark.usefixtures("undrawn")
def test_missing_facts_are_said_to_be_missing(own, shown):
    shutil.rmtree(own / "reports" / "data")
    (own / "reports" / "audit.json").unlink()
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    assert html.count("Not available") == 6 + 3


def test_facts_of_any_shape():
    found = blocks({"rows": 1200, "none": None, "ok": True, "share": 0.123456, "codes": ["a", "b"], "empty": []})
    assert found[0].rows == (
        ("rows", "1,200"),
        ("none", "—"),
        ("ok", "yes"),
        ("share", "0.1235"),
        ("codes", "a, b"),
        ("empty", "none"),
    )
    (grid,) = blocks({"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 4}})
    assert grid.header == ("what", "x", "y")
    assert grid.rows == (("a", "1", "2"), ("b", "3", "4"))
    assert grid.numeric == (False, True, True)
    nested = blocks({"deep": {"er": {"x": 1}}, "list": [{"a": 1}, {"b": 2}], "mixed": [{"a": [{"b": 1}]}]})
    assert [block.title for block in nested] == ["deep: er", "list", "mixed 1: a"]
    assert nested[1].rows == (("1", "—"), ("—", "2"))
    (flat,) = blocks({"a": {"kept": 1, "dropped": {}}, "b": {"kept": 2, "dropped": {"late": 3}}})
    assert flat.header == ("what", "kept", "dropped: late")
    assert flat.rows == (("a", "1", "—"), ("b", "2", "3"))
    (lying,) = blocks([{f"column_{i}": i for i in range(20)}] * 2)
    assert lying.header == ("what", "1", "2")
    assert lying.rows[3] == ("column 3", "3", "3")
    (led,) = blocks([{"has_cxr": 0.5, "part": "dev", "fold": 0}])
    assert led.header == ("fold", "part", "has cxr")
    assert blocks({"nothing": {}})[0].rows == (("nothing", "none"),)
    rare = {f"reason {i}": i for i in range(6)}
    (shared,) = blocks({"a": {"read": 9, "kept": 1}, "b": {"read": 8, "kept": 2}, "c": {"read": 7, "kept": 3, **rare}})
    assert shared.header[:3] == ("what", "read", "kept")
    assert len(blocks({"a": {"read": 9}, "b": {"read": 8}, "c": {"read": 7, **rare}})) == 3
    (long,) = blocks({str(i): i for i in range(140)})
    assert (len(long.rows), long.more) == (100, 40)
    assert blocks(3)[0].rows == (("3",),)
    assert blocks([1, 2])[0].rows == (("1, 2",),)


def test_a_word_that_stands_for_a_count_leaves_its_column_one_of_numbers_and_in_its_place():
    (table,) = blocks([{"with_cxr": 12, "named": "a"}, {"with_cxr": "<10", "named": "b"}])
    assert table.header == ("named", "with cxr")
    assert table.rows == (("a", "12"), ("b", "<10"))
    assert table.numeric == (False, True)
    (table,) = blocks({"one": {"stays": "hidden", "x": 1}, "other": {"stays": 1200, "x": 2}})
    assert table.numeric == (False, True, True)
    (table,) = blocks([{"stays": "<10 of them", "x": 1}])
    assert table.numeric == (False, True)


def test_rows_read_is_a_row_a_raw_table():
    lab = {"dropped": {"no_number": 366, "in no ICU stay": "<10"}, "kept": 10, "rows_read": 1376}
    assert rows_read({"lab": lab, "seconds": 3}) == [
        {"name": "lab", "read": 1376, "kept": 10, "why": "no number 366, in no ICU stay <10"}
    ]
    assert rows_read(None) == []


def test_besides_is_what_the_table_of_rows_read_does_not_show():
    lab = {"dropped": {"no number": 366}, "kept": 10, "rows_read": 1376, "noted": {"without hadm_id": 3}}
    assert besides(lab) == {"noted": {"without hadm_id": 3}}
    assert besides({"kept": 10, "rows_read": 10, "dropped": {}, "noted": {}}) == {}
    assert besides(3) == 3
