"""Draws of several runs: averaged for comparisons, estimated for intervals."""

import numpy as np
import polars as pl
import pytest

from pipeline.estimation.variance import estimate, macro_runs
from pipeline.evaluation.scores import OverRuns, Sampler, Scored, Told, estimate_interval
from pipeline.presentation.tables import _facts as results_facts
from pipeline.questions.which.text import facts

FOLDS = [0, 0, 1, 1]


def made():
    random = np.random.default_rng(0)
    luck = 0.05 * random.standard_normal((2, 4, 1))
    values = 0.7 + luck + 0.01 * random.standard_normal((2, 4, 201))
    return values, OverRuns({("a", "auroc"): values[0], ("b", "auroc"): values[1]}, FOLDS, 0.5)


def test_the_mean_is_of_runs_and_the_interval_holds_their_luck():
    values, over = made()
    assert over["a", "auroc"] == pytest.approx(values[0].mean(axis=0))
    assert over.estimate(("a", "auroc")) == estimate(values[0], FOLDS, 0.5)
    assert (over.runs, over.estimable(("a", "auroc")), len(over)) == (4, 4, 2)
    scored = Scored(over, Told("10", {}))
    low, high = scored.interval("a", "auroc", 0.95)
    assert (low, high) == estimate_interval("auroc", estimate(values[0], FOLDS, 0.5), 0.95)
    assert high - low > 4 * 2 * 1.96 * values[0].mean(axis=0)[1:].std()  # of patients alone


def test_the_macro_mean_is_estimated_from_the_runs_macro_means():
    values, over = made()
    values[0, 2] = np.nan
    over = OverRuns({("a", "auroc"): values[0], ("b", "auroc"): values[1]}, FOLDS, 0.5)
    over.add_macro(("macro", "auroc"), [("a", "auroc"), ("b", "auroc")])
    assert over["macro", "auroc"][0] == pytest.approx((np.nanmean(values[0, :, 0]) + values[1, :, 0].mean()) / 2)
    assert over.estimate(("macro", "auroc")) == estimate(macro_runs(values), FOLDS, 0.5)
    assert over.estimable(("a", "auroc")) == 3


def test_bounds_are_kept_within_what_a_metric_can_be():
    over = OverRuns({("a", "ece"): np.array([[0.01, 0.2, 0.3, 0.01, 0.1]])}, [0], 0.5)
    found = over.estimate(("a", "ece"))
    assert found.interval(0.95)[0] < 0
    assert estimate_interval("ece", found, 0.95) == (0.0, found.interval(0.95)[1])
    assert estimate_interval("kappa", found, 0.95) == found.interval(0.95)


def test_the_test_share_is_how_many_are_tested_per_one_trained_on():
    people = pl.DataFrame(
        {"fold": [0] * 10, "subject_id": range(10), "part": ["test"] * 2 + ["train"] * 5 + ["dev"] * 3}
    )
    assert Sampler(people, 5, 1).test_share == pytest.approx(0.4)


def test_one_run_is_said_to_leave_out_the_luck_of_training():
    row = {"n": "112", "positives": "16", "runs": 1}
    assert facts(row) == "112 test stays, 16 positive labels, 1 run a strategy; one run: luck of training not included."
    assert facts(row | {"runs": 3}) == "112 test stays, 16 positive labels, 3 runs a strategy."
    table = pl.DataFrame([row | {"labels": None}], schema_overrides={"labels": pl.Int64})
    assert results_facts(table).endswith("1 run a strategy; one run: luck of training not included")
