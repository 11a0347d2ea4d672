"""Removal at inference, from stored answers: who has lost what at which rate, and the scores of what is then answered.

data/masks.parquet says from which rate on a stay's image or record is gone, so that what is gone at a rate is gone at
every higher one, for all strategies alike. A stay's answer without its image does not depend on who else has lost
theirs: the probe asked for it once, and here the answers are mixed. A strategy that does not look at what is removed
answers as it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import InputError
from pipeline.estimation.bootstrap import Floats, SubjectDraws, average_labels, average_runs
from pipeline.estimation.metrics import Bools, Ints, accuracy, confusion, kappa, rank_metrics
from pipeline.evaluation.scores import Sampler, metrics_of
from pipeline.params import ProbeScale
from pipeline.tasks import Task
from pipeline.training.grid import KEY


class Removal(NamedTuple):
    """What is absent at inference: of which modality, by which mechanism, at which rate (of last_hours: k / 48)."""

    modality: str
    mechanism: str
    rate: float


NOTHING = Removal("none", "none", 0.0)
Scores = dict[str, Floats]  # by metric, [1 + D]


def removals(scale: ProbeScale, hours: int) -> list[Removal]:
    """All that is scored, in the order of the tables; records go at random alone. Records have `hours` hours."""
    rates = sorted(scale.test_missing)
    images = [Removal("cxr", mechanism, rate) for mechanism in scale.mechanisms for rate in rates]
    records = [Removal("ehr", "mcar", rate) for rate in rates]
    return [NOTHING, *images, *records, *(Removal("ehr", "last_hours", k / hours) for k in sorted(scale.last_hours))]


@dataclass(frozen=True)
class Run:
    """The n base test stays of a run. `full` [n, K] are the answers to what there is; `without` those to what is left.

    `without` has the keys (modality, mechanism, rate) of removal.parquet, `removed_at` [n] (modality, mechanism): inf
    where there is nothing to remove. `truth` [n, labels]; `at` is the row of the stay's subject in `draws`.
    """

    fold: int
    seed: int
    full: Floats
    without: dict[Removal, Floats]
    removed_at: dict[tuple[str, str], Floats]
    truth: Ints
    groups: dict[str, Bools]
    at: Ints
    draws: SubjectDraws


def answers(run: Run, removal: Removal) -> Floats:
    """Probabilities [n, K] when that is absent; `run.full` itself where this changes nothing."""
    if removal.mechanism == "last_hours":
        return run.without.get(removal, run.full)
    gone = run.without.get(Removal(removal.modality, "whole", 1.0))
    if gone is None:
        return run.full
    return np.where((run.removed_at[removal.modality, removal.mechanism] < removal.rate)[:, None], gone, run.full)


def read_masks(data: Path) -> pl.DataFrame:
    """data/masks.parquet with wide ids."""
    return pl.read_parquet(data / "masks.parquet").with_columns(pl.col("fold", "stay_id").cast(pl.Int64))


def runs_of(
    predictions: pl.DataFrame, probe: pl.DataFrame, masks: pl.DataFrame, task: Task, sampler: Sampler, path: str
) -> list[Run]:
    """The runs of one kind, sorted by fold and seed.

    `predictions` are rows of cells.read_predictions, with cxr_status; `probe` those of removal.parquet of the task;
    `path` names it in the InputError for a run that it lacks, or a test stay whose record it did not remove.
    """
    outputs = [f"p_{name}" for name in task.outputs]
    found = []
    for key, rows in predictions.filter(part="test").group_by(KEY, maintain_order=True):
        rows, told = rows.sort("stay_id"), dict(zip(KEY, key, strict=True))
        fold, stays = int(str(told["fold"])), rows.select("stay_id")
        own = probe.filter(pl.all_horizontal(pl.col(name) == value for name, value in told.items()))
        draws = sampler.subjects("test", fold)
        full = rows.select(outputs).to_numpy()
        without = {}
        for kind, asked in own.group_by("test_modality", "test_mechanism", "test_missing", maintain_order=True):
            p = stays.join(asked.select("stay_id", *outputs), on="stay_id", how="left", maintain_order="left")
            values = p.select(pl.col(outputs).cast(pl.Float64)).to_numpy()
            if kind[0] == "ehr" and np.isnan(values).any():
                raise InputError(f"{path}: no answer without the record for a test stay of fold {fold}; run the probe")
            without[Removal(str(kind[0]), str(kind[1]), float(str(kind[2])))] = np.where(np.isnan(values), full, values)
        if not own.height:
            raise InputError(f"{path}: no rows for {task.name}, {', '.join(f'{k}={v}' for k, v in told.items())}")
        removed_at = {}
        for (modality, mechanism), mask in masks.filter(fold=fold).group_by("modality", "mechanism"):
            at = stays.join(mask.select("stay_id", "removed_at"), on="stay_id", how="left", maintain_order="left")
            removed_at[str(modality), str(mechanism)] = at["removed_at"].fill_null(np.inf).to_numpy()
        pictured, status = rows["has_cxr"].to_numpy(), rows["cxr_status"].to_numpy()
        found.append(
            Run(
                fold=fold,
                seed=int(str(told["seed"])),
                full=full,
                without=without,
                removed_at=removed_at,
                truth=rows.select(pl.col(task.labels).cast(pl.Int64)).to_numpy(),
                groups={
                    "base": np.ones(len(full), dtype=bool),
                    "matched": pictured,
                    "no image": ~pictured,
                    "not_taken": ~pictured & (status == "not_taken"),
                    "not_collectable": ~pictured & (status == "not_collectable"),
                },
                at=draws.rows(rows["subject_id"].to_numpy()),
                draws=draws,
            )
        )
    return found


def score_runs(runs: Sequence[Run], task: Task, group: str, removal: Removal = NOTHING) -> Scores:
    """Draws of both metrics over the stays of a group: per run, averaged; of phenotypes then the mean over labels."""
    labels = range(len(task.labels))
    first, second = metrics_of(task)
    values: tuple[list[Floats], list[Floats]] = ([], [])
    scored = [_of_run(run, task, run.groups[group], answers(run, removal)) for run in runs]
    for label in labels:
        for metric in range(2):
            values[metric].append(average_runs(np.array([each[label][metric] for each in scored])))
    return {
        name: average_labels(np.array(each)) if len(labels) > 1 else each[0]
        for name, each in zip((first, second), values, strict=True)
    }


def _of_run(run: Run, task: Task, keep: Bools, p: Floats) -> list[tuple[Floats, Floats]]:
    at, p, truth = run.at[keep], p[keep], run.truth[keep]
    if task.kind == "multiclass":
        if not len(p):
            return [(np.full(run.draws.columns, np.nan),) * 2]
        matrix = confusion(p.argmax(axis=1), truth[:, 0], len(task.outputs), at, run.draws)
        return [(accuracy(matrix), kappa(matrix))]
    return [rank_metrics(p[:, i], truth[:, i].astype(bool), at, run.draws) for i in range(len(task.labels))]


def curve(runs: Sequence[Run], task: Task, asked: Sequence[Removal], group: str = "matched") -> dict[Removal, Scores]:
    """Scores of the stays of a group under each removal; what changes no answer is not scored again."""
    found: dict[Removal, Scores] = {}
    for removal in asked:
        same = [answers(run, removal) is run.full for run in runs]
        everything = next(
            (each for each in found if each[0] == removal.modality and each.rate == 1 == removal.rate), None
        )
        if all(same) and NOTHING in found:
            found[removal] = found[NOTHING]
        elif everything is not None:  # by whatever mechanism
            found[removal] = found[everything]
        else:
            found[removal] = score_runs(runs, task, group, removal)
    return found


def area(values: Sequence[Floats], rates: Sequence[float]) -> Floats:
    """Area under a degradation curve [1 + D]: the mean of the metric over rates from 0 to the last, by trapezoids."""
    widths = np.diff(rates)
    heights = (np.array(values)[1:] + np.array(values)[:-1]) / 2
    return np.asarray((heights * widths[:, None]).sum(axis=0) / (rates[-1] - rates[0]))


def stops_paying(lead: Sequence[Floats], rates: Sequence[float]) -> Floats:
    """The lowest rate at which a lead over the reference has fallen to 0, by linear interpolation, [1 + D].

    0 where there is no lead from the start, inf where it never falls so far; NaN where a lead is not estimable.
    """
    ahead = np.array(lead)
    found = np.full(ahead.shape[1], np.inf)
    for i in range(len(rates) - 1, 0, -1):
        before, after = ahead[i - 1], ahead[i]
        share = np.divide(before, before - after, out=np.ones_like(before), where=before > after)
        crossing = rates[i - 1] + (rates[i] - rates[i - 1]) * share
        found = np.where((before > 0) & (after <= 0), crossing, found)
    found = np.where(ahead[0] <= 0, 0.0, found)
    return np.where(np.isnan(ahead).any(axis=0), np.nan, found)
