"""Ranks of strategies from shared bootstrap draws: the drawn ranks, who is best how often, and sets that hold the rank.

All strategies were scored on the same draws (pipeline.evaluation.scores), so that a draw ranks them on the same people.
Phenotypes and folds of a subject stay together in a draw: they are no independent data sets, as a critical-difference
diagram would take them for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pipeline.estimation.bootstrap import MIN_ESTIMABLE, Floats

Maybe = float | None


@dataclass(frozen=True)
class Rank:
    """Of one strategy; 1 is the best, equal scores share the mean of their ranks.

    `low`, `high`: percentiles of the drawn ranks. `set_low`, `set_high`: the confidence set (`rank_sets`). `best`: the
    share of draws in which it is the best; those that tie for it share a draw. None is "not estimable".
    """

    rank: Maybe
    low: Maybe = None
    high: Maybe = None
    set_low: int | None = None
    set_high: int | None = None
    best: Maybe = None


def ranks(values: Floats, confidence: float, higher_is_better: bool = True) -> list[Rank]:
    """Rank of each of S strategies from the draws of one metric, `values` [S, 1 + D], the estimates first.

    A strategy whose estimate is NaN has no rank and is in no one's way. Draws in which a ranked strategy is not
    estimable are left out; where these are more than a tenth, only one strategy is ranked, or all draws agree (a single
    subject), there is no interval.
    """
    ranked = np.flatnonzero(~np.isnan(values[:, 0]))
    found = [Rank(None)] * len(values)
    if not len(ranked):
        return found
    signed = (-values if higher_is_better else values)[ranked]
    estimate = rankdata(signed[:, 0])
    drawn = signed[:, 1:][:, ~np.isnan(signed[:, 1:]).any(axis=0)]
    few = len(ranked) < 2 or drawn.shape[1] < max(2, MIN_ESTIMABLE * (values.shape[1] - 1))
    if few or np.ptp(drawn, axis=1).max() == 0:
        for i, strategy in enumerate(ranked):
            found[strategy] = Rank(float(estimate[i]))
        return found
    each = rankdata(drawn, axis=0)
    # ranks are steps: the quantile outside of which at most that share of the draws lies, not a value between two
    low = np.quantile(each, (1 - confidence) / 2, axis=1, method="lower")
    high = np.quantile(each, (1 + confidence) / 2, axis=1, method="higher")
    first = drawn == drawn.min(axis=0)
    best = (first / first.sum(axis=0)).mean(axis=1)
    sets = rank_sets(signed[:, 0], drawn, confidence)
    for i, strategy in enumerate(ranked):
        found[strategy] = Rank(
            float(estimate[i]), float(low[i]), float(high[i]), int(sets[i, 0]), int(sets[i, 1]), float(best[i])
        )
    return found


def rank_sets(estimates: Floats, drawn: Floats, confidence: float) -> NDArray[np.int64]:
    """[S, 2]: from which to which place each strategy's true rank lies, with `confidence`; lower values are better.

    Drawn ranks are too sure of themselves where strategies are about equal. Here a strategy's place is pinned down only
    by those from which it differs significantly, over all its S − 1 differences at once: the critical value is the
    quantile of the largest studentised difference in the draws (Mogstad, Romano, Shaikh & Wilhelm 2024, Review of
    Economic Studies 91; marginal confidence sets).
    """
    count = len(estimates)
    found = np.empty((count, 2), dtype=np.int64)
    for i in range(count):
        others = np.arange(count) != i
        difference = estimates[i] - estimates[others]  # above 0: worse than the other
        draws = drawn[i] - drawn[others]
        spread = draws.std(axis=1, ddof=1)
        told_apart = spread > 1e-12  # two strategies that agree in all draws are not
        deviation = np.abs(draws[told_apart] - difference[told_apart, None]) / spread[told_apart, None]
        critical = np.quantile(deviation.max(axis=0), confidence) if told_apart.any() else np.inf
        scaled = difference[told_apart] / spread[told_apart]
        found[i] = 1 + (scaled > critical).sum(), count - (scaled < -critical).sum()
    return found
