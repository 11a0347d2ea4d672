"""Claims about many differences at once: step-down tests whose chance of any false claim is bounded.

Differences are correlated, since the patients drawn are the same for all. How large the largest of many is by chance
alone is therefore read off normal deviates that are correlated as the draws are (Romano & Wolf 2005, JASA 100).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.variance import Estimate

DEVIATES = 20_000  # of each member: the standard error of a tail of 2.5 % is 0.1 %
STREAM = 4  # of random numbers, beside those of bootstrap and randomisation


class Member(NamedTuple):
    """A difference: its estimate, and the draws of its mean over runs, [1 + D]."""

    estimate: Estimate
    draws: Floats


class Bound(NamedTuple):
    """Of one member: p adjusted for the family, and the one-sided bound that its step allows."""

    p: float
    bound: float


def deviates(draws: Floats, shared: Floats, seed: int) -> Floats:
    """Standard normals [DEVIATES, K] with the correlations of `draws` [K, 1 + D]; NaN counts as no deviation.

    `shared` [K] is the share of each member's squared error that its draws tell; the rest, luck of training, is taken
    as independent between members, which makes the largest larger (Slepian 1962).
    """
    off = np.nan_to_num(draws[:, 1:] - np.nanmean(draws[:, 1:], axis=1, keepdims=True))
    unit = off / np.sqrt((off**2).sum(axis=1, keepdims=True))
    correlation = (unit @ unit.T) * np.sqrt(np.outer(shared, shared))
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(np.random.default_rng([seed, STREAM]).standard_normal((DEVIATES, len(draws))) @ root.T)


def step_down(p: Floats, tails: Floats, level: float) -> tuple[Floats, Floats]:
    """(adjusted p, the tail at which each member is tested), [K] each, of one-sided p [K].

    `tails` [N, K] are what p would be if nothing were there. The smallest p is held against the smallest of all tails,
    the next one against the smallest of those that are left, and so on (Westfall & Young 1993, algorithm 2.8: max-t
    where each member has its own degrees of freedom). Where a step fails at `level`, later ones keep its tail.
    """
    order = np.argsort(p, kind="stable")
    smallest = np.minimum.accumulate(tails[:, order][:, ::-1], axis=1)[:, ::-1]  # of a member and all after it
    steps = (1 + (smallest <= p[order]).sum(axis=0)) / (1 + len(tails))
    adjusted, at = np.empty(len(p)), np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(steps)
    level_tail = np.quantile(smallest, level, axis=0)
    failed = np.flatnonzero(adjusted[order] > level)
    if len(failed):
        level_tail[failed[0] :] = level_tail[failed[0]]
    at[order] = level_tail
    return adjusted, at


def bounds(
    members: Sequence[Member], questions: Sequence[Sequence[float]], level: float, seed: int
) -> list[list[Bound]]:
    """Of each question, a threshold a member: p of "at most the threshold" and lower bounds, adjusted for the family.

    At most `level` is the chance that any member that does not lie above its threshold is said to; a lower bound lies
    above the threshold where p is below `level`. NaN: not estimable. For upper bounds turn the members (`turned`).
    """
    told = [i for i, member in enumerate(members) if member.estimate.known]
    found = [[Bound(float("nan"), float("nan"))] * len(members) for _ in questions]
    if not told:
        return found
    estimates = [members[i].estimate for i in told]
    shared = np.array([each.patients / each.error**2 for each in estimates])
    tails = ndtr(-deviates(np.array([members[i].draws for i in told]), shared, seed))
    for thresholds, of in zip(questions, found, strict=True):
        alone = np.array([each.above(thresholds[i]) for i, each in zip(told, estimates, strict=True)])
        p, at = step_down(alone, tails, level)
        for i, each, adjusted, tail in zip(told, estimates, p, at, strict=True):
            of[i] = Bound(float(adjusted), each.value - each.half_width(tail))
    return found


def turned(member: Member) -> Member:
    """The difference the other way round."""
    same = member.estimate
    return Member(replace(same, value=-same.value, bias=-same.bias), -member.draws)
