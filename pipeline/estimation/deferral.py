"""Deferring the least sure: which stays a strategy would keep at each coverage, and what they cost (risk–coverage).

A stay is as sure as the loss that its own probabilities expect: the Brier score p (1 − p) of a label, 1 − Σ p² of
classes. Of calibrated probabilities no other order keeps less loss (Chow 1970, IEEE Transactions on Information Theory
16; El-Yaniv & Wiener 2010, JMLR 11). With several labels a stay is deferred as a whole: both are means over labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.estimation.bootstrap import Floats, SubjectDraws
from pipeline.estimation.metrics import Ints

COVERAGES = tuple(percent / 100 for percent in range(5, 101, 5))


def losses(p: Floats, truth: Floats, multiclass: bool) -> tuple[Floats, Floats]:
    """(Brier score, the one that p itself expects) of each stay, [n]; `truth` [n, K] is 0/1, one-hot for classes."""
    happened = (p - truth) ** 2
    if multiclass:
        return happened.sum(axis=1), 1.0 - (p**2).sum(axis=1)
    return happened.mean(axis=1), (p * (1.0 - p)).mean(axis=1)


def kept(
    expected: Floats, quantities: Floats, rows: Ints, draws: SubjectDraws, coverages: Sequence[float] = COVERAGES
) -> Floats:
    """Sums of `quantities` [n, Q] over the share `coverages` [C] of the stays that expect the least: [Q, C, 1 + D].

    Stays that expect the same share what is left of the coverage: an order among them would be chance.
    """
    levels, of = np.unique(expected, return_inverse=True)
    order = np.argsort(of, kind="stable")
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    found = []
    for block in draws.blocks:
        weights = block[rows[order]]
        # [1 + Q, levels + 1, d]: the sums so far, of stays and of each quantity
        so_far = np.zeros((1 + quantities.shape[1], len(levels) + 1, block.shape[1]))
        for i, each in enumerate((None, *quantities[order].T)):
            column = weights if each is None else weights * each[:, None]
            if len(levels):
                np.cumsum(np.add.reduceat(column, starts, axis=0), axis=0, out=so_far[i, 1:])
        wanted = np.array(coverages)[:, None] * so_far[0, -1]
        sums = np.empty((quantities.shape[1], len(coverages), block.shape[1]))
        for draw in range(block.shape[1]):
            for i in range(len(sums)):
                sums[i, :, draw] = np.interp(wanted[:, draw], so_far[0, :, draw], so_far[1 + i, :, draw])
        found.append(sums)
    return np.concatenate(found, axis=2)
