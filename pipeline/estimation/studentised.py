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
from pipeline.estimation.metrics import Bools, Ints


def placements(p: Floats, truth: Bools, members: Floats) -> tuple[Floats, Floats]:
    """(AUROC [C], share [n, C]) of a group, for C ways to draw it: `members` [n, C] are 1 for who is in it, else 0.

    A stay's share is what it adds to the AUROC's error: the part of the other class that it is ranked rightly against,
    less the AUROC, by its class's count. The sum of squares of subjects' shares is the AUROC's variance (DeLong et al.
    1988; of several stays a subject: Obuchowski 1997). AUROC is NaN, shares are 0 without a stay of either class.
    """
    order = np.argsort(p, kind="stable")
    ordered = p[order]
    first, last = (np.searchsorted(ordered, p, side) for side in ("left", "right"))  # of those with an equal score
    share, area = np.zeros(members.shape), np.zeros(members.shape[1])
    counts = [members[truth == one].sum(axis=0) for one in (True, False)]
    both = counts[0] * counts[1] > 0
    for own, (count, other) in zip((True, False), (counts, counts[::-1]), strict=True):
        rivals = np.where((truth != own)[:, None], members, 0.0)[order]
        below = np.concatenate([np.zeros((1, members.shape[1])), np.cumsum(rivals, axis=0)])
        mine = truth == own
        beaten = (below[first[mine]] + below[last[mine]]) / 2
        won = quotient(beaten if own else other - beaten, np.broadcast_to(other, beaten.shape))
        won = np.where(both, won, 0.0) * members[mine]
        area = quotient(won.sum(axis=0), count)
        # n − 1, as in a variance: of one positive there is no telling, and its share is 0
        share[mine] = (won - members[mine] * area) / np.sqrt(np.maximum(count * (count - 1), 1.0))
    return np.where(both, area, np.nan), np.where(both, np.nan_to_num(share), 0.0)


class GroupArea:
    """AUROC of one group and its error, gathered run by run: runs are weighted by their pairs, as in gaps.GroupSums."""

    def __init__(self, columns: int) -> None:
        self._top, self._pairs = np.zeros(columns), np.zeros(columns)
        self._shares: dict[int, Floats] = {}

    def add(self, fold: int, subjects: Ints, p: Floats, truth: Bools, members: Floats) -> None:
        """A run: its fold, and of each stay the subject, probability, truth and, by column, whether it is in."""
        area, share = placements(p, truth, members)
        pairs = members[truth].sum(axis=0) * members[~truth].sum(axis=0)
        of = np.unique(subjects, return_inverse=True)[1]
        by_subject = csr_array((np.ones(len(of)), (of, np.arange(len(of)))), shape=(of.max(initial=-1) + 1, len(of)))
        self._top += np.where(pairs > 0, np.nan_to_num(area) * pairs, 0.0)
        self._pairs += pairs
        self._shares[fold] = self._shares.get(fold, 0.0) + by_subject @ (share * pairs)

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
