"""How far probabilities can be taken at their word, and what one temperature, fitted on validation, makes of it.

Calibration error over bins of equal mass and its debiased form, slope and intercept of a logistic recalibration,
calibration in the large and the Brier score: of one run and label, for the sample and all draws at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit, ndtr

from pipeline.estimation.bootstrap import Floats, SubjectDraws, quotient
from pipeline.estimation.metrics import Bools, Ints, mass_bins, nothing, weighted_sums

MEASURES = ("ece", "ece_debiased", "brier", "slope", "intercept", "in_the_large")
LEAST = 1e-6  # probabilities are kept this far from 0 and 1: single precision knows no logit beyond
TEMPERATURES = (0.05, 20.0)
STEPS, CLOSE = 50, 1e-10  # Newton: at most; the step that ends it


def log_odds(p: Floats) -> Floats:
    """logit(p), of p kept LEAST from 0 and 1."""
    return np.asarray(logit(np.clip(p, LEAST, 1 - LEAST)))


def fit_temperature(p: Floats, truth: Floats, multiclass: bool) -> float | None:
    """The temperature that minimises the log loss of validation probabilities, within TEMPERATURES; None without any.

    `p` [n, K] are sigmoids against 0/1 labels `truth` [n, K], with one temperature for all K; or, `multiclass`, softmax
    rows against one-hot rows (Guo et al. 2017, ICML; Platt's method with the slope alone). None, too, where all labels
    are equal: the colder the better would be all that they say.
    """
    if not p.size or (truth == (truth[0] if multiclass else truth[0, 0])).all():
        return None
    scores = np.log(np.maximum(p, LEAST)) if multiclass else log_odds(p)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        if multiclass:
            return -float((truth * log_softmax(scaled, axis=1)).sum())
        return -float((truth * log_expit(scaled) + (1 - truth) * log_expit(-scaled)).sum())

    bounds = tuple(np.log(TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def temper(p: Floats, temperature: float, multiclass: bool) -> Floats:
    """Probabilities at a temperature; above 1 they move to the middle. Shape as `fit_temperature`'s p."""
    if multiclass:
        return np.asarray(np.exp(log_softmax(np.log(np.maximum(p, LEAST)) / temperature, axis=1)))
    return np.asarray(expit(log_odds(p) / temperature))


def calibration(
    variants: Mapping[str, Floats], truth: Bools, rows: Ints, draws: SubjectDraws, bins: int
) -> dict[tuple[str, str], Floats]:
    """{(variant, measure): [1 + D]}, the sample first, of several sets of scores [n] of the same stays.

    All share the bins of the first: a temperature is monotone.
    """
    if not len(truth):
        return {(name, measure): nothing(draws) for name in variants for measure in MEASURES}
    y = truth.astype(np.float64)
    of = mass_bins(next(iter(variants.values())), bins)
    inside = np.zeros((len(y), bins))
    inside[np.arange(len(y)), of] = 1.0
    fits = {name: (recalibrate(p, truth), in_the_large(p, truth)) for name, p in variants.items()}
    columns = [inside, inside * y[:, None]]
    for name, p in variants.items():
        columns += [inside * (p - y)[:, None], ((p - y) ** 2)[:, None], *_newton_columns(p, y, *fits[name])]
    sums = iter(np.split(weighted_sums(np.concatenate(columns, axis=1), rows, draws), _ends(columns)))
    count, positives = next(sums), next(sums)
    total = count.sum(axis=0)
    mixed = (positives.sum(axis=0) > 0) & (positives.sum(axis=0) < total)  # else a draw's own fit has no maximum
    rate = quotient(positives, count)
    noise = np.sqrt(np.nan_to_num(rate * (1 - rate)) / np.maximum(count, 1.0))  # of a bin's share of positives
    found = {}
    for name, _ in variants.items():
        gap = np.abs(np.nan_to_num(quotient(next(sums), count)))
        error = quotient((count * gap).sum(axis=0), total)
        expected = quotient((count * folded_normal(gap, noise)).sum(axis=0), total)
        found[name, "ece"] = error
        found[name, "ece_debiased"] = 2 * error - expected
        found[name, "brier"] = quotient(next(sums)[0], total)
        line, level = fits[name]
        steps = (*_one_step(line, next(sums), draws), _one_step_level(level, next(sums), draws))
        for measure, each in zip(("intercept", "slope", "in_the_large"), steps, strict=True):
            found[name, measure] = np.where(mixed, each, np.nan)
    return found


def folded_normal(mean: Floats, deviation: Floats) -> Floats:
    """E|X| of X normal with that mean and standard deviation (|mean| where that is 0).

    What |mean score − share of positives| of a bin is expected to be if the gap seen were the true one: its excess over
    the gap is the bias that debiasing takes away (Kumar, Liang & Ma 2019, NeurIPS, "Verified uncertainty calibration",
    section 5; their normal approximation, in closed form).
    """
    scaled = np.divide(mean, deviation, out=np.full(np.shape(mean), np.inf), where=deviation > 0)
    with np.errstate(invalid="ignore"):
        curved = deviation * np.sqrt(2 / np.pi) * np.exp(-(scaled**2) / 2) + mean * (1 - 2 * ndtr(-scaled))
    return np.where(deviation > 0, curved, np.abs(mean))


def recalibrate(p: Floats, truth: Bools) -> tuple[float, float] | None:
    """(intercept, slope) of logit P(y) = a + b logit p by maximum likelihood (Cox 1958); 0 and 1 are calibrated.

    None with one class, constant scores, or scores that separate the classes: the likelihood has no maximum.
    """
    x = log_odds(p)
    if truth.all() or not truth.any():
        return None
    if x[truth].min() >= x[~truth].max() or x[~truth].min() >= x[truth].max():
        return None
    y, a, b = truth.astype(np.float64), float(logit(truth.mean())), 0.0
    for _ in range(STEPS):
        mean = expit(a + b * x)
        step = _solve(*_slopes(y - mean, x), *_curvature(mean * (1 - mean), x))
        if not np.isfinite(step).all():
            return None
        a, b = a + float(step[0]), b + float(step[1])
        if np.abs(step).max() < CLOSE:
            return a, b
    return None


def in_the_large(p: Floats, truth: Bools) -> float | None:
    """The intercept at slope 1: above 0, events are more frequent than was said. None with one class alone."""
    if truth.all() or not truth.any():
        return None
    x, y, a = log_odds(p), truth.astype(np.float64), 0.0
    for _ in range(STEPS):
        mean = expit(a + x)
        step = float((y - mean).sum() / max((mean * (1 - mean)).sum(), 1e-300))
        a += float(np.clip(step, -2, 2))  # far from the root a full step may leap over it for good
        if abs(step) < CLOSE:
            return a
    return None


def pooled_slope(parts: Sequence[tuple[Floats, Bools, Ints, SubjectDraws]], columns: int) -> Floats:
    """The slope of one line through the stays of several runs, [1 + D] of D + 1 `columns`, the sample first.

    A part is (scores [n], truth [n], rows of their subjects, draws) of a run. For groups too small to have a line of
    each run: one through seven positives is far too steep. NaN where `recalibrate` gives none, and in draws of one
    class alone.
    """
    line = recalibrate(*(np.concatenate([part[i] for part in parts]) for i in range(2))) if parts else None
    if line is None:
        return np.full(columns, np.nan)
    total = np.zeros((7, columns))
    for p, truth, rows, draws in parts:
        y = truth.astype(np.float64)
        both = np.stack([y, 1.0 - y], axis=1)
        total += weighted_sums(np.concatenate([*_newton_columns(p, y, line, None)[:1], both], axis=1), rows, draws)
    return np.where((total[5:] > 0).all(axis=0), line[1] + _solve(*total[:5])[1], np.nan)


def _slopes(rest: Floats, x: Floats) -> tuple[Floats, Floats]:
    return rest.sum(), (rest * x).sum()


def _curvature(weight: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    return weight.sum(), (weight * x).sum(), (weight * x**2).sum()


def _solve(ga: Floats, gb: Floats, haa: Floats, hab: Floats, hbb: Floats) -> Floats:
    """The Newton step [2, …] of (a, b); NaN where the curvature is singular."""
    determinant = haa * hbb - hab**2
    floor = 1e-12 * haa * hbb
    return np.stack(
        [
            np.where(determinant > floor, each, np.nan) / np.where(determinant > floor, determinant, 1.0)
            for each in (hbb * ga - hab * gb, haa * gb - hab * ga)
        ]
    )


def _newton_columns(p: Floats, y: Floats, line: tuple[float, float] | None, level: float | None) -> list[Floats]:
    """What the steps from the sample's own fit sum over stays: [n, 5] for (a, b), [n, 2] for the level."""
    x = log_odds(p)
    mean = expit(line[0] + line[1] * x) if line else np.zeros(len(x))
    weight = mean * (1 - mean)
    steady = expit(level + x) if level is not None else np.zeros(len(x))
    first = np.stack([y - mean, (y - mean) * x, weight, weight * x, weight * x**2], axis=1)
    return [first, np.stack([y - steady, steady * (1 - steady)], axis=1)]


def _one_step(line: tuple[float, float] | None, sums: Floats, draws: SubjectDraws) -> tuple[Floats, Floats]:
    """Intercept and slope, [1 + D] each: one Newton step from the sample's fit under a draw's weights.

    The one-step bootstrap of generalised linear models (Moulton & Zeger 1991): linear in the weights, where fitting
    each draw anew would cost as many passes over all stays as there are draws.
    """
    if line is None:
        return nothing(draws), nothing(draws)
    step = _solve(*sums)
    return line[0] + step[0], line[1] + step[1]


def _one_step_level(level: float | None, sums: Floats, draws: SubjectDraws) -> Floats:
    return nothing(draws) if level is None else level + quotient(sums[0], sums[1])


def _ends(columns: list[Floats]) -> list[int]:
    return [int(end) for end in np.cumsum([each.shape[1] for each in columns])[:-1]]
