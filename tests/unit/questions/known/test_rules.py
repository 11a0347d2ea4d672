"""The field's usual rules, each on runs made by hand."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from pipeline.questions.known.rules import (
    best_on_test,
    counted_rules,
    deviations_apart,
    higher_mean,
    paired_t,
)

RUNS = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
NAN = float("nan")


def test_the_higher_mean_looks_at_the_first_fold_alone_and_at_nothing_else():
    a, b = np.array([0.7, 0.8, 0.1, 0.1, 0.1, 0.1]), np.array([0.6, 0.89, 0.9, 0.9, 0.9, 0.9])
    assert higher_mean(a, b, RUNS) == "gain"
    assert higher_mean(b, a, RUNS) == "no gain"
    assert higher_mean(a * NAN, b, RUNS) == "nothing"


def test_deviations_apart_are_those_of_runs():
    a, b = np.array([0.80, 0.82, 0.84]), np.array([0.76, 0.78, 0.77])  # 0.82 ± 0.02, 0.77 ± 0.01
    assert deviations_apart(a, b) == "gain"
    assert deviations_apart(b, a) == "no gain"
    assert deviations_apart(a, b + 0.025) == "nothing"
    assert deviations_apart(a[:1], b[:1]) == "nothing"  # one run has no deviation


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.02])
def test_the_paired_t_test_is_of_the_folds_means_over_seeds(shift):
    a = np.array([0.80, 0.82, 0.79, 0.81, 0.83, 0.84]) + shift
    b = np.array([0.801, 0.821, 0.788, 0.809, 0.832, 0.839])
    folds = (a - b).reshape(3, 2).mean(axis=1)
    significant = ttest_1samp(folds, 0).pvalue < 0.05
    expected = ("gain" if folds.mean() > 0 else "no gain") if significant else "nothing"
    assert paired_t(a, b, RUNS) == expected
    assert (expected == "nothing") == (shift == 0)
    assert paired_t(a[:2], b[:2], RUNS[:2]) == "nothing"  # one fold


def test_selection_on_test_takes_the_best_of_either_side():
    fusion, unimodal = [np.array([0.6, 0.6]), np.array([0.9, 0.7])], [np.array([0.75, 0.75]), np.array([0.5, NAN])]
    assert best_on_test(fusion, unimodal) == "gain"
    assert best_on_test(fusion[:1], unimodal) == "no gain"
    assert best_on_test([np.array([NAN])], unimodal) == "nothing"


def test_what_is_said_is_right_where_anything_is_attainable_and_a_null_where_no_more_than_the_margin_is():
    said = [
        {"cohort": "base", "rule": "ours", "attainable": attainable, "margin": 0.01, "says": says}
        for attainable, says in (
            (0.0, "gain"),
            (0.005, "gain"),
            (0.005, "no gain"),
            (0.02, "no gain"),
            (0.3, "nothing"),
            (0.3, "gain"),
            (None, "gain"),
        )
    ]
    row = counted_rules(said).filter(rule="ours").row(0, named=True)
    assert row == {
        "cohort": "base",
        "rule": "ours",
        "labels": 6,
        "attainable": 3,
        "gain_right": 2,
        "gain_wrong": 1,
        "none_right": 1,
        "none_wrong": 1,
        "silent": 1,
    }
