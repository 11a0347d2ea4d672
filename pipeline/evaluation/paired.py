"""What paired comparisons are made of: a strategy's runs as arrays, and their bootstrap draws.

A comparison is of two strategies on the same stays, in one stratum of them: draws of both come from the same `Sampler`
and are subtracted column by column. Metrics are the task's headline ones: AUROC and average precision; of length of
stay accuracy and kappa.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats, SubjectDraws
from pipeline.estimation.metrics import Bools, Ints, accuracy, confusion, kappa, rank_metrics
from pipeline.estimation.variance import macro_runs
from pipeline.evaluation.cells import kinds_of_run, read_predictions
from pipeline.evaluation.choice import Validation, validation
from pipeline.evaluation.scores import MACRO, Sampler, in_cohort, metrics_of
from pipeline.params import TrainingScale
from pipeline.tasks import Task

Stratum = tuple[str, str]  # what it is about, and which group of it
ALL: Stratum = ("all", "all")
Draws = dict[tuple[str, str], Floats]  # by (label, metric), [R, 1 + D]


@dataclass(frozen=True)
class Run:
    """The stays of a part in one run. Arrays are [n]; `scores` [n, outputs], `truth` [n, labels].

    `at` is the row of each stay's subject in `draws`; `inside` says of each stratum which stays are in it.
    """

    fold: int
    seed: int
    at: Ints
    scores: Floats
    truth: Ints
    inside: Mapping[Stratum, Bools]
    draws: SubjectDraws


def runs_of(
    predictions: pl.DataFrame, task: Task, sampler: Sampler, strata: Mapping[Stratum, pl.Expr]
) -> tuple[Run, ...]:
    """The runs of `predictions` (of one kind of run, test stays alone), sorted by fold and seed."""
    rows = predictions.sort("fold", "seed", "stay_id")
    found = []
    for (fold, seed), run in rows.group_by("fold", "seed", maintain_order=True):
        subjects = run["subject_id"].to_numpy()
        draws = sampler.subjects("test", int(str(fold)))
        masks = run.select(
            where.cast(pl.Boolean).fill_null(False).alias("/".join(name)) for name, where in strata.items()
        )
        found.append(
            Run(
                fold=int(str(fold)),
                seed=int(str(seed)),
                at=draws.rows(subjects),
                scores=run.select(f"p_{name}" for name in task.outputs).to_numpy(),
                truth=run.select(pl.col(task.labels).cast(pl.Int64)).to_numpy(),
                inside={name: _column(masks["/".join(name)], run.height) for name in strata},
                draws=draws,
            )
        )
    return tuple(found)


def _column(mask: pl.Series, length: int) -> Bools:
    """A literal is one value for all."""
    found = mask.to_numpy()
    return np.asarray(found if len(found) == length else np.repeat(found, length))


@dataclass(frozen=True)
class Cell:
    """A strategy on one task and cohort: what validation says of it, by label, and its test runs."""

    strategy: str
    validation: dict[str, Validation]
    runs: tuple[Run, ...]


def read_cells(
    data: Path,
    task: Task,
    strategy: str,
    training: TrainingScale,
    people: pl.DataFrame,
    sampler: Sampler,
    strata: Mapping[str, Mapping[Stratum, pl.Expr]],
) -> Iterator[tuple[str, Cell]]:
    """(cohort, cell) for each cohort of training, evaluated on itself, with the least removed in training.

    `people` has the columns that the strata of a cohort ask for. Raises InputError as `cells.read_predictions` does.
    """
    more = [name for name in people.columns if name not in ("part", "subject_id", "has_cxr", *task.labels)]
    cell = read_predictions(data, task, strategy, training, people)
    cell = cell.join(people.select(more), on=["fold", "stay_id"], how="left")
    seen = set()
    for kind, predictions in kinds_of_run(cell):
        cohort = kind["train_cohort"]
        if cohort in seen:
            continue
        seen.add(cohort)
        rows = predictions.filter((pl.col("part") == "test") & in_cohort(cohort))
        runs = runs_of(rows, task, sampler, strata[cohort])
        yield cohort, Cell(strategy, validation(predictions, task), runs)


def scored(runs: Sequence[Run], task: Task, stratum: Stratum) -> Draws:
    """Draws of both metrics by label (length of stay: MACRO), a row a run; [0, 1] without a run."""
    first, second = metrics_of(task)
    found: Draws = {}
    for i, label in enumerate(task.labels if task.kind != "multiclass" else (MACRO,)):
        pairs = [_metrics(run, task, i, run.inside[stratum]) for run in runs]
        for metric, draws in zip((first, second), zip(*pairs, strict=True) if pairs else ((), ()), strict=True):
            found[label, metric] = np.array(draws) if draws else np.zeros((0, 1))
    return found


def over_labels(draws: Draws, labels: Sequence[str], metric: str) -> Floats:
    """Draws of a metric by run, [R, 1 + D]: of one label, or of the mean over several."""
    each = [draws[label, metric] for label in labels]
    return each[0] if len(each) == 1 or not len(each[0]) else macro_runs(np.array(each))


def _metrics(run: Run, task: Task, label: int, keep: Bools) -> tuple[Floats, Floats]:
    at, scores, truth = run.at[keep], run.scores[keep], run.truth[keep, label]
    if task.kind != "multiclass":
        return rank_metrics(scores[:, label], truth.astype(bool), at, run.draws)
    matrix = confusion(scores.argmax(axis=1), truth, len(task.outputs), at, run.draws)
    return accuracy(matrix), kappa(matrix)
