"""The fairness section of the page: it leads with the worst groups, and says what is too small to tell."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.presentation.answers import Answer
from pipeline.questions.fair.fairness import fairness, write
from pipeline.questions.fair.section import answer, brief, sentence, women
from pipeline.questions.fair.tables import CONFIRMATORY, origin
from tests.support.fair import EVALUATION, KNOBS, ONE, SEEDS, SIZE


def words(svg):
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_the_answer_leads_with_the_worst_groups_and_says_what_was_declared(made, found):
    got = answer(made / "reports/tables", KNOBS, 0.95)
    assert isinstance(got, Answer)
    assert got.key == "fair"
    assert got.sentence.startswith("The lowest AUROC of a group is 0.")
    assert "missed diagnoses" in got.sentence
    assert "after Holm" in got.sentence
    assert "nan" not in got.sentence.lower()
    assert "None of" not in got.sentence or "does not show that there is none" in got.sentence
    assert "coded differently by group" in got.notes[0]
    assert got.figures[0].name.startswith("fair_groups_")
    assert got.figures[0].name.endswith("_matched")
    assert len({figure.name for figure in got.figures}) == len(got.figures)
    for figure in got.figures:
        assert "late_fusion" in words(figure.svg)
        assert (made / "reports" / figure.source).is_file()
    titles = [table.title for table in got.tables]
    assert titles[0].startswith("Worst groups")
    slopes = next(table for table in got.tables if table.title == "Calibration slope: ICU mortality, base cohort")
    assert slopes.header[:2] == ("Attribute", "Group")
    assert "late_fusion" in slopes.header
    whole = found.groups.filter(task="mortality", cohort="base", attribute="all", strategy="late_fusion")
    assert slopes.rows[0][0] == "all"
    assert slopes.rows[0][slopes.header.index("late_fusion")].value == pytest.approx(whole["slope"].item(), abs=1e-4)
    for table in got.tables:
        assert table.rows
        assert all(len(row) == len(table.header) for row in table.rows)
    assert got == answer(made / "reports/tables", KNOBS, 0.95)


def test_too_small_to_tell(own, tmp_path):
    """Thresholds that no group meets: nothing is estimated, everybody is listed, and the page says so."""
    knobs = replace(KNOBS, least_positives=5000)
    tables = fairness(own, ONE, SEEDS, EVALUATION, knobs, SIZE)
    assert set(tables.groups["status"]) == {"too small"}
    assert tables.gaps["gap"].null_count() == tables.gaps.height
    assert not tables.fusion.height
    write(tables, tmp_path / "t", 0.95)
    got = answer(tmp_path / "t", knobs, 0.95)
    assert got.sentence.startswith("Too small to tell")
    assert got.figures[0].name.startswith("fair_sizes_")
    assert "5000" in words(got.figures[0].svg)


def gaps_of(found, *holm):
    """The gaps table with as many declared gaps as `holm`, their p values (None: not tested), all by gender."""
    row = found.gaps.filter(family=CONFIRMATORY, attribute="gender", task="mortality").head(1)
    known = {"gap": 0.1, "low": 0.02, "high": 0.2, "null_mean": 0.05, "groups": 2}
    rows = [row.with_columns(**{k: pl.lit(v) for k, v in known.items()}, p_holm=pl.lit(p, pl.Float64)) for p in holm]
    return pl.concat([row.clear(), *rows], how="vertical_relaxed")


GAP = "between groups of gender, ICU mortality with late_fusion"


@pytest.mark.parametrize(
    ("holm", "says"),
    [
        ((None,), "negatives in the one declared test (attribute × task), so that neither"),
        ((None, None), "negatives in any of 2 declared tests (attribute × task), so that neither"),
        ((0.9,), "The one AUROC gap tested (attribute × task) is not shown to be more than chance, after Holm's"),
        ((0.9, 0.8), "None of 2 AUROC gaps tested (attribute × task) is shown to be more than chance, after Holm's"),
        ((0.9,), f"{GAP}, it is 0.100 (0.020–0.200) where chance gives 0.050."),
        ((0.01,), "The one AUROC gap tested (attribute × task) is more than chance, after Holm's adjustment for all"),
        (
            (0.01, 0.9),
            f"1 of 2 AUROC gaps tested (attribute × task) is more than chance, after Holm's adjustment for all "
            f"tests: {GAP}: 0.100 (0.020–0.200) where chance gives 0.050, p 0.010.",
        ),
        ((0.01, 0.02, 0.9), "2 of 3 AUROC gaps tested (attribute × task) are more than chance, after Holm's"),
        ((0.9, None), "1 more test could not be made: the groups are too small."),
        ((0.9, None, None), "2 more tests could not be made: the groups are too small."),
    ],
)
def test_gaps_are_told_of_one_several_and_none(found, holm, says):
    assert says in sentence(found.groups, gaps_of(found, *holm), found.fusion, KNOBS)


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        (["undetermined"], "fusion makes the AUROC gap neither wider nor narrower for certain in the one comparison ("),
        (["undetermined"] * 2, "fusion makes the AUROC gap neither wider nor narrower for certain in 2 comparisons ("),
        (["wider"], "fusion makes the AUROC gap wider in the one comparison ("),
        (["wider", "undetermined"], "fusion makes the AUROC gap wider in 1 of 2 comparisons ("),
        (["wider", "narrower", "wider"], "fusion makes the AUROC gap wider in 2 and narrower in 1 of 3 comparisons ("),
    ],
)
def test_what_fusion_does_to_gaps_is_told_of_one_and_several(found, findings, says):
    one = found.fusion.filter(metric="auroc", attribute="gender").head(1)
    rows = pl.concat([one.with_columns(finding=pl.lit(each)) for each in findings])
    assert says in sentence(found.groups, gaps_of(found, 0.9), rows, KNOBS)


def test_presence_of_an_image_is_told_in_words(found):
    gaps = gaps_of(found, 0.9).with_columns(attribute=pl.lit("has_cxr"))
    text = sentence(found.groups, gaps, found.fusion, KNOBS)
    assert "between stays with and without an image, ICU mortality with late_fusion, it is" in text
    assert (
        "With an image there is more to see: a gap between stays with and without one is none between people." in text
    )
    assert "image present" not in text


def test_a_table_that_is_absent_is_named(tmp_path):
    with pytest.raises(InputError, match=r"fairness_groups\.csv: not found"):
        answer(tmp_path, KNOBS, 0.95)


def test_where_a_gap_comes_from():
    rule = "alert_rate"

    def told(score, sensitivity, specificity):
        return origin({("auroc", ""): score, ("tpr", rule): sensitivity, ("fpr", rule): specificity})

    assert told(0.5, 0.4, 0.3) == "none found"
    assert told(0.01, 0.4, 0.3) == "score: ranking alone"
    assert told(0.01, 0.02, 0.3) == "score: sensitivity"
    assert told(0.5, 0.02, 0.05) == "threshold: sensitivity and specificity"
    assert told(0.5, 0.2, 0.01) == "threshold: specificity"
    assert origin({}) is None


def test_whether_women_are_served_worse_is_said(found):
    gaps = gaps_of(found, 0.9).with_columns(
        lowest_group=pl.lit("F"), lowest=pl.lit(0.7), highest_group=pl.lit("M"), highest=pl.lit(0.8)
    )
    told = (
        "Among women and among men AUROC is 0.700 and 0.800 on ICU mortality with late_fusion (a gap not shown to be "
    )
    assert women(gaps) == f"{told}more than chance)."
    assert women(gaps.with_columns(p_holm=0.01)).endswith("late_fusion (a gap more than chance).")
    assert women(gaps.clear()) == "Whether women are served worse than men could not be tested."
    assert sentence(found.groups, gaps, found.fusion, KNOBS).count(told) == 1
    none = "None of 1 tested gap of AUROC between groups is shown to be more than chance."
    assert brief(found.groups, gaps, KNOBS) == f"{none} {women(gaps)}"
    more = gaps_of(found, 0.01, 0.01, None)
    first = (
        "2 of 2 tested gaps of AUROC between groups are shown to be more than chance; 1 more could not be tested, for"
    )
    assert brief(found.groups, more, KNOBS).startswith(first)
    assert brief(found.groups, gaps_of(found, None), KNOBS).startswith("Too small to tell")
