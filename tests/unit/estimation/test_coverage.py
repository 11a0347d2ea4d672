"""Do intervals hold the truth, and verdicts err, as often as the tables of docs/simulations say?

One cell of each script is fast; more are slow. The scripts themselves make the tables (tests/simulations).
"""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.estimation.variance import Estimate
from pipeline.evaluation.scores import estimate_interval
from tests.simulations import coverage, fairness, folds, selection, verdicts, world
from tests.simulations.coverage import CLASSED, DIFFERENCE, FAMILY, MACRO, SCORE, Design

WITHIN = (0.935, 0.965)


def test_auroc_is_bounded_in_log_odds_and_auprc_less_its_bias():
    found = Estimate(0.8, 4e-4, bias=0.02)
    assert estimate_interval("auroc", found, 0.95) == found.interval(0.95, log_odds=True)
    assert estimate_interval("auprc", found, 0.95) == found.interval(0.95, log_odds=True, unbiased=True)
    assert estimate_interval("kappa", found, 0.95) == found.interval(0.95)


def test_a_fast_cell_of_coverage():
    """300 samples of 50 positives, three seeds as lucky as patients: 95 % less or more three standard errors."""
    for row in coverage.cell(DIFFERENCE, Design(50, 1, 1, 3), 1.0, 300):
        assert 0.91 <= row["coverage"] <= 0.985


def test_the_table_is_what_its_script_makes():
    """A row, made anew; a few samples near a bound may fall otherwise on another processor."""
    kept = [row for row in world.read("coverage") if row["of"] == CLASSED and row["positives"] == "20"]
    kept = [row for row in kept if row["stays_a_subject"] == "1"]
    anew = coverage.cell(CLASSED, Design(20), 0.0, int(kept[0]["samples"]))
    assert len(kept) == len(anew) == 2
    for old, new in zip(kept, anew, strict=True):
        assert float(old["coverage"]) == pytest.approx(new["coverage"], abs=0.003)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("coverage", coverage.table),
        ("folds", folds.table),
        ("errors", verdicts.error_table),
        ("verdicts", verdicts.word_table),
        ("selection", selection.table),
        ("fairness", fairness.table),
    ],
)
def test_the_doc_has_the_tables_of_docs_simulations(name, table):
    assert world.told(name) == world.lines(*table(world.read(name)))


def test_the_doc_says_how_far_coverage_falls_where_luck_is_large(root):
    found = [(int(row["seeds"]), float(row["coverage"])) for row in world.read("coverage") if float(row["luck"]) == 3]
    apart = [f"{100 * min(each for seeds, each in found if (seeds == 3) == few):.1f}" for few in (False, True)]
    text = " ".join((root / "docs/reading-the-report.md").read_text(encoding="utf-8").split())
    assert "coverage falls to {} (to {} with three seeds".format(*apart) in text


def test_folds_cover_as_their_table_says_and_about_as_well_as_any_rule_can():
    kept = world.read("folds")
    for row in kept:
        assert float(row["coverage"]) == pytest.approx(folds.coverage(int(row["folds"]), float(row["luck"])), abs=2e-4)
    assert folds.least(5) == pytest.approx(float(kept[-1]["least"]), abs=2e-4)
    for number in folds.FOLDS:
        of = [row for row in kept if row["folds"] == str(number)]
        assert float(of[0]["coverage"]) - float(of[0]["least"]) < 0.013
        assert min(float(row["coverage"]) for row in of) > folds.LOW


def test_truths_are_those_of_a_large_sample():
    """AUROC, AUPRC, accuracy and kappa of one run without luck, from 100,000 stays."""
    large = Design(20_000)
    random, found = np.random.default_rng(0), world.truths(0.0)
    drawn = world.ranked(random, large, 1, models=1)[0, :, 0, 0, 0]
    classes = world.classed(random, large, 1, models=1)[0, :, 0, 0, 0]
    assert drawn == pytest.approx([found["auroc"], found["auprc"]], abs=0.008)
    assert classes == pytest.approx([found["accuracy"], found["kappa"]], abs=0.008)
    assert world.truths(0.5)["auroc"] < found["auroc"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "design", "luck"),
    [
        (SCORE, Design(50, 3), 0.0),
        (DIFFERENCE, Design(20), 0.0),
        (DIFFERENCE, Design(100, 1, 1, 5), 1.0),
        (CLASSED, Design(100), 0.0),
        (MACRO, Design(50, labels=25), 0.0),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(kind, design, luck):
    """A standard error of 0.7 % is allowed for beyond the band."""
    for row in coverage.cell(kind, design, luck, 1000, seed=1):
        assert WITHIN[0] - 0.014 <= row["coverage"] <= WITHIN[1] + 0.007, row


@pytest.mark.slow
def test_a_family_of_three_folds_errs_to_the_safe_side():
    for row in coverage.cell(FAMILY, Design(100, 1, 3, 1, labels=12), 1.0, 100, seed=1):
        assert row["coverage"] >= 0.93, row


def test_no_claim_where_nothing_is_and_claims_where_much_is():
    """20 families: of labels that gain 0.05, at five times the standard error, most are found."""
    null = verdicts.judged(verdicts.SHAPES["all 0, opponents tie"], 20)
    assert (null == "gains").any(axis=1).mean() <= 0.15
    found = verdicts.judged(verdicts.Family((0.05,) * 12 + (0.0,) * 13, error=0.006), 20)
    assert (found[:, :12] == "gains").mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all 0, one opponent worse", "half gain 0.05", "three folds"])
def test_the_family_wise_error_is_at_most_nominal(name):
    """2.5 % each of 300 families; more than 15 have a chance of less than 1 %."""
    row = verdicts.wrong(name, 300)
    assert max(row["gains"], row["losses"]) <= 15 / 300


def test_the_best_of_many_is_luckier_than_the_best_of_few():
    """15 against 5 without noise on validation: the expected largest of 15 normals less that of 5, 1.7359 − 1.1630."""
    luck = np.sqrt(1.0) * selection.error(selection.TESTED)
    many = selection.row(15, 5, 100_000, 1.0, 1)
    assert many["bias"] == pytest.approx((1.7359 - 1.1630) * luck, abs=0.0008)
    assert abs(selection.row(5, 5, 20, 3.0, 1)["bias"]) < 0.0012
    assert selection.row(15, 5, 20, 0.0, 1)["seeming_gains"] == pytest.approx(0.025, abs=0.004)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(fairness.SETTINGS))
def test_shuffled_groups_find_no_gap_where_none_is(name):
    found = fairness.errors(name, samples=500, seed=1)
    assert 0.025 <= found["studentised"] <= 0.08, found


def test_designs_know_their_runs():
    assert replace(Design(10), folds=3, seeds=2).runs == [0, 0, 1, 1, 2, 2]
