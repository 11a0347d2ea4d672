"""Deferring the least sure, against a loop over stays."""

import numpy as np
import pytest

from pipeline.estimation.bootstrap import draw_subjects
from pipeline.estimation.deferral import COVERAGES, kept, losses


def by_hand(expected, values, weights, coverage):
    """Stays one after the other, the surest first; those that expect the same give the same share of themselves."""
    left, total = coverage * weights.sum(), 0.0
    for level in sorted(set(expected)):
        alike = expected == level
        there = weights[alike].sum()
        share = min(1.0, left / there) if there else 0.0
        total += share * (weights[alike] * values[alike]).sum()
        left -= share * there
    return total


def test_what_is_kept_is_that_of_a_loop_in_the_sample_and_in_every_draw():
    random = np.random.default_rng(3)
    subjects = random.integers(0, 40, 70)
    expected = np.round(random.random(70), 1)  # many alike
    values = random.random((70, 2))
    draws = draw_subjects(subjects, 12, 0, "test", 0)
    rows = draws.rows(subjects)
    found = kept(expected, values, rows, draws)
    weights = np.concatenate(draws.blocks, axis=1)[rows]
    assert found.shape == (2, len(COVERAGES), 13)
    for draw in range(13):
        for i, coverage in enumerate(COVERAGES):
            for quantity in range(2):
                hand = by_hand(expected, values[:, quantity], weights[:, draw], coverage)
                assert found[quantity, i, draw] == pytest.approx(hand)


def test_equally_sure_stays_are_kept_in_shares():
    subjects = np.arange(8)
    draws = draw_subjects(subjects, 1, 0, "test", 0)
    outcome = np.array([[1.0], [1], [1], [1], [0], [0], [0], [0]])
    assert kept(np.full(8, 0.2), outcome, subjects, draws, (0.5,))[0, 0, 0] == pytest.approx(2.0)
    sure_of_these = np.array([0.1] * 4 + [0.2] * 4)
    assert kept(sure_of_these, outcome, subjects, draws, (0.25, 0.5, 0.75))[0, :, 0] == pytest.approx([2, 4, 4])


def test_nobody_keeps_nobody():
    nobody = np.zeros(0, np.int64)
    draws = draw_subjects(nobody, 3, 0, "test", 0)
    assert kept(np.zeros(0), np.zeros((0, 1)), nobody, draws).tolist() == np.zeros((1, len(COVERAGES), 4)).tolist()


def test_the_loss_that_probabilities_expect_is_the_mean_over_what_they_say():
    p = np.array([[0.2, 0.7]])
    said = [
        (0.2 if a else 0.8) * (0.7 if b else 0.3) * losses(p, np.array([[a, b]], float), False)[0][0]
        for a in (0, 1)
        for b in (0, 1)
    ]
    assert losses(p, np.zeros((1, 2)), False)[1][0] == pytest.approx(sum(said))
    row = np.array([[0.5, 0.3, 0.2]])
    said = [row[0, i] * losses(row, np.eye(3)[[i]], True)[0][0] for i in range(3)]
    assert losses(row, np.eye(3)[[0]], True)[1][0] == pytest.approx(sum(said))
    assert losses(row, np.eye(3)[[0]], True)[0][0] == pytest.approx(0.25 + 0.09 + 0.04)
