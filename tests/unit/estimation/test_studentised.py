"""The studentised gap: placements against scikit-learn and DeLong's variance by a loop, shuffles one by one."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pipeline.estimation.gaps import against_null
from pipeline.estimation.studentised import GroupArea, mean_area, placements, studentised_gap


def sample(seed, n=60):
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.4
    return random, np.round(random.random(n) + 0.4 * truth, 1), truth  # with ties


def delong(p, truth):
    """DeLong's variance of an AUROC, pair by pair."""
    wins = np.array([[(a > b) + (a == b) / 2 for b in p[~truth]] for a in p[truth]])
    return wins.mean(axis=1).var(ddof=1) / truth.sum() + wins.mean(axis=0).var(ddof=1) / (~truth).sum()


def test_areas_and_errors_are_those_of_each_drawn_group():
    random, p, truth = sample(0)
    members = (random.random((60, 8)) < 0.6).astype(float)
    area, share = placements(p, truth, members)
    for column, inside in enumerate(members.T > 0):
        assert area[column] == pytest.approx(roc_auc_score(truth[inside], p[inside]))
        assert (share[:, column] ** 2).sum() == pytest.approx(delong(p[inside], truth[inside]))
        assert (share[~inside, column] == 0).all()


def test_a_group_of_one_class_has_no_area():
    _, p, truth = sample(1)
    area, share = placements(p, truth, np.stack([truth, ~truth], axis=1).astype(float))
    assert np.isnan(area).all()
    assert (share == 0).all()


def test_runs_are_weighted_by_pairs_and_the_stays_of_a_subject_add_up():
    """Two seeds of a fold, one of another: variance of the weighted mean from sums over subjects."""
    _, p, truth = sample(2)
    other, subjects = np.random.default_rng(3).random(60), np.arange(60) // 3
    first = np.arange(60) < 33
    area = GroupArea(1)
    top = pairs = 0.0
    by_subject: dict[tuple[int, int], float] = {}
    for fold, stays, scores in ((0, first, p), (0, first, other), (1, ~first, p)):
        everyone = np.ones((stays.sum(), 1))
        area.add(fold, subjects[stays], scores[stays], truth[stays], everyone)
        weight = truth[stays].sum() * (~truth[stays]).sum()
        top, pairs = top + weight * roc_auc_score(truth[stays], scores[stays]), pairs + weight
        for subject, share in zip(
            subjects[stays], placements(scores[stays], truth[stays], everyone)[1][:, 0], strict=True
        ):
            by_subject[fold, subject] = by_subject.get((fold, subject), 0.0) + weight * share
    value, shares = area.values()
    assert value == pytest.approx(top / pairs)
    assert (shares**2).sum() == pytest.approx(sum(each**2 for each in by_subject.values()) / pairs**2)


def test_the_statistic_is_the_largest_difference_over_its_error():
    areas = [np.array([0.7, 0.8]), np.array([0.8, np.nan]), np.array([0.85, 0.8])]
    shares = [np.array([[0.03, 0.1], [0.04, 0.1]]), np.array([[0.01, 0.1]]), np.array([[0.5, 0.1]])]
    found = studentised_gap(list(zip(areas, shares, strict=True)))
    assert found[0] == pytest.approx(0.1 / np.sqrt(0.05**2 + 0.01**2))  # not the widest gap, whose error is large
    assert np.isnan(found[1])
    sure = [(np.array([1.0]), np.zeros((1, 1))), (np.array([0.5]), np.zeros((1, 1)))]
    assert studentised_gap(sure) == np.inf
    assert studentised_gap(sure[:1] * 2) == 0


def test_the_macro_mean_adds_up_what_a_subject_does_to_all_labels():
    labels = [
        (np.array([0.7, 0.6]), np.array([[0.02, 0.1], [0.01, 0.2]])),
        (np.array([0.9, 0.8]), np.array([[0.04, 0.3], [-0.01, 0.0]])),
        (np.array([np.nan, 0.5]), np.full((2, 2), 9.0)),  # the sample cannot tell it
    ]
    area, share = mean_area(labels)
    assert area == pytest.approx([0.8, 0.7])
    assert share == pytest.approx(np.array([[0.03, 0.2], [0.0, 0.1]]))


def test_p_is_of_the_statistic_and_the_null_of_the_gap():
    gaps, statistic = np.array([0.3, 0.1, 0.3, 0.5, 0.2]), np.array([2.0, 3.0, 1.0, 1.0, 2.0])
    null = against_null(gaps, statistic)
    assert (null.mean, null.excess, null.p) == pytest.approx((0.275, 0.025, 3 / 5))
    assert against_null(gaps, np.array([4.0, 3, 1, 1, 2])).p == pytest.approx(1 / 5)
    assert against_null(gaps).p == pytest.approx(3 / 5)


def test_where_the_spread_differs_only_the_studentised_gap_keeps_its_level():
    """A small group whose positives spread three times as wide, at equal AUROCs; 300 samples, 5 % nominal."""
    from tests.simulations.fairness import errors

    found = errors("spread of positives, the small group's", samples=300)
    assert found["studentised"] <= 0.09
    assert found["studentised"] < found["gap"]


def test_the_settings_have_equal_areas():
    from tests.simulations.fairness import SETTINGS, SHIFT, sample

    for name in ("spread", "spread of positives, the small group's", "three stays a subject"):
        groups = SETTINGS[name]
        grown = type(groups)(tuple(60 * size for size in groups.sizes), *list(vars(groups).values())[1:])
        _, group, truth, score = sample(np.random.default_rng(0), grown)
        areas = [roc_auc_score(truth[group == one], score[group == one]) for one in range(len(groups.sizes))]
        assert areas == pytest.approx([norm.cdf(SHIFT / np.sqrt(2))] * len(areas), abs=0.02)
