"""Metrics by group, for the sample and all bootstrap draws at once; the gap between groups, its interval and its null.

A group's metric is made of sums within runs: concordant pairs over pairs, alerts among positives over positives. Runs
are weighted by these denominators, so that a fold in which a small group has two deaths counts
as two deaths. Pairs never cross folds.

The gap, max − min over groups, is biased upwards, and its draws more so: at equal AUROCs all of them lie above the
truth, and a percentile interval covers it in 0 % of samples. Its interval is read off simultaneous bounds of all
pairwise differences instead; the null distribution comes from shuffled group labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.estimation.bootstrap import MIN_ESTIMABLE, Floats, SubjectDraws, quotient
from pipeline.estimation.metrics import Bools, Ints, rank_metrics, weighted_sums

Key = tuple[str, str]  # a metric, and the rule of its threshold ("" where it has none)

VALIDATION, ALERT_RATE = "validation", "alert_rate"
RULES = (VALIDATION, ALERT_RATE)
FREE = ("auroc", "auprc_adjusted", "calibration")
AT_THRESHOLD = ("fnr", "tpr", "fpr", "selection_rate")
KEYS: tuple[Key, ...] = (*((name, "") for name in FREE), *((name, rule) for rule in RULES for name in AT_THRESHOLD))
ODDS = "equalised_odds"


@dataclass(frozen=True)
class Scores:
    """One label of one run, n stays: probabilities, truth, and per rule the share of the stay that is alerted, [n].

    An alert is 0 or 1, or in between where stays with equal scores share the alerts that are left.
    """

    p: Floats
    truth: Bools
    alerts: Mapping[str, Floats]


def above(p: Floats, threshold: float | None) -> Floats:
    """Alerts at `p >= threshold`; NaN, not estimable, where validation had no positive to choose one from."""
    return np.full(len(p), np.nan) if threshold is None else (p >= threshold).astype(np.float64)


def at_rate(p: Floats, rate: float) -> Floats:
    """Alerts for the share `rate` of the stays, highest scores first; those of an equal score share what is left."""
    wanted = min(1.0, rate) * len(p)
    levels, of, count = np.unique(-p, return_inverse=True, return_counts=True)
    before = np.cumsum(count) - count
    share = np.clip((wanted - before) / count, 0.0, 1.0)
    return np.asarray(share[of.reshape(-1)]) if len(levels) else np.zeros(0)


class GroupSums:
    """Metrics of G groups, [G, 1 + D], gathered run by run."""

    def __init__(self, groups: int, columns: int) -> None:
        self._top = {key: np.zeros((groups, columns)) for key in KEYS}
        self._bottom = {key: np.zeros((groups, columns)) for key in KEYS}

    def add(
        self,
        scores: Scores,
        codes: Ints,
        rows: Ints,
        draws: SubjectDraws,
        prevalence: float,
    ) -> None:
        """A run's stays: `codes` their groups (−1: none), `rows` their subjects in the weights of `draws`.

        `prevalence` is the one to which average precision is adjusted.
        """
        groups = len(self._top["auroc", ""])
        member = codes[:, None] == np.arange(groups)
        columns = [scores.truth, ~scores.truth, scores.p]
        for rule in RULES:
            columns += [scores.alerts[rule] * scores.truth, scores.alerts[rule] * ~scores.truth]
        quantities = np.stack(columns, axis=1).astype(np.float64)  # [n, Q]
        spread = np.where(member[:, None, :], quantities[:, :, None], 0.0).reshape(len(codes), -1)
        sums = weighted_sums(spread, rows, draws).reshape(quantities.shape[1], groups, -1)
        positives, negatives, expected = sums[:3]
        stays = positives + negatives
        self._gather(("calibration", ""), quotient(expected - positives, stays), stays)
        for rule, true, false in zip(RULES, sums[3::2], sums[4::2], strict=True):
            rate = quotient(true, positives)
            self._gather(("tpr", rule), rate, positives)
            self._gather(("fnr", rule), 1.0 - rate, positives)
            self._gather(("fpr", rule), quotient(false, negatives), negatives)
            self._gather(("selection_rate", rule), quotient(true + false, stays), stays)
        ranked = [
            rank_metrics(scores.p[of], scores.truth[of], rows[of], draws, prevalence)
            for of in (member[:, group] for group in range(groups))
        ]
        self._gather(("auroc", ""), np.array([each[0] for each in ranked]), positives * negatives)
        self._gather(("auprc_adjusted", ""), np.array([each[1] for each in ranked]), positives)

    def _gather(self, key: Key, values: Floats, weights: Floats) -> None:
        known = ~np.isnan(values)
        self._top[key] += np.where(known, values, 0.0) * np.where(known, weights, 0.0)
        self._bottom[key] += np.where(known, weights, 0.0)

    def values(self) -> dict[Key, Floats]:
        """The metrics, NaN where not estimable."""
        return {key: quotient(self._top[key], self._bottom[key]) for key in KEYS}


def gap(values: Floats) -> Floats:
    """max − min over groups, [G, C] -> [C]; NaN where a group is not estimable, or is the only one."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    return np.asarray(values.max(axis=0) - values.min(axis=0))


def gaps(values: Mapping[Key, Floats]) -> dict[Key, Floats]:
    """The gap of every metric, and equalised odds: the larger of the gaps of TPR and FPR (as in fairlearn)."""
    found = {key: gap(each) for key, each in values.items()}
    for rule in RULES:
        found[ODDS, rule] = np.maximum(found["tpr", rule], found["fpr", rule])
    return found


def behind(key: Key) -> tuple[Key, ...]:
    """The metrics of which a gap is made: its own, or TPR and FPR."""
    return (("tpr", key[1]), ("fpr", key[1])) if key[0] == ODDS else (key,)


def _contrasts(values: Sequence[Floats]) -> Floats:
    """Differences between all pairs of groups, of one or more metrics [G, 1 + D], to both sides: [contrasts, 1 + D]."""
    one, other = np.triu_indices(len(values[0]), 1)
    differences = np.concatenate([each[one] - each[other] for each in values])
    return np.concatenate([differences, -differences])


def _bands(contrasts: Sequence[Floats], confidence: float) -> list[tuple[Floats, Floats]] | None:
    """(lower, upper) bounds of several sets of contrasts that hold all at once with probability `confidence`.

    The width is the quantile of the largest studentised deviation in the bootstrap (Efron & Tibshirani 1993, ch. 12;
    Romano & Wolf, Econometrica 2005). None where one is not estimable, or is in less than nine tenths of the draws, or
    does not vary.
    """
    together = np.concatenate(contrasts)
    if not len(together) or np.isnan(together[:, 0]).any():
        return None
    estimate, drawn = together[:, 0], together[:, 1:][:, ~np.isnan(together[:, 1:]).any(axis=0)]
    if drawn.shape[1] < max(2, MIN_ESTIMABLE * (together.shape[1] - 1)):
        return None
    deviation = drawn - estimate[:, None]
    error = deviation.std(axis=1)
    if (error < 1e-12).any():
        return None
    band = np.quantile(np.abs(deviation / error[:, None]).max(axis=0), confidence) * error
    ends = np.cumsum([len(each) for each in contrasts])[:-1]
    return list(zip(np.split(estimate - band, ends), np.split(estimate + band, ends), strict=True))


def gap_interval(values: Sequence[Floats], confidence: float) -> tuple[float | None, float | None]:
    """Interval of the gap of one or (equalised odds) two metrics [G, 1 + D], or (None, None).

    Bounds that hold for all pairwise differences at once hold for the largest: from the largest lower to the largest
    upper one. It errs to the safe side with many groups; with two it is the interval of their difference, folded at 0.
    """
    bands = _bands([_contrasts(values)], confidence)
    if bands is None:
        return None, None
    low, high = bands[0]
    return max(0.0, float(low.max())), min(1.0, float(high.max()))


def change_interval(
    values: Sequence[Floats], reference: Sequence[Floats], confidence: float
) -> tuple[float | None, float | None]:
    """Interval of the gap in `values` less that in `reference`, on the same draws, or (None, None).

    Percentiles of the difference miss it where one gap is near 0 and the other is not, since only the former is biased.
    Instead: where (i, j) is the pair that makes a gap, the other model's gap is at least its own difference between i
    and j. So the change is at most the largest paired difference of differences over the pairs that may make the gap
    in `values`, and at least the smallest over those that may make the one in `reference`; all within joint bands.
    """
    mine, theirs = _contrasts(values), _contrasts(reference)
    bands = _bands([mine, theirs, mine - theirs], confidence)
    if bands is None:
        return None, None
    (low, high), (low_theirs, high_theirs), (low_change, high_change) = bands
    highest = float(high_change[high >= max(0.0, low.max())].max())
    lowest = float(low_change[high_theirs >= max(0.0, low_theirs.max())].min())
    return (
        max(lowest, max(0.0, float(low.max())) - float(high_theirs.max())),
        min(highest, float(high.max()) - max(0.0, float(low_theirs.max()))),
    )


def exchanges(subjects: Ints, outcome: Ints, count: int, random: np.random.Generator) -> Ints:
    """Of each of n stays, the stay whose groups it takes in `count` shuffles, [n, 1 + count]; column 0: its own.

    Subjects exchange the groups of all their stays with subjects who have as many stays of the same outcomes, so that
    each group keeps its positives and negatives: under the shuffle, scores do not depend on the group given the
    outcome, and that is all that changes.
    """
    found = np.repeat(np.arange(len(subjects))[:, None], 1 + count, axis=1)  # its own, where nobody is alike
    order = np.lexsort((np.arange(len(subjects)), outcome, subjects))
    alike: dict[tuple[int, ...], list[Ints]] = {}
    for stays in np.split(order, np.flatnonzero(np.diff(subjects[order])) + 1):
        alike.setdefault(tuple(outcome[stays].tolist()), []).append(stays)
    for each in alike.values():
        stays = np.array(each, dtype=np.int64)  # [subjects alike, stays of each]
        taken = random.permuted(np.tile(np.arange(len(stays)), (count, 1)), axis=1)
        found[stays, 1:] = np.moveaxis(stays[taken], 0, -1)
    return found


def memberships(shuffles: Ints, group: int) -> SubjectDraws:
    """A group under shuffles of everybody's group [n, C], as weights 0 and 1 of stays: metrics as in the bootstrap."""
    return SubjectDraws(np.arange(len(shuffles)), ((shuffles == group).astype(np.float64),))


@dataclass(frozen=True)
class Null:
    """A gap against its null distribution: mean, what the gap has more, and the share of shuffles at least as far."""

    mean: float
    excess: float
    p: float


def against_null(gap_and_shuffles: Floats, statistic: Floats | None = None) -> Null | None:
    """From the gap and those of the shuffles, [1 + P]; None where it, or a tenth of these, is not estimable.

    p is that of `statistic` [1 + P], the studentised gap, where there is one.
    """
    observed, null = gap_and_shuffles[0], gap_and_shuffles[1:]
    known = ~np.isnan(null)
    if np.isnan(observed) or not known.any() or known.sum() < MIN_ESTIMABLE * len(null):
        return None
    tested = gap_and_shuffles if statistic is None else statistic
    wider = int((tested[1:][known] >= tested[0] - 1e-12).sum())
    mean = float(null[known].mean())
    return Null(mean, float(observed) - mean, (1 + wider) / (1 + int(known.sum())))
