"""What paired comparisons are made of: a strategy's runs as arrays, their bootstrap draws, and the randomisation test.

A comparison is of two strategies on the same stays, in one stratum of them: draws of both come from the same `Sampler`
and are subtracted column by column. Metrics are the task's headline ones: AUROC and average precision; of length of
stay accuracy and kappa.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.estimation import randomisation
from pipeline.estimation.bootstrap import Floats, SubjectDraws, average_labels, average_runs
from pipeline.estimation.metrics import Bools, Ints, accuracy, confusion, kappa, rank_metrics
from pipeline.evaluation.cells import kinds_of_run, read_predictions
from pipeline.evaluation.choice import Validation, validation
from pipeline.evaluation.scores import MACRO, Sampler, headline, in_cohort, metrics_of
from pipeline.params import TrainingScale
from pipeline.tasks import Task

Stratum = tuple[str, str]  # what it is about, and which group of it
ALL: Stratum = ("all", "all")
Draws = dict[tuple[str, str], Floats]  # by (label, metric), [1 + D]


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
    """A strategy on one task and cohort: its headline metric on validation, and its test runs."""

    strategy: str
    validation: Validation
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
        yield cohort, Cell(strategy, validation(predictions, task)[headline(task)], runs)


def scored(runs: Sequence[Run], task: Task, stratum: Stratum) -> Draws:
    """Draws of both metrics: of each label, and of MACRO where the task has several; averaged over the runs."""
    first, second = metrics_of(task)
    found: Draws = {}
    for i, label in enumerate(task.labels if task.kind != "multiclass" else (MACRO,)):
        pairs = [_metrics(run, task, i, run.inside[stratum]) for run in runs]
        found[label, first] = _mean([pair[0] for pair in pairs])
        found[label, second] = _mean([pair[1] for pair in pairs])
    if task.kind == "multilabel":
        for metric in (first, second):
            found[MACRO, metric] = macro(found, task.labels, metric)
    return found


def macro(draws: Mapping[tuple[str, str], Floats], labels: Iterable[str], metric: str) -> Floats:
    """Mean over some labels, [1 + D]."""
    return average_labels(np.array([draws[label, metric] for label in labels]))


def _mean(values: Sequence[Floats]) -> Floats:
    return average_runs(np.array(values)) if values else np.full(1, np.nan)


def _metrics(run: Run, task: Task, label: int, keep: Bools) -> tuple[Floats, Floats]:
    at, scores, truth = run.at[keep], run.scores[keep], run.truth[keep, label]
    if task.kind != "multiclass":
        return rank_metrics(scores[:, label], truth.astype(bool), at, run.draws)
    matrix = confusion(scores.argmax(axis=1), truth, len(task.outputs), at, run.draws)
    return accuracy(matrix), kappa(matrix)


def shares(a: Sequence[Run], b: Sequence[Run], task: Task, stratum: Stratum) -> dict[str, Floats]:
    """By label, each subject's share of the difference of the first metric, [S over all folds]; no key: not estimable.

    AUROC and accuracy are sums over subjects, and so are their means over runs and labels (`randomisation`).
    """
    offset, total = _offsets(a)
    found: dict[str, list[Floats]] = {}
    for one, two in zip(a, b, strict=True):
        keep, size = one.inside[stratum], len(one.draws.subjects)
        start = offset[one.fold]
        for label, share in _run_shares(one, two, task, keep, size):
            if share is not None:
                whole = np.zeros(total)
                whole[start : start + size] = share
                found.setdefault(label, []).append(whole)
    return {label: np.mean(each, axis=0) for label, each in found.items()}


def _run_shares(a: Run, b: Run, task: Task, keep: Bools, size: int) -> Iterator[tuple[str, Floats | None]]:
    at = a.at[keep]
    if task.kind == "multiclass":
        one, two = ((run.scores.argmax(axis=1) == run.truth[:, 0])[keep].astype(np.float64) for run in (a, b))
        yield MACRO, randomisation.mean_shares(one, two, at, size)
        return
    if keep.any():
        ranked = [randomisation.ranks(run.scores[keep]) for run in (a, b)]
        for i, label in enumerate(task.labels):
            truth = a.truth[keep, i].astype(bool)
            yield label, randomisation.auroc_shares(ranked[0][:, i], ranked[1][:, i], truth, at, size)


def _offsets(runs: Sequence[Run]) -> tuple[dict[int, int], int]:
    """Where each fold's subjects begin among those of all folds, and how many there are."""
    offset, total = {}, 0
    for run in runs:
        if run.fold not in offset:
            offset[run.fold] = total
            total += len(run.draws.subjects)
    return offset, total


def throws(runs: Sequence[Run], count: int, seed: int) -> Iterator[Floats]:
    """The randomisation's signs for the subjects of the runs' folds."""
    sizes = {run.fold: len(run.draws.subjects) for run in runs}
    return randomisation.signs(list(sizes.values()), list(sizes), count, seed)


def second_p(
    a: Sequence[Run], b: Sequence[Run], task: Task, stratum: Stratum, count: int, seed: int
) -> dict[str, float | None]:
    """p of the second metric (average precision, kappa) by label and MACRO: computed anew for every throw."""
    if not a:
        return dict.fromkeys((*task.labels, MACRO))
    offset, total = _offsets(a)
    blocks: dict[str, list[Floats]] = {label: [] for label in (task.labels if task.kind != "multiclass" else (MACRO,))}
    pools = [_pool(one, two, task, stratum) for one, two in zip(a, b, strict=True)]
    for sign in chain([np.ones((1, total))], throws(a, count, seed)):
        by_run: dict[str, list[Floats]] = {label: [] for label in blocks}
        for run, (at, scores, truth) in zip(a, pools, strict=True):
            start, size = offset[run.fold], len(run.draws.subjects)
            pair = randomisation.swapped(run.draws.subjects, sign[:, start : start + size])
            for i, label in enumerate(blocks):
                first, second = (_second(scores, truth, i, at, draws, task) for draws in pair)
                by_run[label].append(first - second)
        for label, values in by_run.items():
            blocks[label].append(average_runs(np.array(values)))
    null = {label: np.concatenate(each) for label, each in blocks.items()}
    if task.kind == "multilabel":
        null[MACRO] = average_labels(np.array(list(null.values())))
    return {label: randomisation.null_p(values) for label, values in null.items()}


def _pool(a: Run, b: Run, task: Task, stratum: Stratum) -> tuple[Ints, Floats, Ints]:
    """(at, scores, truth) of both models' 2n predictions, on one scale."""
    keep, size = a.inside[stratum], len(a.draws.subjects)
    both = [run.scores[keep] for run in (a, b)]
    if task.kind != "multiclass" and keep.any():
        both = [randomisation.ranks(each) for each in both]
    at = np.concatenate([a.at[keep], a.at[keep] + size])
    return at, np.concatenate(both), np.concatenate([a.truth[keep], a.truth[keep]])


def _second(scores: Floats, truth: Ints, i: int, at: Ints, draws: SubjectDraws, task: Task) -> Floats:
    if task.kind == "multiclass":
        return kappa(confusion(scores.argmax(axis=1), truth[:, 0], len(task.outputs), at, draws))
    return rank_metrics(scores[:, i], truth[:, i].astype(bool), at, draws)[1]
