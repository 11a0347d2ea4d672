"""The approximate-randomisation test of a paired difference, and Holm's adjustment.

Under the hypothesis that two models are alike, it does not matter which of the two made a prediction: for each subject
a coin decides whether the predictions of A and B change places, in all stays, seeds and labels of the subject together
(Noreen 1989, Computer-Intensive Methods for Testing Hypotheses). p = (1 + #{|T*| >= |T|}) / (1 + R) over R throws
(Phipson & Smyth 2010). So that scores may change places, each model's are ranked within the run first: AUROC and
average precision of either model alone stay what they are.

Of AUROC and accuracy the difference after a throw is *linear* in the signs s (+1 stay, −1 swap) of the subjects. For
a pair of a positive i and a negative j, with k the win of the first over the second: where both have the same sign the
difference is s_i (k(a_i, a_j) − k(b_i, b_j)), else s_i (k(a_i, b_j) − k(b_i, a_j)); written with (1 ± s_i s_j) / 2,
what is left are s_i and s_j alone, each times the stay's placement by A less that by B, among the other class's scores
of *both* models. So all throws of all comparisons are one matrix product. Other metrics (average precision, kappa) are
computed anew for each throw, from weights 0 and 1 on the scores of both models (`swapped`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pipeline.estimation.bootstrap import Floats, SubjectDraws
from pipeline.estimation.metrics import Bools, Ints

SWAPS = 3  # a stream of random numbers of its own, beside the parts of pipeline.estimation.bootstrap
BLOCK = 512  # throws at once
ALPHA = 0.05  # of a family, in text
TIE = 1e-9  # differences that are equal but for rounding


def ranks(scores: Floats) -> Floats:
    """Mid-ranks [n, ...] along the first axis: two models' scores on one scale."""
    return np.asarray(rankdata(scores, axis=0), dtype=np.float64)


def auroc_shares(a: Floats, b: Floats, labels: Bools, at: Ints, subjects: int) -> Floats | None:
    """Each subject's share of AUROC(a) − AUROC(b), [S]; they sum to it. None with one class alone.

    `a`, `b` [n] are ranks, `at` the subject of each stay.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    share = np.empty(len(labels))
    for own, other, sign in ((labels, ~labels, 1.0), (~labels, labels, -1.0)):
        pooled = np.sort(np.concatenate([a[other], b[other]]))
        share[own] = sign * (_below(pooled, a[own]) - _below(pooled, b[own]))
    return np.asarray(np.bincount(at, share / (2.0 * positives * negatives), subjects), dtype=np.float64)


def _below(pooled: Floats, values: Floats) -> Floats:
    """How many of the sorted `pooled` lie below each value, equal ones half."""
    both = np.searchsorted(pooled, values, "left") + np.searchsorted(pooled, values, "right")
    return np.asarray(both / 2)


def mean_shares(a: Floats, b: Floats, at: Ints, subjects: int) -> Floats | None:
    """Each subject's share of mean(a) − mean(b), [S]: accuracy, of what was right. None without a stay."""
    if not len(a):
        return None
    return np.asarray(np.bincount(at, (a - b) / len(a), subjects), dtype=np.float64)


def signs(sizes: Sequence[int], folds: Sequence[int], throws: int, seed: int) -> Iterator[Floats]:
    """Blocks [r, S] of +1 and −1, r summing to `throws`; S the subjects of all folds, one after the other."""
    randoms = [np.random.default_rng([seed, SWAPS, fold]) for fold in folds]
    for start in range(0, throws, BLOCK):
        rows = min(BLOCK, throws - start)
        coins = [random.integers(0, 2, (rows, size), np.int8) for random, size in zip(randoms, sizes, strict=True)]
        yield 1.0 - 2.0 * np.concatenate(coins, axis=1)


def linear_p(shares: Floats, blocks: Iterator[Floats]) -> Floats:
    """p of each column of `shares` [S, Q]."""
    observed = np.abs(shares.sum(axis=0)) - TIE
    reached, throws = np.zeros(shares.shape[1]), 0
    for block in blocks:
        reached += (np.abs(block @ shares) >= observed).sum(axis=0)
        throws += len(block)
    return np.asarray((1 + reached) / (1 + throws))


def swapped(subjects: NDArray[np.int64], sign: Floats) -> tuple[SubjectDraws, SubjectDraws]:
    """Weights of what A, and what B, is after each throw of `sign` [r, S].

    Rows of the weights are A's predictions of the S subjects, then B's: a metric of the 2n scores of both models, with
    `at` and `at + S` as rows, is that of A (of B) after the throw.
    """
    kept = np.ascontiguousarray((1.0 + sign.T) / 2.0)  # in the order in which sparse sums read it
    rows = np.concatenate([subjects, subjects])
    first, second = np.concatenate([kept, 1.0 - kept]), np.concatenate([1.0 - kept, kept])
    return SubjectDraws(rows, (first,)), SubjectDraws(rows, (second,))


def null_p(values: Floats) -> float | None:
    """p of a difference from `values` [1 + R], the observed one first; None where that is not estimable.

    A throw in which it is not estimable is left out.
    """
    drawn = np.abs(values[1:][~np.isnan(values[1:])])
    if np.isnan(values[0]):
        return None
    return float(1 + (drawn >= abs(values[0]) - TIE).sum()) / (1 + len(drawn))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p values adjusted within a family, in the given order (Holm, Scand. J. Stat. 1979); None does not count."""
    found: list[float | None] = [None] * len(p)
    known = sorted((each, place) for place, each in enumerate(p) if each is not None)
    last = 0.0
    for i, (each, place) in enumerate(known):
        last = max(last, min(1.0, (len(known) - i) * each))
        found[place] = last
    return found
