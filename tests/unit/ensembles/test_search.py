"""The search for weights on planted components: what it must find, and what it must not do."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss

from pipeline.ensembles.search import alone, first_best, greedy, mean, score, tpe
from pipeline.ensembles.weights import EQUAL, SEARCHES, SINGLE, learn, trial_rows
from pipeline.params import Ensemble
from pipeline.tasks import get_task

MORTALITY, LOS = get_task("mortality"), get_task("los")
KNOBS = Ensemble(("a", "b", "c", "d"), "tpe", 50, 0, "monitor", 42)
LOSS = dataclasses.replace(KNOBS, metric="log_loss")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def planted(signal, n=2000, seed=3):
    """truth [n, 1], p [components, n, 1]: of each component, so much of the truth beside noise of its own."""
    random = np.random.default_rng(seed)
    truth = (random.random((n, 1)) < 0.3).astype(int)
    p = [sigmoid(strength * (2 * truth - 1) + random.normal(size=(n, 1)) - 0.8) for strength in signal]
    return truth, np.stack(p)


def learned(truth, p, knobs=KNOBS, task=MORTALITY, among=None):
    return learn(task, knobs, truth, p, list(range(len(p))) if among is None else among, SEARCHES)


def share(weights):
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize("knobs", [KNOBS, LOSS])
@pytest.mark.parametrize("search", SEARCHES)
def test_the_component_that_knows_the_truth_beside_noise_gets_four_fifths(knobs, search):
    truth, p = planted([0.0, 1.5, 0.0, 0.0])
    assert share(learned(truth, p, knobs).lines[search])[1] >= 0.8


@pytest.mark.parametrize("search", SEARCHES)
def test_two_with_independent_errors_both_get_weight_and_beat_each_on_stays_that_chose_nothing(search):
    truth, p = planted([1.0, 1.0], n=8000)
    weights = learned(truth[:4000], p[:, :4000]).lines[search]
    assert min(share(weights)) > 0.25
    unseen, later = truth[4000:], p[:, 4000:]
    together = score(MORTALITY, "monitor", unseen, mean(later, weights))
    assert together > 0.02 + max(score(MORTALITY, "monitor", unseen, each) for each in later)


@pytest.mark.parametrize("search", SEARCHES)
def test_equal_components_answer_as_each_of_them_does_to_the_bit(search):
    truth, p = planted([1.0])
    p = np.repeat(p.astype(np.float32).astype(np.float64), 3, axis=0)
    for weights in ((3, 10, 7), learned(truth, p).lines[search]):
        assert np.array_equal(mean(p, weights).astype(np.float32), p[0].astype(np.float32))


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("seed", range(4))
def test_never_worse_on_validation_than_the_best_component_alone(seed, search):
    truth, p = planted([0.2, 0.4, 2.0, 0.1, 0.0], n=60, seed=seed)
    found = learned(truth, p)
    single = score(MORTALITY, "monitor", truth, mean(p, found.lines[SINGLE]))
    assert single == max(score(MORTALITY, "monitor", truth, each) for each in p)
    assert found.searches[search].best.score >= single
    assert found.searches[search].best.score == score(MORTALITY, "monitor", truth, mean(p, found.lines[search]))


def test_tpe_tries_each_component_alone_first_then_whole_weights_and_is_the_same_again():
    truth, p = planted([0.5, 1.0, 0.7])

    def of(weights):
        return score(MORTALITY, "monitor", truth, mean(p, weights))

    found = tpe(of, 3, [0, 1, 2], 30, 42)
    assert len(found.trials) == 30
    assert [trial.weights for trial in found.trials[:3]] == [(10, 0, 0), (0, 10, 0), (0, 0, 10)]
    assert {weight for trial in found.trials for weight in trial.weights} <= set(range(11))
    assert found.best == first_best(found.trials)
    assert found == tpe(of, 3, [0, 1, 2], 30, 42)
    assert found.trials != tpe(of, 3, [0, 1, 2], 30, 43).trials


def test_weights_that_are_all_zero_are_tried_without_a_score():
    """A single component has eleven weights: a search of two hundred meets 0."""
    found = tpe(lambda weights: 0.5, 1, [0], 200, 1)
    assert {trial.score for trial in found.trials if not any(trial.weights)} == {None}
    assert found.best == ((10,), 0.5)


def test_greedy_is_the_selection_by_hand():
    """Rounds of a score that is known: the best component, then what helps it most, again if need be."""
    wanted = np.array([0.5, 0.25, 0.25])

    def of(weights):
        return -float(np.abs(share(weights) - wanted).sum())

    found = greedy(of, 3, [0, 1, 2], 6)
    assert [trial.weights for trial in found.trials[:4]] == [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1)]
    assert found.best == ((2, 1, 1), 0.0)


def test_permuted_components_have_permuted_weights():
    truth, p = planted([0.3, 1.0, 0.6])
    order = [2, 0, 1]
    plain, permuted = (learned(truth, each).lines["greedy"] for each in (p, p[order]))
    assert permuted == tuple(plain[i] for i in order)


def test_top_leaves_weight_to_the_best_on_validation_alone():
    truth, p = planted([0.2, 1.0, 0.1, 0.9])
    found = learned(truth, p, dataclasses.replace(KNOBS, top=2))
    for search in SEARCHES:
        assert [found.lines[search][i] for i in (0, 2)] == [0, 0]
        assert found.lines[search][1] > 0
    assert found.lines[EQUAL] == (1, 1, 1, 1)


def test_only_those_among_whom_it_searches_have_weight():
    truth, p = planted([2.0, 0.5, 0.5])
    found = learned(truth, p, among=[1, 2])
    assert {weights[0] for weights in found.lines.values()} == {0}
    assert found.lines[EQUAL] == (0, 1, 1)


def test_weights_are_equal_where_nothing_is_estimable():
    truth, p = planted([1.0, 0.5], n=20)
    for rows in (slice(0, 0), np.flatnonzero(truth[:, 0] == 0)):
        found = learned(truth[rows], p[:, rows])
        assert (found.used, found.weights, found.searches) == (EQUAL, (1, 1), {})


def test_scores_are_those_of_scikit_learn():
    truth, p = planted([0.8])
    assert score(MORTALITY, "monitor", truth, p[0]) == pytest.approx(average_precision_score(truth, p[0]))
    assert score(MORTALITY, "log_loss", truth, p[0]) == pytest.approx(-log_loss(truth, p[0]))
    random = np.random.default_rng(0)
    stays, classes = random.dirichlet(np.ones(7), 200), random.integers(0, 7, (200, 1))
    assert score(LOS, "log_loss", classes, stays) == pytest.approx(-log_loss(classes[:, 0], stays, labels=range(7)))
    assert score(LOS, "monitor", classes, stays) == pytest.approx((stays.argmax(1) == classes[:, 0]).mean())


def test_the_trials_table_has_the_best_so_far():
    truth, p = planted([0.3, 1.0])
    rows = [row for row in trial_rows(learned(truth, p), ["gbm", "lstm"]) if row["search"] == "tpe"]
    assert [row["weights"] for row in rows[:2]] == ["gbm 10", "lstm 10"]
    scores = [-1.0 if row["validation"] is None else row["validation"] for row in rows]
    assert [row["best"] for row in rows] == np.maximum.accumulate(scores).tolist()
    assert alone(2, [0, 1]) == [(10, 0), (0, 10)]
