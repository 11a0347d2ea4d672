"""Points of ROC, precision–recall and reliability curves: one curve a run on a common grid, then averaged over runs.

Grids instead of thresholds: curves of different folds cannot be pooled for ranking, and no patient's score is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.metrics import Bools, mass_bins

GRID = np.linspace(0, 1, 101)
LEAST = 20  # predictions in a bin of a reliability curve: with fewer, the curve shows noise alone
RELIABILITY: dict[str, Any] = {"bin": pl.Int64, "predicted": pl.Float64, "observed": pl.Float64, "n": pl.Int64}


def _steps(scores: Floats, labels: Bools) -> tuple[Floats, Floats]:
    """True and false positives after each distinct score, best first."""
    order = np.argsort(-scores, kind="stable")
    scores, labels = scores[order], labels[order]
    last = np.append(scores[1:] != scores[:-1], True)
    true = np.cumsum(labels)[last].astype(np.float64)
    return true, np.arange(1, len(scores) + 1)[last] - true


def roc_points(scores: Floats, labels: Bools) -> Floats | None:
    """True positive rate at each false positive rate of GRID; None with one class alone."""
    if not labels.any() or labels.all():
        return None
    true, false = _steps(scores, labels)
    rate_true, rate_false = np.append(0.0, true / true[-1]), np.append(0.0, false / false[-1])
    # np.interp takes the last of several points at one x: where the curve is vertical, its top
    return np.asarray(np.interp(GRID, rate_false, rate_true))


def pr_points(scores: Floats, labels: Bools) -> Floats | None:
    """Precision at the first threshold that reaches each recall of GRID (no interpolation, as in average precision)."""
    if not labels.any() or labels.all():
        return None
    true, false = _steps(scores, labels)
    at = np.searchsorted(true / true[-1], np.maximum(GRID, 1e-12) - 1e-12)
    return np.asarray((true / (true + false))[at])


def _average(rows: pl.DataFrame, label: str, points: Callable[[Floats, Bools], Floats | None]) -> Floats | None:
    found = [
        points(run[f"p_{label}"].to_numpy(), run[label].cast(pl.Boolean).to_numpy())
        for run in rows.partition_by("fold", "seed", maintain_order=True)
    ]
    known = [each for each in found if each is not None]
    return np.mean(known, axis=0) if known else None


def roc_curve(rows: pl.DataFrame, label: str) -> pl.DataFrame:
    """fpr, tpr: the mean over runs of the true positive rate at each false positive rate; empty if not estimable."""
    mean = _average(rows, label, roc_points)
    return _curve("fpr", "tpr", mean)


def pr_curve(rows: pl.DataFrame, label: str) -> pl.DataFrame:
    """recall, precision: the mean over runs of precision at each recall; empty if not estimable."""
    return _curve("recall", "precision", _average(rows, label, pr_points))


def _curve(x: str, y: str, mean: Floats | None) -> pl.DataFrame:
    empty = mean is None
    return pl.DataFrame({x: [] if empty else GRID, y: [] if empty else mean}, schema={x: pl.Float64, y: pl.Float64})


def reliability_curve(rows: pl.DataFrame, label: str, bins: int) -> pl.DataFrame:
    """bin, predicted, observed, n: per bin of equal mass, the mean probability and share of positives over all runs.

    The bins are made within each run: at most `bins`, and of at least LEAST predictions where there are as many. `n`
    counts predictions, so that a stay counts once for each seed.
    """
    parts = []
    for run in rows.partition_by("fold", "seed", maintain_order=True):
        scores, truth = run[f"p_{label}"], run[label].cast(pl.Float64)
        of = mass_bins(scores.to_numpy(), max(1, min(bins, run.height // LEAST)))
        parts.append(pl.DataFrame({"bin": of, "predicted": scores, "observed": truth}))
    if not parts:
        return pl.DataFrame(schema=RELIABILITY)
    grouped = pl.concat(parts).group_by("bin", maintain_order=True)
    return grouped.agg(pl.col("predicted", "observed").mean(), pl.len().cast(pl.Int64).alias("n")).sort("bin")
