"""The studentised gap of AUROC between groups, under shuffles of who is in which.

A shuffled gap is as wide as chance makes it only where groups are alike: where scores spread more in one, or it has
more positives, shuffling mixes what differs. Divided by its own standard error, in the sample and in every shuffle, the
gap needs no such likeness (Janssen 1997, Statistics & Probability Letters 36; Chung & Romano 2013, Annals of
Statistics 41).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from pipeline.estimation.bootstrap import Floats, average_labels, quotient
from pipeline.estimation.metrics import Bools, Ints, running_sums


def placements(p: Floats, truth: Bools, members: Floats) -> tuple[Floats, Floats]:
    """(AUROC [C], share [n, C]) of a group, for C ways to draw it: `members` [n, C] are 1 for who is in it, else 0.

    A stay's share is what it adds to the AUROC's error: the part of the other class that it is ranked rightly against,
    less the AUROC, by its class's count. The sum of squares of subjects' shares is the AUROC's variance (DeLong et al.
    1988; of several stays a subject: Obuchowski 1997). AUROC is NaN, shares are 0 without a stay of either class.
    """
    counts = {one: members[truth == one].sum(axis=0) for one in (True, False)}
    both = counts[True] * counts[False] > 0
    share, area = np.empty(members.shape), np.zeros(members.shape[1])
    for own in (True, False):
        mine, theirs = truth == own, truth != own
        order = np.argsort(p[theirs], kind="stable")
        passed = np.zeros((len(order) + 1, members.shape[1]))
        passed[1:] = running_sums(members[theirs][order])
        rivals = p[theirs][order]
        first, last = (np.searchsorted(rivals, p[mine], side) for side in ("left", "right"))
        won = passed[last]
        if (first != last).any():  # equal scores count half
            won = (won + passed[first]) / 2
        if not own:
            np.subtract(counts[True], won, out=won)
        won *= members[mine]
        won /= np.maximum(counts[not own], 1.0)
        area = quotient(won.sum(axis=0), counts[own])
        won -= members[mine] * np.nan_to_num(area)
        # n − 1, as in a variance: of one positive there is no telling, and its share is 0
        won *= both / np.sqrt(np.maximum(counts[own] * (counts[own] - 1), 1.0))
        share[mine] = won
    return np.where(both, area, np.nan), share


class GroupArea:
    """AUROC of one group and its error, gathered run by run: runs are weighted by their pairs, as in gaps.GroupSums."""

    def __init__(self, columns: int) -> None:
        self._top, self._pairs = np.zeros(columns), np.zeros(columns)
        self._shares: dict[int, Floats] = {}

    def add(self, fold: int, subjects: Ints, p: Floats, truth: Bools, members: Floats) -> None:
        """A run: its fold, and of each stay the subject, probability, truth and, by column, whether it is in."""
        area, share = placements(p, truth, members)
        pairs = members[truth].sum(axis=0) * members[~truth].sum(axis=0)
        share *= pairs
        kinds, of = np.unique(subjects, return_inverse=True)
        if len(kinds) < len(of):
            share = csr_array((np.ones(len(of)), (of, np.arange(len(of)))), shape=(len(kinds), len(of))) @ share
        else:
            share = share[np.argsort(of)]
        self._top += np.where(pairs > 0, np.nan_to_num(area) * pairs, 0.0)
        self._pairs += pairs
        self._shares[fold] = self._shares.get(fold, 0.0) + share

    def values(self) -> tuple[Floats, Floats]:
        """(AUROC [C], each subject's share of its error, those of all folds one after the other, [S, C])."""
        shares = np.concatenate(list(self._shares.values())) if self._shares else np.zeros((0, len(self._pairs)))
        return quotient(self._top, self._pairs), quotient(shares, np.broadcast_to(self._pairs, shares.shape))


def mean_area(labels: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """The macro mean over labels of one group's areas and shares, in which a subject's shares add up.

    Labels that the sample cannot tell are left out; a shuffle that cannot tell another averages the rest.
    """
    told = [label for label in labels if not np.isnan(label[0][0])]
    if not told:
        return labels[0]
    known = np.array([~np.isnan(area) for area, _ in told])
    shares = sum(np.nan_to_num(share) for _, share in told)
    return average_labels(np.array([area for area, _ in told])), np.asarray(shares / np.maximum(known.sum(axis=0), 1))


def studentised_gap(groups: Sequence[tuple[Floats, Floats]]) -> Floats:
    """[C]: the largest difference of two of G groups' AUROCs over its standard error; NaN where one is not estimable.

    `groups` are those of `GroupArea.values`; of a macro mean the means over labels of both. Where neither of two
    groups has an error (all ranked rightly), a difference is infinite.
    """
    areas = np.array([area for area, _ in groups])
    variances = np.array([(share**2).sum(axis=0) for _, share in groups])
    one, other = np.triu_indices(len(groups), 1)
    apart = np.abs(areas[one] - areas[other])
    error = np.sqrt(variances[one] + variances[other])
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(apart > 1e-12, apart / error, 0.0)
    found = scaled.max(axis=0)
    return np.asarray(np.where(np.isnan(areas).any(axis=0), np.nan, found))
