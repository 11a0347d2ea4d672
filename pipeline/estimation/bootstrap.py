"""Resampling of subjects: one set of weights shared by every strategy, task and metric, and intervals.

A draw is a random half of the subjects (delete-half jackknife: Shao & Wu 1989, Annals of Statistics 17). Halves vary
about the sample as samples do about the truth, of few subjects, too: of a mean, their variance is s²/n, where that of
resamples with replacement is short by (n − 1)/n. And no subject is drawn twice: average precision is biased by what a
positive does to its own precision, which copies of it do not show.

A draw is a weight per subject (1, or 0), never a copy of rows: a metric is computed for all draws at once from weighted
sums (pipeline.estimation.metrics). Column 0 of the weights is the sample itself, so that the estimate and its draws
come from the same code. Because all strategies share the draws, the difference of two results, column by column, is
paired.

Subjects are drawn within their test fold (each is in test once); those of `dev` are one sample that all folds
share. The draws of a fold depend on the seed, the fold and its subjects, and on nothing else that the grid holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from scipy.special import logit as log_odds

Floats = NDArray[np.float64]

PARTS = {"test": 0, "dev": 1}
CHUNK = 1_500_000  # weights in a block: 12 MB, so that the sums over its rows stay near the processor
NEAR = 1e-4  # a share this near to 0 or 1 has no log-odds to speak of
MIN_ESTIMABLE = 0.9  # of the draws, before an interval is given; of the labels, before a draw counts for their mean


@dataclass(frozen=True)
class SubjectDraws:
    """Weights of S subjects in 1 + D draws, in blocks of draws.

    `subjects` is sorted, [S]; `blocks` are [S, d] with d summing to 1 + D; all weights of column 0 are 1.
    """

    subjects: NDArray[np.int64]
    blocks: tuple[Floats, ...]

    @property
    def columns(self) -> int:
        """1 + D."""
        return sum(block.shape[1] for block in self.blocks)

    def rows(self, subjects: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of the weights for each of `subjects`; KeyError where one is not in the sample."""
        found = np.searchsorted(self.subjects, subjects)
        if len(subjects) and not np.array_equal(self.subjects[np.minimum(found, len(self.subjects) - 1)], subjects):
            raise KeyError("a subject that is not in the sample that was drawn from")
        return found.astype(np.int64)


def draw_subjects(subjects: NDArray[np.int64], draws: int, seed: int, part: str, fold: int) -> SubjectDraws:
    """`draws` halves of the distinct `subjects` of a part and fold (dev: one sample for all folds).

    Of an odd number, one more or one fewer than are left out; a single subject is in all draws.
    """
    subjects = np.unique(subjects.astype(np.int64))
    entropy = [seed, PARTS[part], fold if part == "test" else 0]
    random = np.random.default_rng(entropy)
    count, width = len(subjects), max(64, CHUNK // max(1, len(subjects)))
    blocks = []
    for start in range(0, 1 + draws, width):
        wanted = min(width, 1 + draws - start)
        block = np.zeros((count, wanted))
        for column in range(wanted):
            half = count if start + column == 0 else max(1, (count + random.integers(2)) // 2)
            block[random.permutation(count)[:half], column] = 1.0
        blocks.append(block)
    return SubjectDraws(subjects, tuple(blocks))


def quotient(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where bottom is not above 0."""
    found = np.full(np.shape(bottom), np.nan)
    np.divide(top, bottom, out=found, where=bottom > 0)
    return found


def average_runs(values: Floats) -> Floats:
    """Mean, [R, 1 + D] -> [1 + D], of the runs in which the metric is estimable; NaN where there is none."""
    known = ~np.isnan(values)
    return quotient(np.nan_to_num(values).sum(axis=0), known.sum(axis=0).astype(np.float64))


def average_labels(values: Floats) -> Floats:
    """Mean over labels, [L, 1 + D] -> [1 + D], of those that are estimable in the sample itself; NaN where none is.

    A draw in which one of them is not estimable (a rare label that was not drawn) averages the others; where more than
    a tenth of them are not, the draw is about other labels than the estimate, and is NaN.
    """
    estimable = values[~np.isnan(values[:, 0])]
    known = ~np.isnan(estimable)
    total = known.sum(axis=0).astype(np.float64)
    mean = np.nan_to_num(estimable).sum(axis=0)
    return quotient(mean, np.where(total >= MIN_ESTIMABLE * len(estimable), total, 0.0))


def interval(
    values: Floats, confidence: float, shifts: int = 0, logit: bool = False
) -> tuple[float | None, float | None]:
    """Interval from the draws of one metric (`values` [1 + D], the estimate first), or (None, None).

    None where the estimate is not estimable, where the metric is not estimable in more than a tenth of the draws, and
    where all draws agree (a single subject, or perfect scores): resampling then says nothing about the uncertainty.
    Bounds are percentiles of the draws; the coverage of that: tests/unit/estimation/test_coverage.py.

    The draws' mean less the estimate is the bootstrap's view of the metric's bias (Efron & Tibshirani 1993, ch. 10).
    `shifts` is how often it is taken from the draws: once where resampling alone pushes the metric upwards (calibration
    error), twice where the estimate is biased just as its draws are (average precision). Shifted bounds stay in [0, 1].

    `logit`: the estimate ± z standard deviations of the draws, both as log-odds. For AUROC, whose percentiles lie too
    high by a little where positives are few. Where a draw is 0 or 1 its log-odds are infinite, and percentiles stay.
    """
    drawn = _drawn(values)
    if drawn is None:
        return None, None
    if logit and min(values[0], drawn.min()) > NEAR and max(values[0], drawn.max()) < 1 - NEAR:
        spread = ndtri((1 + confidence) / 2) * log_odds(drawn).std(ddof=1)
        low, high = expit(log_odds(values[0]) + np.array([-spread, spread]))
        return float(low), float(high)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    if shifts:
        low, high = np.clip([low, high] + shifts * (values[0] - drawn.mean()), 0.0, 1.0)
    return float(low), float(high)


def difference_interval(values: Floats, confidence: float) -> tuple[float | None, float | None]:
    """Interval of a paired difference from its draws ([1 + D], the estimate first): ± z standard deviations.

    (None, None) as `interval`. A difference of two scores is symmetric where the scores are not; at 50 positives this
    holds the truth a little more often than percentiles do, which also need more draws.
    """
    drawn = _drawn(values)
    if drawn is None:
        return None, None
    spread = float(ndtri((1 + confidence) / 2) * drawn.std(ddof=1))
    return float(values[0]) - spread, float(values[0]) + spread


def _drawn(values: Floats) -> Floats | None:
    """The estimable draws, or None where they give no interval."""
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or len(drawn) < MIN_ESTIMABLE * (len(values) - 1) or np.ptp(drawn) == 0:
        return None
    return drawn
