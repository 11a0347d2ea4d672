"""An estimate over runs with all that it varies by: patients, seeds, splits; its interval, its p.

A run is a fold and a seed. Its draws (pipeline.estimation.bootstrap) tell how it varies with the patients tested; the
luck of training shows in how runs differ, and is told from the patients' by the draws: all runs of a fold see the same
patients in a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaincinv, logit, ndtr, stdtr, stdtrit

from pipeline.estimation.bootstrap import MIN_ESTIMABLE, NEAR, Floats, average_labels, average_runs

Bounds = tuple[float | None, float | None]
FARTHEST = 37.0  # standard deviations: a tail of 6e-300; a p is not told below


@dataclass(frozen=True)
class Square:
    """A mean square: of runs about their fold's mean, or of folds about theirs.

    `freedom` are its degrees of freedom, `patients` what it is expected to be if training had no luck, `factor` how
    much of it the squared error of the mean over runs has, `apart` the deviations that it is made of.
    """

    square: float
    freedom: float
    patients: float
    factor: float
    apart: tuple[float, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A metric or a paired difference, the mean over runs, and what its squared standard error is made of.

    `patients` (those tested, in what all runs share), `seed` and `split` sum to `error`²; the latter two are 0 where
    nothing tells them: one seed a fold, one fold. `bias` is how much higher the metric lies in draws than in the
    sample. NaN: not estimable; then there is no interval and no p.
    """

    value: float
    patients: float
    seeds: Square | None = None
    folds: Square | None = None
    bias: float = 0.0
    runs: int = 1
    splits: int = 1

    @property
    def seed(self) -> float:
        """The seeds' part of the squared error."""
        return self.seeds.factor * self.seeds.square if self.seeds else 0.0

    @property
    def split(self) -> float:
        """The splits' part: of folds' mean square what neither patients nor seeds make of it, at least 0."""
        return self.folds.factor * max(0.0, self._excess) if self.folds else 0.0

    @property
    def _excess(self) -> float:
        return self.folds.square - self._explained if self.folds else 0.0

    @property
    def _explained(self) -> float:
        """What patients and seeds make of the folds' mean square."""
        assert self.folds
        lucky = self.seeds.square - self.seeds.patients if self.seeds else 0.0
        return self.folds.patients + lucky * self.splits / self.runs

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(self.patients + self.seed + self.split))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of `patients` + `seed`: Satterthwaite's (1946, Biometrics 2); patients count as known."""
        if not self.seeds or not self.seed:
            return float("inf")
        return max(1.0, (self.patients + self.seed) ** 2 * self.seeds.freedom / self.seed**2)

    def half_width(self, tail: float) -> float:
        """Of the interval that leaves `tail` (at most 1/2) on either side.

        Patients and seeds: Student's t of `freedom` times their standard error. Splits: a mean square less another is
        no multiple of chi-squared, however few degrees of freedom it is given, so that its own t, of the folds' F − 1,
        stands beside, and the squares of the two half widths add (Howe 1974, JASA 69; Zou & Donner 2008, Statistics in
        Medicine 27). Folds that show no more luck than patients explain may have it all the same: luck is told from the
        quantile √(2 tail) on, of what the folds' mean square would be without any, and is overlooked below. The root,
        since folds' mean and mean square are independent: the interval errs where luck is overlooked *and* the mean is
        off. Exact without a split, and where luck is large; in between see tests/simulations/folds.py.
        """
        own = -float(stdtrit(self.freedom, tail)) * np.sqrt(self.patients + self.seed)
        if not self.folds:
            return float(own)
        free, luck = self.folds.freedom, self.folds.square
        if self._explained > 0:
            quantile = float(gammaincinv(free / 2, np.sqrt(2 * tail))) * 2 / free  # of chi-squared over its freedom
            luck = max(0.0, luck - quantile * self._explained)
        return float(np.hypot(own, -float(stdtrit(free, tail)) * np.sqrt(self.folds.factor * luck)))

    @property
    def one_run(self) -> bool:
        """Whether luck of training is left out: one run cannot tell it."""
        return self.runs == 1

    @property
    def known(self) -> bool:
        """Whether there is a standard error."""
        return bool(np.isfinite(self.error) and self.error > 0)

    def interval(self, confidence: float, *, log_odds: bool = False, unbiased: bool = False) -> Bounds:
        """value ± `half_width`, or (None, None); `unbiased`: about the value less its bias.

        `log_odds`: symmetric there (the error by the delta method), so that bounds of a share stay in (0, 1).
        """
        if not self.known:
            return None, None
        centre = self.value - self.bias * unbiased
        wide = self.half_width((1 - confidence) / 2)
        if not log_odds:
            return centre - wide, centre + wide
        if not NEAR < centre < 1 - NEAR:
            return None, None
        low, high = expit(logit(centre) + np.array([-wide, wide]) / (centre * (1 - centre)))
        return float(low), float(high)

    def above(self, threshold: float = 0.0) -> float:
        """One-sided p of "the truth is at most `threshold`": the tail whose interval ends there."""
        return self._beyond(self.value - threshold) if self.known else np.nan

    def below(self, threshold: float = 0.0) -> float:
        """One-sided p of "the truth is at least `threshold`"."""
        return self._beyond(threshold - self.value) if self.known else np.nan

    def _beyond(self, distance: float) -> float:
        """The tail of which `distance` is half the width; of a negative one, what the other side leaves."""
        if distance < 0:
            return 1 - self._beyond(-distance)
        if not self.folds:
            return float(stdtr(self.freedom, -distance / self.error))

        def short(deviate: float) -> float:
            return self.half_width(float(ndtr(-deviate))) - distance

        return float(ndtr(-brentq(short, 0.0, FARTHEST))) if short(FARTHEST) > 0 else float(ndtr(-FARTHEST))

    @property
    def p(self) -> float | None:
        """Two-sided p of "the truth is 0"."""
        return min(1.0, 2 * min(self.above(), self.below())) if self.known else None


NOTHING = Estimate(float("nan"), float("nan"), bias=float("nan"), runs=0)


def estimate(values: Floats, folds: Sequence[int], test_share: float) -> Estimate:
    """From draws `values` [R, 1 + D] of R runs, the sample first; `folds` [R] are theirs. NOTHING without an estimate.

    Seeds: the mean square of runs about their fold's mean, F (S − 1) degrees of freedom. It holds what each run makes
    of these patients alone, which is therefore taken out of the patients' part (all runs share the draws of a fold), so
    that the sum is unbiased. Split: the mean square of folds' means, F − 1 degrees of freedom, less what patients and
    seeds explain of it; its factor is 1/F + `test_share`, the test stays per training stay, since training sets overlap
    (Nadeau & Bengio 2003, Machine Learning 52). Runs in which the metric is not estimable are left out; where it is not
    in more than a tenth of the draws, or does not vary, there is no error.
    """
    told = ~np.isnan(values[:, 0])
    values, of = values[told], np.asarray(folds)[told]
    if not len(values):
        return NOTHING
    runs, mean = len(values), average_runs(values)
    drawn = mean[1:][~np.isnan(mean[1:])]
    whole = values[:, ~np.isnan(values).any(axis=0)]  # draws in which all runs are estimable; the sample is one
    few = len(drawn) < MIN_ESTIMABLE * (len(mean) - 1) or whole.shape[1] < (len(mean) + 1) / 2
    if few or np.ptp(drawn) == 0:
        return replace(NOTHING, value=float(mean[0]), runs=runs)
    kinds, at = np.unique(of, return_inverse=True)
    each = np.array([whole[at == fold].mean(axis=0) for fold in range(len(kinds))])
    count, free = len(kinds), runs - len(kinds)
    patients, seeds, between = float(drawn.var(ddof=1)), None, None
    if free:
        apart = whole - each[at]
        own = float(apart[:, 1:].var(axis=1, ddof=1).sum() / free)
        patients = max(0.0, patients - own / runs)
        seeds = _square(apart[:, 0], free, own, 1 / runs)
    if count > 1:
        drift = each - each.mean(axis=0)  # folds of `dev` have their patients, and so their draws, in common
        shared = float((drift[:, 1:] - drift[:, 1:].mean(axis=1, keepdims=True)).var(axis=0, ddof=1).mean())
        between = _square(drift[:, 0], count - 1, shared, 1 / count + test_share)
    return Estimate(float(mean[0]), patients, seeds, between, float(drawn.mean() - mean[0]), runs, count)


def _square(apart: Floats, freedom: int, patients: float, factor: float) -> Square:
    return Square(float((apart**2).sum() / freedom), freedom, patients, factor, tuple(map(float, apart)))


def macro_runs(values: Floats) -> Floats:
    """Runs' means over labels, [L, R, 1 + D] -> [R, 1 + D], over labels that are estimable in any run.

    A label that a run cannot tell takes the mean of those that can: runs are compared over the same labels, and their
    mean is the labels' mean of means over runs.
    """
    means = np.array([average_runs(each) for each in values])  # [L, 1 + D]
    told = np.asarray(~np.isnan(values[:, :, 0]).all(axis=0))  # a run that can tell none of them has no mean
    filled = np.where(np.isnan(values) & told[:, None], means[:, None], values)
    return np.array([average_labels(filled[:, run]) for run in range(values.shape[1])])


def moderated(family: Sequence[Estimate]) -> list[Estimate]:
    """The estimates of a family (the same runs, many labels), whose few runs tell of luck together.

    Three folds have two degrees of freedom: a single mean square of them is a tenth of what it should be, or less, in
    one of ten. Relative to what patients make of it, each is therefore taken as at least the family's mean, and its
    degrees of freedom are its own and the family's (in the spirit of Smyth 2004, Statistical Applications in Genetics
    3, whose mean is weighted; to take the larger errs to the safe side where luck differs between members).
    """
    pooled = {name: _pooled([getattr(each, name) for each in family]) for name in ("seeds", "folds")}
    return [
        replace(each, seeds=pooled["seeds"][i], folds=pooled["folds"][i]) if each.known else each
        for i, each in enumerate(family)
    ]


def _pooled(squares: Sequence[Square | None]) -> list[Square | None]:
    """Degrees of freedom of a mean of K squares whose deviations correlate: d K / (1 + (K − 1) r²).

    r² is the mean over pairs, less the 1/d that independent ones show.
    """
    told = [each for each in squares if each is not None and each.patients > 0]
    if len(told) < 2:
        return list(squares)
    ratio = float(np.mean([each.square / each.patients for each in told]))
    alike = [each for each in told if len(each.apart) == len(told[0].apart) and each.square > 0]
    free, count = told[0].freedom, len(told)
    shown = 1.0
    if free > 1 and len(alike) > 1:
        unit = np.array([each.apart for each in alike])
        unit /= np.sqrt((unit**2).sum(axis=1, keepdims=True))
        square = (unit @ unit.T) ** 2
        mean = (square.sum() - len(alike)) / (len(alike) * (len(alike) - 1))
        shown = float(np.clip((mean - 1 / free) / (1 - 1 / free), 0.0, 1.0))
    more = free * count / (1 + (count - 1) * shown)
    return [
        each
        if each is None or each.patients <= 0
        else replace(each, square=max(each.square, ratio * each.patients), freedom=each.freedom + more)
        for each in squares
    ]
