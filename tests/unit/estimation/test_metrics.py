"""Every metric against scikit-learn (with sample weights) or a naive loop, ties and degenerate inputs included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from pipeline.estimation import metrics
from pipeline.estimation.bootstrap import SubjectDraws, draw_subjects
from pipeline.estimation.curves import GRID, pr_points, reliability_curve, roc_points
from pipeline.estimation.metrics import (
    BINARY,
    best_threshold,
    binary_metrics,
    calibration_error,
    kappa,
    mass_bins,
    multiclass_metrics,
    rank_metrics,
    running_sums,
)


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, SubjectDraws]:
    """Scores with many ties, labels, several stays a subject, and weights with zeros."""
    n = draw(st.integers(2, 40))
    scores = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))) / 6
    labels = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    subjects = np.array(draw(st.lists(st.integers(100, 115), min_size=n, max_size=n)))
    draws = draw_subjects(subjects, 5, draw(st.integers(0, 99)), "test", 0)
    return scores, labels, draws.rows(subjects), draws


def weights_of(draws: SubjectDraws, rows: np.ndarray) -> np.ndarray:
    return np.concatenate(draws.blocks, axis=1)[rows]


@settings(max_examples=60, deadline=None)
@given(samples())
def test_rank_metrics_are_scikit_learns_under_sample_weight(sample):
    scores, labels, rows, draws = sample
    auroc, auprc = rank_metrics(scores, labels, rows, draws)
    for column, weight in enumerate(weights_of(draws, rows).T):
        if len(set(labels)) < 2 or len(set(labels[weight > 0])) < 2:
            assert np.isnan(auroc[column])
            continue
        assert auroc[column] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight), abs=1e-12)
        expected = average_precision_score(labels, scores, sample_weight=weight)
        assert auprc[column] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("few", [0, metrics.FEW])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 128, 500])
def test_running_sums_are_numpys(monkeypatch, count, few):
    monkeypatch.setattr(metrics, "FEW", few)
    values = np.random.default_rng(0).integers(0, 5, (count, 7)).astype(float)
    assert np.array_equal(running_sums(values), np.cumsum(values, axis=0))


def test_rank_metrics_of_continuous_scores_in_many_blocks():
    random = np.random.default_rng(0)
    subjects = np.repeat(np.arange(2000), 3)
    labels = random.random(6000) < 0.1
    scores = random.normal(size=6000) + labels
    draws = draw_subjects(subjects, 1600, 3, "test", 1)
    assert len(draws.blocks) > 1
    rows = draws.rows(subjects)
    auroc, auprc = rank_metrics(scores, labels, rows, draws)
    weights = weights_of(draws, rows)
    assert weights.shape[1] == len(auroc) == 1601
    for column in (0, 1, 749, 750, 751, 1600):
        weight = weights[:, column]
        assert auroc[column] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight), abs=1e-12)
        assert auprc[column] == pytest.approx(average_precision_score(labels, scores, sample_weight=weight), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(samples(), st.integers(0, 6))
def test_binary_metrics_are_scikit_learns(sample, cut):
    scores, labels, rows, draws = sample
    threshold = cut / 6
    found = binary_metrics(scores, labels, threshold, rows, draws, bins=4)
    predicted = scores >= threshold
    for column, weight in enumerate(weights_of(draws, rows).T):
        if not weight.sum():
            continue
        assert found["accuracy"][column] == pytest.approx(accuracy_score(labels, predicted, sample_weight=weight))
        brier = brier_score_loss(labels, scores, sample_weight=weight, pos_label=True, labels=[False, True])
        assert found["brier"][column] == pytest.approx(brier)
        if labels[weight > 0].any():
            expected = f1_score(labels, predicted, sample_weight=weight, zero_division=0)
            assert found["f1"][column] == pytest.approx(expected)
        else:
            assert np.isnan(found["f1"][column])
        if len(set(labels[weight > 0]) | set(predicted[weight > 0])) > 1:
            expected = cohen_kappa_score(labels, predicted, sample_weight=weight)
            assert found["kappa"][column] == pytest.approx(expected, abs=1e-9)
        else:
            assert np.isnan(found["kappa"][column])


@settings(max_examples=50, deadline=None)
@given(samples(), st.integers(2, 8))
def test_calibration_error_is_that_of_a_loop_over_bins(sample, bins):
    scores, labels, rows, draws = sample
    found = calibration_error(scores, labels.astype(float), rows, draws, bins)
    of = mass_bins(scores, bins)
    for column, weight in enumerate(weights_of(draws, rows).T):
        if not weight.sum():
            continue
        error = 0.0
        for b in range(bins):
            inside = of == b
            if weight[inside].sum():
                gap = np.average(scores[inside], weights=weight[inside]) - np.average(
                    labels[inside], weights=weight[inside]
                )
                error += weight[inside].sum() / weight.sum() * abs(gap)
        assert found[column] == pytest.approx(error, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(2, 15))
def test_bins_hold_equal_masses_and_do_not_tear_equal_scores(values, bins):
    scores = np.array(values)
    found = mass_bins(scores, bins)
    assert found.min() >= 0
    assert found.max() < bins
    assert all(len(set(found[scores == value])) == 1 for value in scores)
    assert (np.diff(found[np.argsort(scores)]) >= 0).all()
    if len(set(values)) == len(values):
        counts = np.bincount(found, minlength=bins)
        assert counts.max() - counts.min() <= 1


@settings(deadline=None)
@given(samples())
def test_threshold_has_the_best_f1_of_all(sample):
    scores, labels, _, _ = sample
    found = best_threshold(scores, labels)
    if not labels.any():
        assert found is None
        return
    by_hand = {cut: f1_score(labels, scores >= cut, zero_division=0) for cut in set(scores)}
    assert by_hand[found] == pytest.approx(max(by_hand.values()))
    assert found == max(cut for cut, f1 in by_hand.items() if f1 == pytest.approx(by_hand[found]))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000))
def test_multiclass_metrics_are_scikit_learns(n, seed):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 5, n)
    scores = random.dirichlet(np.ones(7), n)
    subjects = random.integers(0, 12, n)
    draws = draw_subjects(subjects, 4, seed, "test", 0)
    rows = draws.rows(subjects)
    found = multiclass_metrics(scores, truth, rows, draws, bins=3)
    predicted = scores.argmax(1)
    correct = (predicted == truth).astype(float)
    for column, weight in enumerate(weights_of(draws, rows).T):
        used = weight > 0
        assert found["accuracy"][column] == pytest.approx(np.average(correct, weights=weight))
        expected = f1_score(truth[used], predicted[used], sample_weight=weight[used], average="macro", zero_division=0)
        assert found["f1"][column] == pytest.approx(expected)
        squares = ((scores - np.eye(7)[truth]) ** 2).sum(1)
        assert found["brier"][column] == pytest.approx(np.average(squares, weights=weight))
        if len(set(truth[used]) | set(predicted[used])) > 1:
            expected = cohen_kappa_score(truth[used], predicted[used], sample_weight=weight[used])
            assert found["kappa"][column] == pytest.approx(expected, abs=1e-9)
    assert np.allclose(found["ece"], calibration_error(scores.max(1), correct, rows, draws, 3), equal_nan=True)


def test_kappa_of_cohens_own_table():
    # Cohen 1960, table 1 as counts of 200: agreement .29 + .20 ... worked by hand: po = .7, pe = .41
    matrix = np.array([[88.0, 14, 18], [10, 40, 10], [2, 6, 12]])[:, :, None]
    po = (88 + 40 + 12) / 200
    pe = (120 * 100 + 60 * 60 + 20 * 40) / 200**2
    assert kappa(matrix)[0] == pytest.approx((po - pe) / (1 - pe))
    assert kappa(matrix)[0] == pytest.approx(0.491525, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels", "absent"),
    [
        ([0.1, 0.5, 0.9], [False, False, False], {"auroc", "auprc", "f1"}),
        ([0.1, 0.5, 0.9], [True, True, True], {"auroc", "auprc"}),
    ],
    ids=["no positive", "no negative"],
)
def test_degenerate_samples_are_not_estimable(scores, labels, absent):
    subjects = np.arange(3)
    draws = draw_subjects(subjects, 3, 0, "test", 0)
    found = binary_metrics(np.array(scores), np.array(labels), 0.3, subjects, draws, 5)
    assert {name for name in BINARY if np.isnan(found[name][0])} >= absent
    assert not np.isnan([found[name][0] for name in ("accuracy", "brier", "ece")]).any()


def test_constant_scores_are_chance_and_count():
    subjects = np.arange(4)
    draws = draw_subjects(subjects, 3, 0, "test", 0)
    auroc, precision = rank_metrics(np.full(4, 0.4), np.array([True, False, True, True]), subjects, draws)
    assert auroc[0] == 0.5
    assert precision[0] == 0.75
    assert set(auroc[~np.isnan(auroc)]) == {0.5}


def test_nothing_to_score_and_no_threshold():
    draws = draw_subjects(np.arange(3), 3, 0, "test", 0)
    none = np.zeros(0)
    empty = binary_metrics(none, none.astype(bool), 0.5, none.astype(int), draws, 5)
    assert all(np.isnan(values).all() for values in empty.values())
    assert all(
        np.isnan(v).all()
        for v in multiclass_metrics(np.zeros((0, 7)), none.astype(int), none.astype(int), draws, 5).values()
    )
    found = binary_metrics(np.array([0.1, 0.2, 0.3]), np.array([True, False, True]), None, np.arange(3), draws, 5)
    assert np.isnan([found["f1"][0], found["accuracy"][0], found["kappa"][0]]).all()
    assert found["auroc"][0] == 0.5


def test_curves_pass_through_their_points():
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    labels = np.array([True, False, True, True, False])
    roc = roc_points(scores, labels)
    assert roc is not None
    assert roc[0] == pytest.approx(1 / 3)
    assert roc[25] == pytest.approx(1 / 3 + 1 / 6)  # half of the tied pair
    assert roc[50] == pytest.approx(1)
    assert roc[-1] == 1
    precision = pr_points(scores, labels)
    assert precision is not None
    expected, recall, _ = precision_recall_curve(labels, scores)
    for at, value in zip(recall[:-1], expected[:-1], strict=True):
        index = int(np.floor(at * 100))
        if np.isclose(GRID[index], at):
            assert precision[index] >= value
    assert precision[0] == 1
    assert precision[33] == 1
    assert precision[34] == pytest.approx(2 / 3)
    assert precision[-1] == pytest.approx(3 / 4)
    assert roc_points(scores, np.ones(5, dtype=bool)) is None
    assert pr_points(scores, np.zeros(5, dtype=bool)) is None


def test_area_under_the_roc_points_is_the_auroc():
    random = np.random.default_rng(4)
    labels = random.random(5000) < 0.3
    scores = random.normal(size=5000) + labels
    assert np.trapezoid(roc_points(scores, labels), GRID) == pytest.approx(roc_auc_score(labels, scores), abs=2e-3)


def test_reliability_keeps_the_total():
    import polars as pl

    random = np.random.default_rng(1)
    rows = pl.DataFrame(
        {"fold": [0] * 50 + [1] * 50, "seed": [0] * 100, "p_y": random.random(100), "y": random.random(100) < 0.4}
    )
    found = reliability_curve(rows, "y", 5)
    assert found["n"].to_list() == [50, 50]  # 2 bins of 25 in each fold: a bin holds at least 20
    assert found["observed"].mean() == pytest.approx(rows["y"].mean())
    assert found["predicted"].mean() == pytest.approx(rows["p_y"].mean())
    assert found["predicted"].is_sorted()
