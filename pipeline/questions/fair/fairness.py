"""The stage `fairness`: every cell by subgroup, the gaps between groups, and whether fusion widens or narrows them.

Reads the cells that the grid names, twice: for the choice on validation, then for the scores. Of every cell, the runs
with the least removed are looked at. docs/reading-the-report.md explains the numbers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import files
from pipeline.evaluation.cells import kinds_of_run, read_people, read_predictions
from pipeline.evaluation.choice import Validation, chosen, read_card, validation
from pipeline.evaluation.scores import Sampler, headline
from pipeline.params import Evaluation, Fairness, FairnessScale, Grid, TrainingScale
from pipeline.questions.fair.groups import Found, Side, labels_of, side, strategy
from pipeline.questions.fair.subgroups import ATTRIBUTES, WHOLE
from pipeline.questions.fair.tables import (
    FUSION_SCHEMA,
    GAPS_SCHEMA,
    GROUPS_SCHEMA,
    declare,
    fusion_rows,
    gap_rows,
    group_rows,
)
from pipeline.questions.fair.text import fusion_markdown, gaps_markdown, groups_markdown
from pipeline.tasks import Task, get_task

log = logging.getLogger(__name__)

DIGITS = 4


@dataclass(frozen=True)
class Tables:
    """What the stage found."""

    groups: pl.DataFrame
    gaps: pl.DataFrame
    fusion: pl.DataFrame


def fairness(
    data: Path, grid: Grid, training: TrainingScale, evaluation: Evaluation, knobs: Fairness, size: FairnessScale
) -> Tables:
    """Reads the cells of `grid` under data/runs and data/ensembles, and compares groups.

    Raises InputError as `cells.read_people` and `cells.read_predictions` do.
    """
    tasks = [get_task(name) for name in grid.tasks]
    people = read_people(data, tasks, training.folds, [name for name in ATTRIBUTES.values() if name != "has_cxr"])
    sampler = Sampler(people, size.draws, evaluation.seed)
    names = (WHOLE, *ATTRIBUTES, *knobs.pairs)
    groups: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    fusion: list[dict[str, Any]] = []
    picks: dict[tuple[str, str], str | None] = {}
    for task in tasks:
        labels = labels_of(task, knobs.long_stay_days)
        kinds = {name: read_card(data, name).kind for name in grid.scored}
        scores: dict[str, dict[str, Validation]] = {cohort: {} for cohort in training.cohorts}
        for name in grid.scored:
            for cohort, predictions in _plain(data, task, name, training, people).items():
                scores[cohort][name] = validation(predictions, task)[headline(task)]
        picked: dict[str, dict[str, str | None]] = {
            cohort: {
                kind: chosen(scores[cohort], (name for name in grid.scored if kinds[name] == kind))
                for kind in ("fusion", "unimodal")
            }
            for cohort in training.cohorts
        }
        sides: dict[str, Side] = {
            cohort: side(people, labels, cohort, knobs, names, size.shuffles, evaluation.seed)
            for cohort in training.cohorts
        }
        found: dict[str, dict[str, Found]] = {cohort: {} for cohort in training.cohorts}
        for name in grid.scored:
            log.info("%s %s", name, task.name)
            for cohort, predictions in _plain(data, task, name, training, people).items():
                pick = name in picked[cohort].values()
                found[cohort][name] = strategy(
                    predictions,
                    sides[cohort],
                    sampler,
                    size,
                    knobs.alert_rate,
                    crossed=pick,
                    null=pick or len(labels.names) == 1,
                    studentise=pick,
                    singly=pick,
                )
        for cohort, of in sides.items():
            pair = picked[cohort]
            picks[task.name, cohort] = pair["fusion"]
            groups += group_rows(of, found[cohort], evaluation.confidence)
            gaps += gap_rows(of, found[cohort], kinds, set(pair.values()), evaluation.confidence)
            fusion += fusion_rows(of, found[cohort], kinds, pair["unimodal"], evaluation.confidence)
    declare(gaps, picks, knobs.cohort if knobs.cohort in training.cohorts else training.cohorts[0])
    return Tables(
        pl.DataFrame(groups, schema=GROUPS_SCHEMA, orient="row"),
        pl.DataFrame(gaps, schema=GAPS_SCHEMA, orient="row"),
        pl.DataFrame(fusion, schema=FUSION_SCHEMA, orient="row"),
    )


def _plain(data: Path, task: Task, name: str, training: TrainingScale, people: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """By cohort of training, the cell's runs with the least removed."""
    cell = read_predictions(data, task, name, training, people)
    found: dict[str, pl.DataFrame] = {}
    for kind, predictions in kinds_of_run(cell):
        found.setdefault(kind["train_cohort"], predictions)
    return found


def write(tables: Tables, folder: Path, confidence: float) -> None:
    """Writes fairness_{groups,gaps,fusion}.{csv,md} to `folder`."""
    for name in ("groups", "gaps", "fusion"):
        files.write_csv(getattr(tables, name), folder / f"fairness_{name}.csv", digits=DIGITS)
    files.write_text(groups_markdown(tables.groups, tables.gaps, confidence), folder / "fairness_groups.md")
    files.write_text(gaps_markdown(tables.gaps, confidence), folder / "fairness_gaps.md")
    files.write_text(fusion_markdown(tables.fusion, confidence), folder / "fairness_fusion.md")
