"""Ranks, drawn ranks and confidence sets against naive loops; what cannot be ranked has no rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.estimation.ranking import Rank, rank_sets, ranks


def naive_rank(scores, i, higher=True) -> float:
    sign = 1 if higher else -1
    better = sum(sign * other > sign * scores[i] for other in scores)
    return better + (1 + sum(other == scores[i] for other in scores)) / 2


@given(st.integers(2, 6), st.integers(0, 500), st.booleans())
@settings(deadline=None, max_examples=40)
def test_ranks_are_those_of_a_loop_over_draws(count, seed, higher):
    random = np.random.default_rng(seed)
    values = np.round(random.random((count, 41)), 1)  # with ties
    for i, found in enumerate(ranks(values, 0.9, higher)):
        assert found.rank == naive_rank(values[:, 0], i, higher)
        drawn = sorted(naive_rank(column, i, higher) for column in values[:, 1:].T)
        # of the 40 draws at most two lie below, and above
        assert (found.low, found.high) == (drawn[1], drawn[38])
        shares = []
        for column in values[:, 1:].T:
            first = column.max() if higher else column.min()
            shares.append((column[i] == first) / sum(column == first))
        assert found.best == pytest.approx(np.mean(shares))


def naive_set(estimates, drawn, i, confidence):
    """Mogstad et al. 2024: two-sided, all differences of one strategy at once; higher is better."""
    t, largest = {}, np.zeros(drawn.shape[1])
    for k in range(len(estimates)):
        if k == i:
            continue
        difference = drawn[i] - drawn[k]
        spread = np.std(difference, ddof=1)
        if spread == 0:
            continue
        t[k] = (estimates[i] - estimates[k]) / spread
        largest = np.maximum(largest, abs(difference - (estimates[i] - estimates[k])) / spread)
    critical = np.quantile(largest, confidence)
    return 1 + sum(each < -critical for each in t.values()), len(estimates) - sum(
        each > critical for each in t.values()
    )


@pytest.mark.parametrize("seed", range(5))
def test_sets_are_those_of_a_loop(seed):
    random = np.random.default_rng(seed)
    level = np.array([0.5, 0.6, 0.61, 0.9])
    values = level[:, None] + 0.03 * random.standard_normal((4, 301))
    for i, found in enumerate(ranks(values, 0.95)):
        assert (found.set_low, found.set_high) == naive_set(values[:, 0], values[:, 1:], i, 0.95)


def test_a_strategy_far_ahead_is_pinned_down_and_equals_are_not():
    random = np.random.default_rng(1)
    noise = 0.01 * random.standard_normal((3, 401))
    ahead, one, other = ranks(np.array([0.9, 0.5, 0.5])[:, None] + noise, 0.95)
    assert (ahead.rank, ahead.low, ahead.high, ahead.set_low, ahead.set_high, ahead.best) == (1, 1, 1, 1, 1, 1)
    assert (one.set_low, one.set_high) == (other.set_low, other.set_high) == (2, 3)


def test_identical_strategies_share_rank_and_draws():
    values = np.tile(np.random.default_rng(0).random(51), (2, 1))
    for found in ranks(values, 0.95):
        assert found == Rank(1.5, 1.5, 1.5, 1, 2, 0.5)


def test_what_is_not_estimable_has_no_rank_and_is_in_no_ones_way():
    random = np.random.default_rng(0)
    values = random.random((3, 101))
    values[1, 0] = np.nan
    first, absent, second = ranks(values, 0.95)
    assert absent == Rank(None)
    assert {first.rank, second.rank} == {1, 2}
    assert ranks(np.full((2, 11), np.nan), 0.95) == [Rank(None)] * 2
    alone = ranks(values[:1], 0.95)[0]
    assert alone == Rank(1.0)


def test_too_few_draws_give_a_rank_without_interval():
    values = np.random.default_rng(0).random((2, 101))
    values[0, 1:20] = np.nan
    assert all(found.rank and found.low is None and found.set_low is None for found in ranks(values, 0.95))


@pytest.mark.slow
def test_sets_hold_the_true_rank_of_equal_strategies_where_drawn_ranks_do_not():
    """300 samples of 8 strategies, the last one ahead by a hair: the true rank of each is in its set in 95 %."""
    random = np.random.default_rng(3)
    level = np.array([0.0] * 7 + [0.05])
    held = drawn_held = 0
    for _ in range(300):
        sample = level + random.standard_normal((100, 8)) + random.standard_normal((100, 1))
        draws = random.multinomial(100, np.full(100, 0.01), size=400)
        values = np.concatenate([sample.mean(axis=0)[:, None], (draws @ sample / 100).T], axis=1)
        best = ranks(values, 0.95)[7]  # whose true rank is 1
        held += best.set_low <= 1 <= best.set_high
        drawn_held += best.low <= 1 <= best.high
    print(f"true rank in the set: {held / 300:.3f}, in the drawn ranks: {drawn_held / 300:.3f}")
    assert held / 300 >= 0.93
    assert drawn_held < held


def test_sets_of_draws_that_all_agree_tell_nothing():
    assert rank_sets(np.array([0.1, 0.2]), np.full((2, 20), 0.5), 0.95).tolist() == [[1, 2], [1, 2]]
