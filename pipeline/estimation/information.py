"""What two scores tell of a binary label, in bits: each alone, either, both; and what of it is unique, shared, joint.

The partial information decomposition of Bertschinger et al. (2014, Entropy 16), as multimodal data are asked by Liang
et al. (arXiv 2302.12247), of scores cut into bins: Z is the bin. With U(t) the mean of (P(label | Z) − t)₊, what Z
tells is the integral over all thresholds t of what looking at Z is worth there,

    I(label; Z) = ∫ [U(t) − (P(label) − t)₊] / (t (1 − t)) dt

(Österreicher & Vajda 1993, IEEE Transactions on Information Theory 39), and of two Z one tells all that the other does
where its U is nowhere lower (Blackwell). For a binary label the least that tells all that either does has the larger U
at every threshold. Its information is therefore Bertschinger's *union*, the least of all joint distributions with the
same two margins: any of them tells at least as much, and the two Z that are drawn from the least one, independently
given it, tell no more. No optimisation is needed; the tests do it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import logit, xlogy

from pipeline.estimation.bootstrap import Floats, SubjectDraws, quotient
from pipeline.estimation.metrics import Bools, Ints

CERTAIN = 1e-12  # a posterior is kept this far from 0 and 1, whose log-odds are infinite


class Counts(NamedTuple):
    """Stays and positives among them by bin and draw, each [K, 1 + D]."""

    stays: Floats
    positives: Floats


def counted(bin_of: Ints, size: int, labels: Bools, rows: Ints, draws: SubjectDraws) -> Counts:
    """Weights of n stays summed by bin, of `size` ones; `rows` are their subjects' in the weights of `draws`."""
    shape = (size, len(draws.subjects))
    every = csr_array((np.ones(len(rows)), (bin_of, rows)), shape=shape)
    of_positives = csr_array((labels.astype(np.float64), (bin_of, rows)), shape=shape)
    return Counts(
        np.concatenate([every @ block for block in draws.blocks], axis=1),
        np.concatenate([of_positives @ block for block in draws.blocks], axis=1),
    )


def _entropy(share: Floats) -> Floats:
    return np.asarray(-(xlogy(share, share) + xlogy(1 - share, 1 - share)) / np.log(2))


def entropy(of: Counts) -> Floats:
    """Of the label, [1 + D] bits; NaN where one class alone was drawn."""
    share = quotient(of.positives.sum(axis=0), of.stays.sum(axis=0))
    return np.where((share > 0) & (share < 1), _entropy(share), np.nan)


def information(of: Counts) -> Floats:
    """Mutual information of label and bin, [1 + D] bits; NaN as `entropy`."""
    mass, posterior = _distribution(of)
    return np.asarray(entropy(of) - (mass * _entropy(posterior)).sum(axis=0))


def _distribution(of: Counts) -> tuple[Floats, Floats]:
    """Masses of the bins, and the label's share in each (0 in an empty one)."""
    return quotient(of.stays, np.broadcast_to(of.stays.sum(axis=0), of.stays.shape)), np.nan_to_num(
        quotient(of.positives, of.stays)
    )


def unique(first: Counts, second: Counts) -> Floats:
    """What the first tells and the second does not, [1 + D] bits: ∫ (U₁ − U₂)₊ / (t (1 − t)) dt, exactly.

    U are linear between neighbouring posteriors, and so are what is integrated and its positive part, cut where it
    crosses 0.
    """
    distributions = [_distribution(of) for of in (first, second)]
    at = np.sort(np.concatenate([posterior for _, posterior in distributions]), axis=0)
    at = np.clip(at, CERTAIN, 1 - CERTAIN)
    worth = [(mass * np.maximum(posterior - at[:, None], 0.0)).sum(axis=1) for mass, posterior in distributions]
    lead = worth[0] - worth[1]
    start, end, here, there = at[:-1], at[1:], lead[:-1], lead[1:]
    crossing = start + (end - start) * np.nan_to_num(quotient(np.abs(here), np.abs(here) + np.abs(there)))
    start, end = np.where(here < 0, crossing, start), np.where(there < 0, crossing, end)
    here, there = np.maximum(here, 0.0), np.maximum(there, 0.0)
    slope = np.nan_to_num(quotient(there - here, end - start))
    found = (here - slope * start) * (logit(end) - logit(start)) - slope * (np.log1p(-end) - np.log1p(-start))
    both_out = (lead[:-1] <= 0) & (lead[1:] <= 0)
    return np.asarray(np.where(both_out, 0.0, found).sum(axis=0) / np.log(2)) + 0 * entropy(first)


def union(first: Counts, second: Counts) -> Floats:
    """The least that whoever is told both could be told, [1 + D] bits: I(second) + what is unique to the first."""
    return information(second) + unique(first, second)
