"""What the comparison measures of one run: ranking scores, calibration as said and tempered, net benefit, days.

Values come as {key: [1 + D]}, to be averaged over runs (scores.over_runs). Keys: ("score", label, metric),
("temperature",), ("calibration", label, scaling, measure), ("net", who, i of THRESHOLDS), ("days", who).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats, SubjectDraws
from pipeline.estimation.days import expected_days, mean_absolute_error
from pipeline.estimation.decision import net_benefit
from pipeline.estimation.metrics import (
    Bools,
    Ints,
    accuracy,
    confusion,
    kappa,
    nothing,
    quadratic_kappa,
    rank_metrics,
)
from pipeline.estimation.recalibration import MEASURES, calibration, fit_temperature, temper
from pipeline.evaluation.scores import MACRO
from pipeline.tasks import Task

METRICS = {
    "binary": ("auroc", "auprc"),
    "multilabel": ("auroc", "auprc"),
    "multiclass": ("kappa", "accuracy", "quadratic_kappa"),
}
SCALINGS = ("none", "temperature")
TOP = "top_class"  # length of stay: the likeliest class's probability against whether it is right
SELF, ALL, MEDIAN = "self", "treat_all", "median_of_validation"  # the run, and references that look at no patient
DAYS = "los_days"
Key = tuple[Any, ...]
Values = dict[Key, Floats]


def measure(
    task: Task, rows: pl.DataFrame, validation: pl.DataFrame, draws: SubjectDraws, bins: int, cap: float
) -> tuple[Values, dict[str, pl.DataFrame]]:
    """(values, claims by scaling) of a run's test `rows`, which have DAYS where the task is length of stay.

    Claims are as `curves.reliability_curve` takes them, of phenotypes those of all labels together: p_y, y, fold, seed.
    The temperature is fitted on the run's `validation` rows; where these do not tell, what needs it is not estimable.
    """
    at: Ints = draws.rows(rows["subject_id"].to_numpy())
    truth, multiclass = _outcomes(rows, task), task.kind == "multiclass"
    temperature = fit_temperature(_probabilities(validation, task), _outcomes(validation, task), multiclass)
    scaled = {"none": _probabilities(rows, task)}
    if temperature is not None:
        scaled["temperature"] = temper(scaled["none"], temperature, multiclass)
    found: Values = {("temperature",): np.full(draws.columns, np.nan if temperature is None else temperature)}
    pooled: dict[str, list[pl.DataFrame]] = {scaling: [] for scaling in scaled}
    for label, (said, came) in _claims(task, scaled, truth).items():
        values = calibration(said, came, at, draws, bins)
        for scaling in SCALINGS:
            for name in MEASURES:
                found["calibration", label, scaling, name] = values.get((scaling, name), nothing(draws))
        for scaling, p in said.items():
            pooled[scaling].append(rows.select("fold", "seed", pl.Series("p_y", p), pl.Series("y", came)))
    found |= _scores(task, scaled["none"], truth, at, draws)
    if task.kind == "binary":
        for who, p in ((SELF, scaled["none"][:, 0]), (ALL, np.ones(len(rows)))):
            for i, values_at in enumerate(net_benefit(p, truth[:, 0] > 0, at, draws)):
                found["net", who, i] = values_at
    if multiclass:
        typical = np.median(np.minimum(validation[DAYS].to_numpy(), cap)) if len(validation) else np.nan
        guesses = {SELF: expected_days(scaled["none"], cap)}
        guesses[MEDIAN] = np.full(len(rows), typical)
        for who, guess in guesses.items():
            found["days", who] = mean_absolute_error(guess, rows[DAYS].to_numpy(), cap, at, draws)
    return found, {scaling: pl.concat(frames) for scaling, frames in pooled.items()}


def _probabilities(rows: pl.DataFrame, task: Task) -> Floats:
    return rows.select(f"p_{name}" for name in task.outputs).to_numpy().astype(np.float64)


def _outcomes(rows: pl.DataFrame, task: Task) -> Floats:
    """0/1 by output, [n, K]; one-hot for length of stay."""
    if task.kind == "multiclass":
        return np.asarray(np.eye(len(task.outputs))[rows[task.labels[0]].cast(pl.Int64).to_numpy()])
    return rows.select(pl.col(task.labels).cast(pl.Float64)).to_numpy()


def _claims(task: Task, scaled: Mapping[str, Floats], truth: Floats) -> dict[str, tuple[dict[str, Floats], Bools]]:
    """By label: what was said with which probability at each scaling, and whether it came true.

    Of length of stay the likeliest class is taken, which no temperature changes.
    """
    if task.kind == "multiclass":
        right = truth[np.arange(len(truth)), scaled["none"].argmax(axis=1)] > 0
        return {TOP: ({name: p.max(axis=1) for name, p in scaled.items()}, right)}
    return {
        label: ({name: p[:, i] for name, p in scaled.items()}, truth[:, i] > 0) for i, label in enumerate(task.labels)
    }


def _scores(task: Task, p: Floats, truth: Floats, at: Ints, draws: SubjectDraws) -> Values:
    """METRICS of each label."""
    found: Values = {}
    if task.kind == "multiclass":
        matrix = confusion(p.argmax(axis=1), truth.argmax(axis=1), p.shape[1], at, draws)
        for name, function in (("kappa", kappa), ("accuracy", accuracy), ("quadratic_kappa", quadratic_kappa)):
            found["score", MACRO, name] = function(matrix)
        return found
    for i, label in enumerate(task.labels):
        ranked = rank_metrics(p[:, i], truth[:, i] > 0, at, draws)
        found["score", label, "auroc"], found["score", label, "auprc"] = ranked
    return found
