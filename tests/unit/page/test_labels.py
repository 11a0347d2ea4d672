"""Ids, tags and values to sort by."""

import pytest

from pipeline.page.labels import TERMS, Names, about, kind_of, sort_value, unique_ids


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9.9 %", "9.9"),
        ("68% (33%–all)", "68"),
        ("−0.101 (−0.2 to 0.1)", "-0.101"),
        ("1,234,567", "1234567"),
        ("<10", "9.5"),
        ("1–13", "1.000013"),
        ("1–6.5", "1.0000065"),
        ("85 of 1,222", "85.001222"),
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


def test_a_name_is_explained_where_it_first_stands_and_a_strategy_leads_to_its_card():
    names = Names({"gbm": "boosted trees.", "gbm_image": "the same with <the image>."})
    link = '<a href="#card-{0}">{0}</a>'
    assert (
        names.linked("gbm & gbm_image, AUROC 0.8")
        == f"{link.format('gbm')} &amp; {link.format('gbm_image')}, AUROC 0.8"
    )
    assert names.new() == [
        ("gbm", "boosted trees"),
        ("gbm_image", "the same with <the image>"),
        ("AUROC", TERMS["AUROC"]),
    ]
    assert names.linked("gbm again, my_gbm, κ 0.1") == f"{link.format('gbm')} again, my_gbm, κ 0.1"
    assert names.new() == [("κ", TERMS["κ"])]
    assert names.linked("<i>Holm's adjustment</i>") == "&lt;i&gt;Holm&#39;s adjustment&lt;/i&gt;"
    assert [name for name, _ in names.new()] == ["Holm's adjustment"]
