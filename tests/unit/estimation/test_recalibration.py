"""Calibration against scikit-learn, scipy and naive loops; what has no answer is not estimable."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from pipeline.estimation.bootstrap import draw_subjects
from pipeline.estimation.metrics import calibration_error, mass_bins
from pipeline.estimation.recalibration import (
    MEASURES,
    TEMPERATURES,
    calibration,
    fit_temperature,
    folded_normal,
    in_the_large,
    pooled_slope,
    recalibrate,
    temper,
)


def sample(seed: int, n: int = 400, slope: float = 0.6, intercept: float = -0.4):
    """Scores whose true recalibration is (intercept, slope), several stays a subject."""
    random = np.random.default_rng(seed)
    x = random.normal(-1, 1.2, n)
    return expit(x), random.random(n) < expit(intercept + slope * x), np.sort(random.integers(0, n // 2, n))


def weights_of(draws, rows):
    return np.concatenate(draws.blocks, axis=1)[rows]


@pytest.mark.parametrize("seed", range(4))
def test_slope_and_intercept_are_those_of_an_unpenalised_logistic_regression(seed):
    p, y, _ = sample(seed)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], y)
    a, b = recalibrate(p, y)
    assert a == pytest.approx(model.intercept_[0], abs=1e-5)
    assert b == pytest.approx(model.coef_[0, 0], abs=1e-5)


@pytest.mark.parametrize("shift", [-6.0, -1.0, 0.0, 4.0])
def test_calibration_in_the_large_makes_the_mean_right(shift):
    p, y, _ = sample(1)
    p = expit(logit(p) + shift)
    a = in_the_large(p, y)
    assert expit(logit(p) + a).mean() == pytest.approx(y.mean())


def test_one_newton_step_is_near_the_fit_under_a_draws_weights():
    """The one-step bootstrap: each draw's slope against scikit-learn's fit with these weights."""
    p, y, subjects = sample(5, n=1500)
    draws = draw_subjects(subjects, 30, 0, "test", 0)
    rows = draws.rows(subjects)
    found = calibration({"none": p}, y, rows, draws, 10)
    steps, fits = [], []
    for column, weight in enumerate(weights_of(draws, rows).T):
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        model.fit(logit(p)[:, None], y, sample_weight=weight)
        steps.append([found["none", "slope"][column], found["none", "intercept"][column]])
        fits.append([model.coef_[0, 0], model.intercept_[0]])
    assert np.array(steps[0]) == pytest.approx(np.array(fits[0]), abs=1e-5)
    assert np.array(steps) == pytest.approx(np.array(fits), abs=0.015)
    assert np.ptp(np.array(fits), axis=0).min() > 0.15  # by which the draws differ


@pytest.mark.parametrize("seed", range(3))
def test_the_levels_step_is_near_the_fit_under_a_draws_weights(seed):
    p, y, subjects = sample(seed, n=1500)
    draws = draw_subjects(subjects, 10, 0, "test", 0)
    rows = draws.rows(subjects)
    found = calibration({"none": p}, y, rows, draws, 10)["none", "in_the_large"]
    for column, weight in enumerate(weights_of(draws, rows).T):
        levels = np.linspace(-1.5, 1.5, 3001)  # 0.001 apart
        best = levels[np.argmin([abs(weight @ (expit(logit(p) + a) - y)) for a in levels])]
        assert found[column] == pytest.approx(best, abs=0.01)


def naive_debiased(p, y, of, weight, bins):
    """Kumar et al. 2019, section 5: what binning noise adds to the error seen, with the integral done numerically."""
    grid = np.linspace(-8, 8, 20001)
    density = np.exp(-(grid**2) / 2) / np.exp(-(grid**2) / 2).sum()
    error = bias = 0.0
    for b in range(bins):
        w = weight * (of == b)
        if not w.sum():
            continue
        gap, share = abs((w * (p - y)).sum() / w.sum()), (w * y).sum() / w.sum()
        noise = np.sqrt(share * (1 - share) / w.sum())
        error += w.sum() / weight.sum() * gap
        bias += w.sum() / weight.sum() * ((abs(gap + noise * grid) * density).sum() - gap)
    return error, error - bias


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(2, 6))
def test_errors_are_those_of_a_loop_over_bins(seed, bins):
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 60))
    p, y = np.round(random.random(n), 1), random.random(n) < 0.3
    subjects = random.integers(0, 20, n)
    draws = draw_subjects(subjects, 4, seed, "test", 0)
    rows = draws.rows(subjects)
    found = calibration({"none": p}, y, rows, draws, bins)
    of = mass_bins(p, bins)
    assert found["none", "ece"] == pytest.approx(calibration_error(p, y * 1.0, rows, draws, bins), abs=1e-12)
    for column, weight in enumerate(weights_of(draws, rows).T):
        if not weight.sum():
            continue
        error, debiased = naive_debiased(p, y, of, weight, bins)
        assert found["none", "ece"][column] == pytest.approx(error, abs=1e-9)
        assert found["none", "ece_debiased"][column] == pytest.approx(debiased, abs=1e-4)
        expected = brier_score_loss(y, p, sample_weight=weight, pos_label=True, labels=[False, True])
        assert found["none", "brier"][column] == pytest.approx(expected)


def test_the_folded_normal_is_the_mean_of_absolute_draws():
    draws = np.random.default_rng(0).standard_normal(400_000)
    for mean, deviation in ((0.0, 1.0), (0.05, 0.1), (0.3, 0.02), (0.2, 0.0)):
        found = folded_normal(np.array([mean]), np.array([deviation]))[0]
        assert found == pytest.approx(abs(mean + deviation * draws).mean(), abs=5e-3 * max(deviation, 0.01))


def test_debiasing_takes_most_of_the_error_of_perfect_scores_away():
    """Whose true error is 0: the mean over 200 samples of 300 stays."""
    random, plain, debiased = np.random.default_rng(0), [], []
    for _ in range(200):
        p = random.random(300)
        y = random.random(300) < p
        rows = np.arange(300)
        found = calibration({"none": p}, y, rows, draw_subjects(rows, 1, 0, "test", 0), 15)
        plain.append(found["none", "ece"][0])
        debiased.append(found["none", "ece_debiased"][0])
    assert np.mean(plain) > 0.05
    assert abs(np.mean(debiased)) < 0.6 * np.mean(plain)


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(true):
    random = np.random.default_rng(0)
    x = random.normal(0, 2, (20_000, 3))
    y = (random.random(x.shape) < expit(x)) * 1.0
    assert fit_temperature(expit(true * x), y, False) == pytest.approx(true, rel=0.05)
    odds = random.normal(0, 2, (20_000, 5))
    rows = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    one_hot = np.eye(5)[[random.choice(5, p=row) for row in rows]]
    said = np.exp(true * odds) / np.exp(true * odds).sum(axis=1, keepdims=True)
    assert fit_temperature(said, one_hot, True) == pytest.approx(true, rel=0.05)


def test_the_temperature_has_the_lowest_loss_of_a_grid():
    p, y, _ = sample(2, slope=0.3)
    found = fit_temperature(p[:, None], y[:, None] * 1.0, False)
    losses = {t: log_loss(y, temper(p, t, False)) for t in np.geomspace(0.1, 15, 400)}
    assert log_loss(y, temper(p, found, False)) <= min(losses.values()) + 1e-9


def test_tempering_keeps_order_sums_and_the_likeliest_class():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(7), 50)
    for temperature in (0.3, 1.0, 4.0):
        found = temper(p, temperature, True)
        assert found.sum(axis=1) == pytest.approx(1)
        assert (found.argmax(axis=1) == p.argmax(axis=1)).all()
    assert temper(p, 1.0, True) == pytest.approx(p, abs=1e-4)
    scores = np.sort(random.random(30))
    assert (np.diff(temper(scores, 3.0, False)) >= 0).all()
    assert temper(np.array([0.0, 1.0]), 2.0, False) == pytest.approx([0.001, 0.999], abs=1e-4)


def test_validation_that_does_not_tell_gives_no_temperature():
    empty = np.zeros((0, 1))
    assert fit_temperature(empty, empty, False) is None
    assert fit_temperature(np.full((5, 1), 0.2), np.zeros((5, 1)), False) is None
    assert fit_temperature(np.full((5, 7), 1 / 7), np.eye(7)[[3] * 5], True) is None
    turned = fit_temperature(np.array([[0.9], [0.1]]), np.array([[0.0], [1.0]]), False)
    assert turned == pytest.approx(TEMPERATURES[1], rel=0.01)  # wrong throughout: as close to a coin as is allowed


SCORES = np.array([0.1, 0.4, 0.6, 0.9])


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (SCORES, np.zeros(4, bool)),
        (SCORES, np.ones(4, bool)),
        (np.full(4, 0.3), np.array([True, False, True, False])),
        (SCORES, np.array([False, False, True, True])),
        (SCORES, np.array([True, True, False, False])),
    ],
    ids=["no positive", "no negative", "constant scores", "separated", "separated the other way"],
)
def test_a_recalibration_without_a_maximum_is_not_estimable(scores, truth):
    assert recalibrate(scores, truth) is None
    rows = np.arange(4)
    found = calibration({"none": scores}, truth, rows, draw_subjects(rows, 10, 0, "test", 0), 5)
    assert np.isnan(found["none", "slope"]).all()
    assert np.isnan(found["none", "intercept"]).all()
    assert not np.isnan(found["none", "ece"]).any()
    assert np.isnan(found["none", "in_the_large"][0]) == (truth.all() or not truth.any())


def test_a_draw_of_one_class_has_no_fit():
    truth = np.array([True, False, True, False, True, False])
    p = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    subjects = np.arange(6)
    draws = draw_subjects(subjects, 300, 0, "test", 0)
    rows = draws.rows(subjects)
    found = calibration({"none": p}, truth, rows, draws, 2)
    weights = weights_of(draws, rows)
    positives = truth @ weights
    one = (positives == 0) | (positives == weights.sum(axis=0))
    assert one.any()
    assert np.isnan(found["none", "slope"][one]).all()
    assert not np.isnan(found["none", "in_the_large"][~one]).any()


def test_no_stay_at_all_and_a_single_one():
    nobody = draw_subjects(np.zeros(0, np.int64), 5, 0, "test", 0)
    found = calibration({"none": np.zeros(0)}, np.zeros(0, bool), np.zeros(0, np.int64), nobody, 5)
    assert set(found) == {("none", measure) for measure in MEASURES}
    assert all(np.isnan(values).all() for values in found.values())
    one = calibration(
        {"none": np.array([0.3])},
        np.array([True]),
        np.zeros(1, np.int64),
        draw_subjects(np.array([4]), 5, 0, "test", 0),
        5,
    )
    assert one["none", "brier"] == pytest.approx(0.49)


def test_a_temperature_changes_neither_intercept_nor_bins():
    p, y, subjects = sample(3)
    draws = draw_subjects(subjects, 20, 0, "test", 0)
    rows = draws.rows(subjects)
    found = calibration({"none": p, "temperature": temper(p, 2.0, False)}, y, rows, draws, 10)
    assert found["temperature", "slope"] == pytest.approx(2 * found["none", "slope"], rel=1e-6)
    assert found["temperature", "intercept"] == pytest.approx(found["none", "intercept"], abs=1e-6)
    alone = calibration({"temperature": temper(p, 2.0, False)}, y, rows, draws, 10)
    assert found["temperature", "ece"] == pytest.approx(alone["temperature", "ece"])


def test_the_slope_of_several_runs_is_one_line_through_all_their_stays():
    parts, every = [], []
    for fold in range(3):
        p, y, subjects = sample(fold, 300, slope=0.7)
        draws = draw_subjects(subjects, 6, 0, "test", fold)
        parts.append((p, y, draws.rows(subjects), draws))
        every.append(np.concatenate(draws.blocks, axis=1)[draws.rows(subjects)])
    found = pooled_slope(parts, 7)
    p, y = (np.concatenate([part[i] for part in parts]) for i in range(2))
    weights = np.concatenate(every)
    for draw in range(7):
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        fit.fit(logit(p)[:, None], y, sample_weight=weights[:, draw])
        assert found[draw] == pytest.approx(fit.coef_[0, 0], abs=1e-5 if draw == 0 else 0.05)  # draws: one Newton step
    assert np.ptp(found) > 0.01


def test_a_group_without_a_line_has_no_slope():
    subjects = np.arange(20)
    draws = draw_subjects(subjects, 12, 0, "test", 0)
    p = np.linspace(0.1, 0.9, 20)
    assert np.isnan(pooled_slope([], 13)).all()
    assert np.isnan(pooled_slope([(p, p > 0.5, subjects, draws)], 13)).all()  # scores tell all
    lone = np.arange(20) == 5
    found = pooled_slope([(p, lone, subjects, draws)], 13)
    without = draws.blocks[0][5] == 0
    assert without.any()
    assert np.isnan(found).tolist() == without.tolist()  # no positive in the draw
