"""An estimate over runs with all that it varies by: patients, seeds, splits; its interval, its p.

A run is a fold and a seed. Its draws (pipeline.estimation.bootstrap) tell how it varies with the patients tested; the
luck of training shows in how runs differ, and is told from the patients' by the draws: all runs of a fold see the same
patients in a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t as student

from pipeline.estimation.bootstrap import MIN_ESTIMABLE, NEAR, Floats, average_labels, average_runs

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Estimate:
    """A metric or a paired difference, the mean over runs, and what its squared standard error is made of.

    `patients` (those tested, in what all runs share), `seed` and `split` sum to `error`²; the latter two are 0 where
    nothing tells them: one seed a fold, one fold. `freedom` are the degrees of freedom of `error`, `bias` how much
    higher the metric lies in draws than in the sample. NaN: not estimable; then there is no interval and no p.
    """

    value: float
    patients: float
    seed: float
    split: float
    freedom: float
    bias: float
    runs: int

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(self.patients + self.seed + self.split))

    @property
    def one_run(self) -> bool:
        """Whether luck of training is left out: one run cannot tell it."""
        return self.runs == 1

    @property
    def known(self) -> bool:
        """Whether there is a standard error."""
        return bool(np.isfinite(self.error) and self.error > 0)

    def interval(self, confidence: float, *, log_odds: bool = False, unbiased: bool = False) -> Bounds:
        """value ± t · error, or (None, None); `unbiased`: about the value less its bias.

        `log_odds`: symmetric there (the error by the delta method), so that bounds of a share stay in (0, 1).
        """
        if not self.known:
            return None, None
        centre = self.value - self.bias * unbiased
        wide = self.error * float(student.ppf((1 + confidence) / 2, self.freedom))
        if not log_odds:
            return centre - wide, centre + wide
        if not NEAR < centre < 1 - NEAR:
            return None, None
        low, high = expit(logit(centre) + np.array([-wide, wide]) / (centre * (1 - centre)))
        return float(low), float(high)

    def above(self, threshold: float = 0.0) -> float:
        """One-sided p of "the truth is at most `threshold`"."""
        return float(student.sf((self.value - threshold) / self.error, self.freedom)) if self.known else np.nan

    def below(self, threshold: float = 0.0) -> float:
        """One-sided p of "the truth is at least `threshold`"."""
        return float(student.cdf((self.value - threshold) / self.error, self.freedom)) if self.known else np.nan

    @property
    def p(self) -> float | None:
        """Two-sided p of "the truth is 0"."""
        return min(1.0, 2 * min(self.above(), self.below())) if self.known else None


_NAN = float("nan")
NOTHING = Estimate(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, 0)


class _Part(NamedTuple):
    """A share of the squared error: a factor times a mean square with its degrees of freedom (inf: known)."""

    square: float
    factor: float
    freedom: float


def estimate(values: Floats, folds: Sequence[int], test_share: float, positives: float | None = None) -> Estimate:
    """From draws `values` [R, 1 + D] of R runs, the sample first; `folds` [R] are theirs. NOTHING without an estimate.

    Seeds: the mean square of runs about their fold's mean, F (S − 1) degrees of freedom. It holds what each run makes
    of these patients alone, which is therefore taken out of the patients' part (all runs share the draws of a fold), so
    that the sum is unbiased. Split: the mean square of folds' means, F − 1 degrees of freedom, less what patients and
    seeds explain of it, at least 0; its factor is 1/F + `test_share`, the test stays per training stay, since training
    sets overlap (Nadeau & Bengio 2003, Machine Learning 52). Degrees of freedom are Satterthwaite's (1946, Biometrics
    2); `positives`, the subjects with the rarer outcome, give those of the patients' part. Runs in which the metric is
    not estimable are left out; where it is not in more than a tenth of the draws, or does not vary, there is no error.
    """
    told = ~np.isnan(values[:, 0])
    values, of = values[told], np.asarray(folds)[told]
    if not len(values):
        return NOTHING
    runs, mean = len(values), average_runs(values)
    drawn = mean[1:][~np.isnan(mean[1:])]
    if len(drawn) < MIN_ESTIMABLE * (len(mean) - 1) or np.ptp(drawn) == 0:
        return replace(NOTHING, value=float(mean[0]), runs=runs)
    each = np.array([average_runs(values[of == fold]) for fold in np.unique(of)])
    count = len(each)
    apart = values - each[np.searchsorted(np.unique(of), of)]
    free = runs - count  # degrees of freedom of the seeds
    seeds = float((apart[:, 0] ** 2).sum() / free) if free else 0.0
    own = float(np.nanvar(apart[:, 1:], axis=1, ddof=1).sum() / free) if free else 0.0
    patients = max(0.0, float(drawn.var(ddof=1)) - own / runs)
    parts = [_Part(seeds, 1 / runs, free)] if free else []
    split = 0.0
    if count > 1:
        between = float(each[:, 0].var(ddof=1))
        shared = float(np.nanvar(each[:, 1:], axis=1, ddof=1).mean()) - own * count / runs
        split = max(0.0, between - shared - seeds * count / runs) * (1 / count + test_share)
        if split:
            factor = 1 / count + test_share
            parts = [_Part(between, factor, count - 1)]
            if free:
                parts.append(_Part(seeds, 1 / runs - factor * count / runs, free))
    if positives is not None:
        parts.append(_Part(patients, 1.0, max(1.0, positives - count)))
    total = patients + seeds / runs + split
    spread = sum((part.factor * part.square) ** 2 / part.freedom for part in parts)
    freedom = max(1.0, total**2 / spread) if spread else float("inf")
    return Estimate(float(mean[0]), patients, seeds / runs, split, freedom, float(drawn.mean() - mean[0]), runs)


def macro_runs(values: Floats) -> Floats:
    """Runs' means over labels, [L, R, 1 + D] -> [R, 1 + D], over labels that are estimable in any run.

    A label that a run cannot tell takes the mean of those that can: runs are compared over the same labels, and their
    mean is the labels' mean of means over runs.
    """
    means = np.array([average_runs(each) for each in values])  # [L, 1 + D]
    filled = np.where(np.isnan(values), means[:, None], values)
    return np.array([average_labels(filled[:, run]) for run in range(values.shape[1])])
