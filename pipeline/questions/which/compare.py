"""The stage `compare`: which strategy? Ranks, calibration, decisions, length of stay, score against cost, tuning.

Every strategy is trained and evaluated on the same cohort, with the least removed in training and everything there at
inference; test folds; metric per fold and seed, then averaged, from the same draws as those of `evaluate`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline import files
from pipeline.errors import InputError
from pipeline.estimation import recalibration
from pipeline.estimation.bootstrap import Floats, SubjectDraws, interval
from pipeline.estimation.curves import reliability_curve
from pipeline.estimation.decision import THRESHOLDS
from pipeline.estimation.ranking import ranks
from pipeline.evaluation.cells import kinds_of_run, read_people, read_predictions
from pipeline.evaluation.scores import (
    MACRO,
    Sampler,
    estimate_interval,
    headline,
    in_cohort,
    metric_interval,
    over_runs,
    tell,
)
from pipeline.params import Compare, Evaluation, Grid, TrainingScale, TuningScale
from pipeline.questions.which.run import ALL, DAYS, MEDIAN, METRICS, SCALINGS, SELF, TOP, Key, Values, measure
from pipeline.questions.which.text import MARKDOWN, About
from pipeline.questions.which.tuning import budget, tuning
from pipeline.tasks import Task, get_task

log = logging.getLogger(__name__)

NONE = "treat_none"  # of decision curves: worth nothing
BOUNDED = ("", "_low", "_high")
KEY: dict[str, Any] = {"task": pl.String, "cohort": pl.String}
SCHEMAS: dict[str, dict[str, Any]] = {
    "ranking": KEY
    | {"metric": pl.String, "strategy": pl.String, "n": pl.String, "positives": pl.String, "runs": pl.Int64}
    | dict.fromkeys(("value", "low", "high", "rank", "rank_low", "rank_high"), pl.Float64)
    | {"set_low": pl.Int64, "set_high": pl.Int64, "share_best": pl.Float64},
    "score_cost": KEY
    | {"metric": pl.String, "strategy": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    | {"scale": pl.String}
    | dict.fromkeys(("parameters", "flops_with_image", "flops_without_image"), pl.Int64)
    | {"frontier": pl.Boolean},
    "calibration": KEY
    | {"label": pl.String, "strategy": pl.String, "scaling": pl.String, "n": pl.String, "positives": pl.String}
    | {"temperature": pl.Float64}
    | {f"{name}{end}": pl.Float64 for name in recalibration.MEASURES for end in BOUNDED},
    "reliability": KEY
    | {"strategy": pl.String, "scaling": pl.String, "bin": pl.Int64}
    | {"predicted": pl.Float64, "observed": pl.Float64, "n": pl.Int64},
    "decision": KEY
    | {"strategy": pl.String}
    | dict.fromkeys(("threshold", "net_benefit", "net_benefit_low", "net_benefit_high"), pl.Float64),
    "los": {"cohort": pl.String, "strategy": pl.String, "n": pl.String}
    | {f"{name}{end}": pl.Float64 for name in ("quadratic_kappa", "absolute_days") for end in BOUNDED},
    "tuning": {"task": pl.String, "strategy": pl.String, "trials": pl.Int64, "default_score": pl.Float64}
    | {"trial": pl.Int64, "score": pl.Float64, "epochs": pl.Int64, "hours": pl.Float64, "differs": pl.String}
    | {"cohorts": pl.String, "seeds": pl.Int64},
    "tuning_curve": {"task": pl.String, "strategy": pl.String, "k": pl.Int64, "score": pl.Float64},
}
Tables = dict[str, pl.DataFrame]


class Compared:
    """One strategy on one task and cohort: the draws of each value, averaged over runs, and of whom."""

    def __init__(
        self, task: Task, strategy: str, cohort: str, cell: pl.DataFrame, sampler: Sampler, bins: int, cap: float
    ) -> None:
        self.task, self.strategy, self.cohort = task, strategy, cohort
        self.claims: list[dict[str, pl.DataFrame]] = []

        def one(rows: pl.DataFrame, validation: pl.DataFrame, draws: SubjectDraws) -> Values:
            values, claims = measure(task, rows, validation, draws, bins, cap)
            self.claims.append(claims)
            return values

        where = in_cohort(cohort)
        self.values = over_runs(cell, "test", where, sampler, one)
        everyone = cell.filter(pl.col("part") == "test").unique("stay_id")
        (self.people,) = tell(everyone, [where], task)
        if task.kind == "multilabel":
            for key in {key[:1] + key[2:] for key in self.values if key[0] in ("score", "calibration")}:
                each = [(key[0], label, *key[1:]) for label in task.labels]
                self.values.add_macro((key[0], MACRO, *key[1:]), each)

    @property
    def key(self) -> dict[str, Any]:
        """Of its rows."""
        return {"task": self.task.name, "cohort": self.cohort, "strategy": self.strategy}

    def score(self, metric: str) -> Floats:
        """The draws of one of METRICS of the task as a whole."""
        return self.values["score", headline(self.task), metric]


def compare(
    data: Path,
    grid: Grid,
    training: TrainingScale,
    judged: TuningScale,
    evaluation: Evaluation,
    settings: Compare,
    draws: int,
    costs: pl.DataFrame,
) -> Tables:
    """The tables by name (SCHEMAS).

    From the cells of `grid` under data/runs and data/ensembles, data/tuned and `costs` (of one scale).

    Raises InputError as `evaluate` and `tuning` do, and for a stay without los_days.
    """
    tasks = [get_task(name) for name in grid.tasks]
    people = read_people(data, tasks, training.folds, [DAYS])
    if people[DAYS].null_count():
        stay = people.filter(pl.col(DAYS).is_null())["stay_id"][0]
        raise InputError(f"{data / 'cohort' / 'stays.parquet'}: {DAYS} is null for stay_id {stay}")
    days = people.select("stay_id", pl.col(DAYS).cast(pl.Float64)).unique("stay_id")
    sampler = Sampler(people, draws, evaluation.seed)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    rows["tuning"], rows["tuning_curve"] = tuning(data / "tuned", grid, training, judged)
    for task in tasks:
        compared = []
        for strategy in grid.scored:
            log.info("%s %s", strategy, task.name)
            cell = read_predictions(data, task, strategy, training, people)
            cell = cell.join(days, on="stay_id", how="left", maintain_order="left")
            for cohort, predictions in _least_removed(cell):
                one = Compared(task, strategy, cohort, predictions, sampler, evaluation.ece_bins, settings.los_cap_days)
                rows["calibration"] += _calibration(one, evaluation.confidence)
                rows["reliability"] += _reliability(one, evaluation.ece_bins)
                one.claims = []  # the largest part of it
                compared.append(one)
        for cohort in training.cohorts:
            group = [each for each in compared if each.cohort == cohort]
            rows["ranking"] += _ranking(group, grid.ensembles, evaluation.confidence)
            if task.kind == "binary":
                rows["decision"] += _decision(group, evaluation.confidence)
            if task.kind == "multiclass":
                rows["los"] += _los(group, evaluation.confidence)
    found = {name: pl.DataFrame(each, schema=SCHEMAS[name], orient="row") for name, each in rows.items()}
    return found | {"score_cost": _score_cost(found["ranking"], costs)}


def _least_removed(cell: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """The runs of each cohort of training with the smallest share of training images removed."""
    seen: set[str] = set()
    for kind, predictions in kinds_of_run(cell):
        if kind["train_cohort"] not in seen:
            seen.add(kind["train_cohort"])
            yield kind["train_cohort"], predictions


def _bounded(name: str, values: Floats, bounds: tuple[float | None, float | None]) -> dict[str, float | None]:
    """Estimate and interval as NAME, NAME_low, NAME_high; None for what is not estimable."""
    known = None if np.isnan(values[0]) else float(values[0])
    return dict(zip((f"{name}{end}" for end in BOUNDED), (known, *bounds), strict=True))


def _ranking(group: Sequence[Compared], ensembles: Sequence[str], confidence: float) -> list[dict[str, Any]]:
    """Of one task and cohort, the best first; what has no rank last.

    `ensembles` have none: one that holds the others would stand in the way of each.
    """
    found = []
    ranked = np.array([one.strategy not in ensembles for one in group])[:, None]
    for metric in METRICS[group[0].task.kind] if group else ():
        placed = ranks(np.where(ranked, [each.score(metric) for each in group], np.nan), confidence)
        rows = []
        for one, rank in zip(group, placed, strict=True):
            whole = one.values.estimate(("score", headline(one.task), metric))
            low, high = estimate_interval(metric, whole, confidence)
            score = _bounded("value", one.score(metric), (low, high))
            rows.append(
                {
                    **one.key,
                    "metric": metric,
                    "n": one.people.n,
                    "positives": one.people.positives[headline(one.task)],
                    "runs": one.values.runs,
                    "value": score["value"],
                    "low": low,
                    "high": high,
                    "rank": rank.rank,
                    "rank_low": rank.low,
                    "rank_high": rank.high,
                    "set_low": rank.set_low,
                    "set_high": rank.set_high,
                    "share_best": rank.best,
                }
            )
        found += sorted(rows, key=lambda row: np.inf if row["rank"] is None else row["rank"])
    return found


def _score_cost(ranking: pl.DataFrame, costs: pl.DataFrame) -> pl.DataFrame:
    """Each task's first metric beside what a strategy costs; `frontier`: no cheaper one scores as well.

    Null where a strategy has no FLOPs (no network) or no score.
    """
    rows = ranking.filter(pl.col("metric") == pl.col("metric").first().over("task"))
    rows = rows.join(costs.drop("px"), on="strategy", how="left", maintain_order="left")
    found = []
    for row in rows.iter_rows(named=True):
        same = rows.filter(task=row["task"], cohort=row["cohort"])
        frontier = None
        if row["value"] is not None and row["flops_with_image"] is not None:
            cheaper = pl.col("flops_with_image") <= row["flops_with_image"]
            dearer_or_worse = (pl.col("value") > row["value"]) | (
                (pl.col("value") == row["value"]) & (pl.col("flops_with_image") < row["flops_with_image"])
            )
            frontier = not same.filter(cheaper & dearer_or_worse).height
        found.append({name: row.get(name) for name in SCHEMAS["score_cost"]} | {"frontier": frontier})
    return pl.DataFrame(found, schema=SCHEMAS["score_cost"], orient="row")


def _calibration(one: Compared, confidence: float) -> list[dict[str, Any]]:
    temperature = float(one.values["temperature",][0])
    found = []
    for label in [label for label in (*one.task.labels, MACRO, TOP) if _of(label, "none", "ece") in one.values]:
        for scaling in SCALINGS:
            row = {**one.key, "label": label, "scaling": scaling, "n": one.people.n}
            row["positives"] = one.people.positives.get(label)
            row["temperature"] = None if scaling == "none" or np.isnan(temperature) else temperature
            for name in recalibration.MEASURES:
                values = one.values[_of(label, scaling, name)]
                bounds = metric_interval(name, values, confidence)
                row |= _bounded(name, np.maximum(values, 0.0) if name == "ece_debiased" else values, bounds)
            found.append(row)
    return found


def _of(label: str, scaling: str, name: str) -> Key:
    return "calibration", label, scaling, name


def _reliability(one: Compared, bins: int) -> list[dict[str, Any]]:
    found = []
    for scaling in SCALINGS:
        claims = [each[scaling] for each in one.claims if scaling in each and each[scaling].height]
        if claims:
            curve = reliability_curve(pl.concat(claims), "y", bins)
            found += [{**one.key, "scaling": scaling, **row} for row in curve.iter_rows(named=True)]
    return found


def _decision(group: Sequence[Compared], confidence: float) -> list[dict[str, Any]]:
    """Every strategy's net benefit, then that of treating all and none, at each threshold."""
    found = []
    for one, who in [*((each, SELF) for each in group), *((each, ALL) for each in group[:1])]:
        for i, threshold in enumerate(THRESHOLDS):
            values = one.values["net", who, i]
            row = _bounded("net_benefit", values, interval(values, confidence))
            strategy = one.strategy if who == SELF else ALL
            found.append({**one.key, "strategy": strategy, "threshold": threshold, **row})
    if group:
        zero = {**group[0].key, "strategy": NONE, "net_benefit": 0.0}
        found += [{**zero, "threshold": threshold} for threshold in THRESHOLDS]
    return found


def _los(group: Sequence[Compared], confidence: float) -> list[dict[str, Any]]:
    """Every strategy's agreement and error, then the error of guessing the median of validation for everybody."""
    found = []
    for one in group:
        values, missed = one.score("quadratic_kappa"), one.values["days", SELF]
        row = _bounded("quadratic_kappa", values, metric_interval("quadratic_kappa", values, confidence))
        row |= _bounded("absolute_days", missed, interval(missed, confidence))
        found.append({"cohort": one.cohort, "strategy": one.strategy, "n": one.people.n, **row})
    for one in group[:1]:
        missed = one.values["days", MEDIAN]
        row = _bounded("absolute_days", missed, interval(missed, confidence))
        found.append({"cohort": one.cohort, "strategy": MEDIAN, "n": one.people.n, **row})
    return found


def write(
    tables: Mapping[str, pl.DataFrame], folder: Path, grid: Grid, evaluation: Evaluation, settings: Compare
) -> None:
    """Writes NAME.csv of each table, and NAME.md of those in MARKDOWN."""
    about = About(evaluation, settings, budget(tables["tuning"], grid))
    for name, table in tables.items():
        files.write_csv(table, folder / f"{name}.csv", digits=6 if name in ("ranking", "score_cost", "tuning") else 4)
    for name, text in MARKDOWN.items():
        files.write_text(text(tables[name], about), folder / f"{name}.md")
