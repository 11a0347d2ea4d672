"""The cells of the grid under every removal: their scores as draws, the natural groups, and the EHR-only reference."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.evaluation.cells import kinds_of_run, read_predictions
from pipeline.evaluation.choice import Card, Validation, chosen, read_card, validation
from pipeline.evaluation.reading import read_probe
from pipeline.evaluation.scores import Sampler, headline
from pipeline.params import INPUT_HOURS, Grid, ProbeScale, TrainingScale
from pipeline.questions.robust.removal import (
    Removal,
    Run,
    Scores,
    curve,
    read_masks,
    removals,
    runs_of,
    score_runs,
)
from pipeline.tasks import Task

log = logging.getLogger(__name__)

GROUPS = ("base", "matched", "no image", "not_taken", "not_collectable")


@dataclass(frozen=True)
class Cell:
    """A strategy on one task, of one cohort of training and share removed in training: all its scores, as draws."""

    strategy: str
    card: Card
    kind: dict[str, Any]
    validation: Validation
    removed: dict[Removal, Scores]
    natural: dict[str, Scores]
    counts: dict[str, tuple[int, int | None]]
    runs: int


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
        card = read_card(data, strategy)
        predictions = read_predictions(data, task, strategy, training, people).join(status, on="stay_id", how="left")
        answers = read_probe(data, strategy, "removal").filter(task=task.name)
        path = str(data / "probes" / strategy / "removal.parquet")
        for kind, of_kind in kinds_of_run(predictions):
            runs = runs_of(of_kind, answers, masks, task, sampler, path)
            yield Cell(
                strategy=strategy,
                card=card,
                kind=kind,
                validation=validation(of_kind, task)[headline(task)],
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
    """The EHR-only strategy that validation chooses, nothing removed in training."""
    alone = {
        cell.strategy: cell
        for cell in cells
        if cell.card.modalities == {"ehr"} and cell.kind["train_cohort"] == cohort and not cell.kind["train_missing"]
    }
    best = chosen({name: cell.validation for name, cell in alone.items()}, alone)
    return None if best is None else alone[best]
