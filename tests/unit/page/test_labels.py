"""Ids, tags and values to sort by."""

import pytest

from pipeline.page.labels import about, kind_of, sort_value, unique_ids


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9.9 %", "9.9"),
        ("68% (33%–all)", "68"),
        ("−0.101 (−0.2 to 0.1)", "-0.101"),
        ("1,234,567", "1234567"),
        ("<10", "9.5"),
        ("<0.001", "0.0005"),
        ("n. e.", ""),
        ("hidden", ""),
        ("—", ""),
        ("2011 - 2013", "2011 - 2013"),
        ("late_fusion", "late_fusion"),
    ],
)
def test_what_a_cell_sorts_by(text, value):
    assert sort_value(text) == value


def test_no_two_tables_share_an_id():
    anchor = unique_ids()
    assert [anchor(each) for each in ("Counts", "counts", "counts 2", "κ")] == [
        "t-counts",
        "t-counts-2",
        "t-counts-2-2",
        "t-table",
    ]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("Ranking: ICU mortality, base cohort, AUROC", {"task": "mortality", "cohort": "base"}),
        ("history_los_matched", {"task": "los", "cohort": "matched"}),
        ("Trained on base, evaluated on matched", {}),
        ("The closing of a database", {}),
    ],
)
def test_what_a_title_is_about(text, tags):
    assert about(text) == tags


def test_kinds_of_strategies():
    assert kind_of("ensemble", ["ehr", "cxr"]) == "ensemble"
    assert [kind_of("", each) for each in (["ehr"], ["cxr"], ["cxr", "ehr"])] == ["EHR only", "image only", "fusion"]
