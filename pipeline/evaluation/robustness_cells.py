"""The cells of the grid under every removal: their scores as draws, the natural groups, and the EHR-only reference."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.errors import InputError
from pipeline.evaluation.bootstrap import SubjectDraws
from pipeline.evaluation.cells import cell_folder, read_predictions
from pipeline.evaluation.evaluate import kinds_of_run
from pipeline.evaluation.metrics import accuracy, confusion, rank_metrics
from pipeline.evaluation.removal import (
    Removal,
    Run,
    Scores,
    curve,
    read_masks,
    read_probe,
    removals,
    runs_of,
    score_runs,
)
from pipeline.evaluation.scores import Sampler, in_cohort
from pipeline.params import INPUT_HOURS, Grid, ProbeScale, TrainingScale
from pipeline.tasks import Task

log = logging.getLogger(__name__)

GROUPS = ("base", "matched", "no image", "not_taken", "not_collectable")


@dataclass(frozen=True)
class Card:
    """What a strategy looks at, and whether it has a mechanism of its own for absent images."""

    modalities: frozenset[str]
    missing: str

    @property
    def fusion(self) -> bool:
        """Record and pixels."""
        return {"ehr", "cxr"} <= self.modalities


def read_card(data: Path, task: str, strategy: str) -> Card:
    """From the train cell. Raises InputError where it is absent."""
    path = cell_folder(data, task, strategy) / "card.json"
    if not path.is_file():
        raise InputError(f"{path}: not found; the stage that writes it has not run for these params")
    card = json.loads(path.read_text(encoding="utf-8"))
    return Card(frozenset(card["modalities"]), card["missing"])


@dataclass(frozen=True)
class Cell:
    """A strategy on one task, of one cohort of training and share removed in training: all its scores, as draws."""

    strategy: str
    card: Card
    kind: dict[str, Any]
    validation: float
    removed: dict[Removal, Scores]
    natural: dict[str, Scores]
    counts: dict[str, tuple[int, int | None]]
    runs: int


def validation_score(predictions: pl.DataFrame, task: Task) -> float:
    """The first metric on validation, in the cohort of training, averaged over runs; −inf where it is not estimable."""
    rows = predictions.filter((pl.col("part") == "val") & in_cohort(predictions["train_cohort"][0]))
    found = []
    for _, run in rows.group_by("fold", "seed", maintain_order=True):
        p = run.select(f"p_{name}" for name in task.outputs).to_numpy()
        truth = run.select(pl.col(task.labels).cast(pl.Int64)).to_numpy()
        at = np.arange(len(p))
        once = SubjectDraws(at, (np.ones((len(p), 1)),))
        if task.kind == "multiclass":
            values = [accuracy(confusion(p.argmax(axis=1), truth[:, 0], p.shape[1], at, once))[0]]
        else:
            values = [rank_metrics(p[:, i], truth[:, i] > 0, at, once)[0][0] for i in range(truth.shape[1])]
        known = [value for value in values if not np.isnan(value)]
        found += [float(np.mean(known))] if known else []
    return float(np.mean(found)) if found else -np.inf


def read_cells(
    data: Path,
    task: Task,
    grid: Grid,
    training: TrainingScale,
    probe: ProbeScale,
    people: pl.DataFrame,
    status: pl.DataFrame,
    sampler: Sampler,
) -> Iterator[Cell]:
    """The cells of a task, scored. Raises InputError for what is missing, naming it."""
    masks, asked = read_masks(data), removals(probe, INPUT_HOURS)
    for strategy in grid.strategies:
        log.info("%s %s", strategy, task.name)
        card = read_card(data, task.name, strategy)
        predictions = read_predictions(data, task, strategy, training, people).join(status, on="stay_id", how="left")
        answers = read_probe(data, strategy).filter(task=task.name)
        path = str(data / "probes" / strategy / "removal.parquet")
        for kind, of_kind in kinds_of_run(predictions):
            runs = runs_of(of_kind, answers, masks, task, sampler, path)
            yield Cell(
                strategy=strategy,
                card=card,
                kind=kind,
                validation=validation_score(of_kind, task),
                removed=curve(runs, task, asked),
                natural={group: score_runs(runs, task, group) for group in GROUPS},
                counts={group: _counts(runs, task, group) for group in GROUPS},
                runs=len(runs),
            )


def _counts(runs: list[Run], task: Task, group: str) -> tuple[int, int | None]:
    """Stays of a group, and positives (of several labels, their sum; None of classes); each is in test in one fold."""
    once = [run for run in runs if run.seed == runs[0].seed]
    stays = sum(int(run.groups[group].sum()) for run in once)
    if task.kind == "multiclass":
        return stays, None
    return stays, sum(int(run.truth[run.groups[group]].sum()) for run in once)


def reference_of(cells: Iterable[Cell], cohort: str) -> Cell | None:
    """The EHR-only strategy with the best validation score, the first of equals, nothing removed in training."""
    alone = [
        cell
        for cell in cells
        if cell.card.modalities == {"ehr"} and cell.kind["train_cohort"] == cohort and not cell.kind["train_missing"]
    ]
    return max(alone, key=lambda cell: cell.validation, default=None)
