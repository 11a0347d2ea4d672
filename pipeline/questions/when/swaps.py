"""What a fusion strategy answers to swapped pairs, scored: the probe's swaps.parquet, run by run.

Images, records or both are permuted among the probed patients. A score under permutation is the mean over the
permutations of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats, average_runs
from pipeline.estimation.metrics import accuracy, confusion, rank_metrics
from pipeline.estimation.variance import Estimate, estimate, macro_runs
from pipeline.evaluation.reading import read_probe
from pipeline.evaluation.scores import Sampler, metrics_of
from pipeline.tasks import Task


@dataclass(frozen=True)
class Swapped:
    """Draws of the task's first metric by kind of swap, [R, 1 + D], and what an estimate of them needs.

    `folds` are the runs', `stays` how many were probed.
    """

    values: Mapping[str, Floats]
    folds: tuple[int, ...]
    stays: int

    def estimate(self, values: Floats, test_share: float) -> Estimate:
        """Of something made of `values`, [R, 1 + D]."""
        return estimate(values, self.folds, test_share)


def read_swaps(data: Path, strategy: str, task: Task, people: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """By cohort of training, what a strategy answered to swapped pairs, with subject_id and labels.

    `people`: a row a stay and fold. Raises InputError where there is no probe.
    """
    rows = read_probe(data, strategy, "swaps").filter(task=task.name)
    known = people.select("fold", "stay_id", "subject_id", *task.labels)
    rows = rows.join(known, on=["fold", "stay_id"], how="left", maintain_order="left")
    return {str(cohort): of for (cohort,), of in rows.group_by("train_cohort", maintain_order=True)}


def scored(swaps: pl.DataFrame, task: Task, sampler: Sampler) -> Swapped:
    """`swaps` are rows of one cohort as `read_swaps` gives them; of several labels the mean over labels."""
    runs = swaps.select("fold", "seed").unique().sort("fold", "seed").rows()
    kinds = {}
    for (kind,), of_kind in swaps.group_by("kind", maintain_order=True):
        by_run = of_kind.partition_by("fold", "seed", as_dict=True)
        each = np.array([_of_run(by_run[run], task, sampler) for run in runs])  # [R, L, 1 + D]
        kinds[str(kind)] = macro_runs(each.swapaxes(0, 1)) if each.shape[1] > 1 else each[:, 0]
    return Swapped(kinds, tuple(fold for fold, _ in runs), swaps["stay_id"].n_unique())


def _of_run(rows: pl.DataFrame, task: Task, sampler: Sampler) -> Floats:
    """[L, 1 + D]: the mean over the permutations of a run."""
    each = np.array([_of_draw(of, task, sampler) for of in rows.partition_by("draw", maintain_order=True)])
    return np.array([average_runs(each[:, label]) for label in range(each.shape[1])])


def _of_draw(rows: pl.DataFrame, task: Task, sampler: Sampler) -> Floats:
    draws = sampler.subjects("test", rows["fold"][0])
    at = draws.rows(rows["subject_id"].to_numpy())
    p = rows.select(f"p_{name}" for name in task.outputs).to_numpy().astype(np.float64)
    truth = rows.select(pl.col(task.labels).cast(pl.Int64)).to_numpy()
    if task.kind == "multiclass":
        return accuracy(confusion(p.argmax(axis=1), truth[:, 0], p.shape[1], at, draws))[None]
    return np.array([rank_metrics(p[:, i], truth[:, i] > 0, at, draws)[0] for i in range(truth.shape[1])])


def metric_of(task: Task) -> str:
    """The metric of `scored`."""
    return metrics_of(task)[0]
