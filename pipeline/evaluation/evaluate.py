"""The stage `evaluate`: every cell that the grid names, scored on both cohorts, as tables, metrics files and curves.

What is scored here is the plain benchmark: everything present at inference. Rows of results.csv are (task, strategy,
cohort of training, cohort of evaluation, part, share removed in training, metric); the headline pairs the two cohorts
with themselves.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import files
from pipeline.estimation.curves import RELIABILITY, pr_curve, reliability_curve, roc_curve
from pipeline.estimation.metrics import BINARY
from pipeline.evaluation.cells import kinds_of_run, read_history, read_people, read_predictions
from pipeline.evaluation.metrics_files import write_folder
from pipeline.evaluation.scores import HEADLINE, Sampler, Scored, headline, in_cohort, score
from pipeline.params import Evaluation, Grid, TrainingScale
from pipeline.presentation.tables import phenotype_markdown, results_latex, results_markdown
from pipeline.strict import read_yaml
from pipeline.tasks import PHENOTYPES_FILE, Task, get_task

log = logging.getLogger(__name__)

COHORTS = ("base", "matched")
RESULT_SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "strategy": pl.String,
    "train_cohort": pl.String,
    "eval_cohort": pl.String,
    "part": pl.String,
    "train_missing": pl.Float64,
    "train_mechanism": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.String,
    "positives": pl.String,
    "runs": pl.Int64,
    "runs_estimable": pl.Int64,
    "labels": pl.Int64,
}
CURVE_KEY: dict[str, Any] = {"task": pl.String, "strategy": pl.String, "cohort": pl.String}
PHENOTYPE_SCHEMA: dict[str, Any] = {
    "phenotype": pl.String,
    "name": pl.String,
    "type": pl.String,
    "strategy": pl.String,
    "train_cohort": pl.String,
    "eval_cohort": pl.String,
    "part": pl.String,
    "train_missing": pl.Float64,
    "train_mechanism": pl.String,
    "n": pl.String,
    "positives": pl.String,
    **{f"{metric}{suffix}": pl.Float64 for metric in BINARY for suffix in ("", "_low", "_high")},
}


@dataclass(frozen=True)
class Results:
    """What evaluate found. `metrics` is {part: {task: {strategy: {cohort: {metric: value}}}}}."""

    table: pl.DataFrame
    phenotypes: pl.DataFrame
    metrics: dict[str, dict[str, dict[str, dict[str, dict[str, float | None]]]]]
    roc: pl.DataFrame
    pr: pl.DataFrame
    calibration: pl.DataFrame
    history: pl.DataFrame


def evaluate(data: Path, grid: Grid, training: TrainingScale, evaluation: Evaluation, draws: int) -> Results:
    """Reads the cells of `grid` under data/runs and data/ensembles, and scores them.

    Raises InputError for a cell, run, file or column that is missing, a run that was not asked for, or a prediction
    that is no probability.
    """
    tasks = [get_task(name) for name in grid.tasks]
    people = read_people(data, tasks, training.folds)
    sampler = Sampler(people, draws, evaluation.seed)
    rows: list[dict[str, Any]] = []
    labelled: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {part: {task.name: {} for task in tasks} for part in ("dev", "test")}
    curves: dict[str, list[pl.DataFrame]] = {"roc": [], "pr": [], "calibration": []}
    histories = []
    for task in tasks:
        for strategy in grid.scored:
            log.info("%s %s", strategy, task.name)
            cell = read_predictions(data, task, strategy, training, people)
            if strategy in grid.strategies:  # an ensemble has no epochs
                histories.append(read_history(data, task, strategy, training))
            small: dict[str, dict[str, Any]] = {part: {} for part in metrics}
            for kind, predictions in kinds_of_run(cell):
                for part, cohort in (("dev", kind["train_cohort"]), *(("test", cohort) for cohort in COHORTS)):
                    scored = score(predictions, task, part, in_cohort(cohort), sampler, evaluation.ece_bins)
                    key = {"task": task.name, "strategy": strategy, **kind, "eval_cohort": cohort, "part": part}
                    own = cohort == kind["train_cohort"]
                    if own and cohort not in small[part]:  # the first kind of a cohort has the least removed
                        small[part][cohort] = _headline(scored, task)
                        if part == "test" and task.kind == "binary":
                            test = predictions.filter((pl.col("part") == part) & in_cohort(cohort))
                            _add_curves(curves, key, test, task, evaluation.ece_bins)
                    if part == "test":
                        rows += _rows(scored, task, key, evaluation.confidence)
                        if task.kind == "multilabel":
                            labelled += _label_rows(scored, task, key, evaluation.confidence)
            for part in metrics:
                metrics[part][task.name][strategy] = small[part]
    table = pl.DataFrame(rows, schema=RESULT_SCHEMA, orient="row")
    phenotypes = pl.DataFrame(labelled, schema=PHENOTYPE_SCHEMA, orient="row")
    return Results(
        table=table,
        phenotypes=phenotypes,
        metrics=metrics,
        roc=pl.concat([_no_curve("fpr", "tpr"), *curves["roc"]]),
        pr=pl.concat([_no_curve("recall", "precision"), *curves["pr"]]),
        calibration=pl.concat([pl.DataFrame(schema=CURVE_KEY | RELIABILITY), *curves["calibration"]]),
        history=pl.concat(histories),
    )


def _no_curve(x: str, y: str) -> pl.DataFrame:
    return pl.DataFrame(schema=CURVE_KEY | {x: pl.Float64, y: pl.Float64})


def _rows(scored: Scored, task: Task, key: dict[str, Any], confidence: float) -> list[dict[str, Any]]:
    label, order = headline(task), ("accuracy", "kappa", "f1", "auroc", "auprc", "brier", "ece")
    found = []
    for metric in BINARY if task.kind != "multiclass" else order:
        low, high = scored.interval(label, metric, confidence)
        found.append(
            {
                **key,
                "metric": metric,
                "value": scored.estimate(label, metric),
                "low": low,
                "high": high,
                "n": scored.people.n,
                "positives": scored.people.positives[label],
                "runs": scored.values.runs,
                "runs_estimable": scored.values.estimable((label, metric)),
                "labels": scored.labels.get(metric),
            }
        )
    return found


def _label_rows(scored: Scored, task: Task, key: dict[str, Any], confidence: float) -> list[dict[str, Any]]:
    about = {row["slug"]: row for row in read_yaml(PHENOTYPES_FILE)["phenotypes"]}
    found = []
    for label in task.labels:
        row = {
            "phenotype": label,
            "name": about[label]["label"],
            "type": about[label]["type"],
            **{name: value for name, value in key.items() if name != "task"},
            "n": scored.people.n,
            "positives": scored.people.positives[label],
        }
        for metric in BINARY:
            row[metric] = scored.estimate(label, metric)
            row[f"{metric}_low"], row[f"{metric}_high"] = scored.interval(label, metric, confidence)
        found.append(row)
    return found


def _headline(scored: Scored, task: Task) -> dict[str, float | None]:
    label = headline(task)
    return {metric: scored.estimate(label, metric) for group in HEADLINE[task.kind] for metric in group}


def _add_curves(
    curves: dict[str, list[pl.DataFrame]], key: dict[str, Any], rows: pl.DataFrame, task: Task, bins: int
) -> None:
    label = task.labels[0]
    short = {"task": key["task"], "strategy": key["strategy"], "cohort": key["eval_cohort"]}
    named = [pl.lit(value).alias(name) for name, value in short.items()]
    curves["roc"].append(roc_curve(rows, label).select(*named, pl.all()))
    curves["pr"].append(pr_curve(rows, label).select(*named, pl.all()))
    curves["calibration"].append(reliability_curve(rows, label, bins).select(*named, pl.all()))


def sweep(dev: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """{strategy: {task: the task's first metric on dev}}, trained on the first cohort: what a sweep looks at.

    A file a strategy, since DVC prints a file as one row. `dev` is as in `Results.metrics`.
    """
    found: dict[str, dict[str, float | None]] = {}
    for task, strategies in dev.items():
        metric = HEADLINE[get_task(task).kind][0][0]
        for strategy, cohorts in strategies.items():
            found.setdefault(strategy, {})[task] = next(iter(cohorts.values()))[metric]
    return found


def write(results: Results, reports: Path, confidence: float) -> None:
    """Writes reports/metrics, reports/tables and reports/plots; metrics files of other tasks are removed."""
    for part, tasks in results.metrics.items():
        write_folder(tasks, reports / "metrics" / part)
    write_folder(sweep(results.metrics["dev"]), reports / "metrics" / "sweep")
    tables = reports / "tables"
    files.write_csv(results.table, tables / "results.csv")
    files.write_text(results_markdown(results.table, confidence), tables / "results.md")
    files.write_text(results_latex(results.table, confidence), tables / "results.tex")
    files.write_csv(results.phenotypes, tables / "phenotypes.csv")
    files.write_text(phenotype_markdown(results.phenotypes, confidence), tables / "phenotypes.md")
    for name in ("roc", "pr", "calibration", "history"):
        files.write_csv(getattr(results, name), reports / "plots" / f"{name}.csv")
