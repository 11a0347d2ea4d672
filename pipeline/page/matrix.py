"""The first thing on the page: tasks by cohorts, a verdict and its interval in each cell, or why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline.evaluation.reading import read_table
from pipeline.params import Verdicts
from pipeline.presentation.answers import Chip
from pipeline.presentation.tables import METRIC_TITLES, short_title
from pipeline.questions.when import tables as texts
from pipeline.questions.when.contest import SCHEMA
from pipeline.questions.when.tables import OWN

COHORTS = ("base", "matched")
TARGETS = {"phenotype": "figure-when_phenotypes"}


class Entry(NamedTuple):
    """A cell: its verdict, linked to what it rests on, and its numbers; no chip where `text` says why it is empty."""

    chip: Chip | None
    text: str
    target: str = ""


class Row(NamedTuple):
    """A task and a cell a cohort."""

    title: str
    cells: tuple[Entry, ...]


class Matrix(NamedTuple):
    """The verdicts at a glance."""

    cohorts: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str


def matrix(tables: Path, tasks: tuple[str, ...], trained: tuple[str, ...], rule: Verdicts) -> Matrix:
    """Every task of the grid by both cohorts; `trained` are the scale's. Raises InputError without gain.csv."""
    table = read_table(tables / "gain.csv", SCHEMA)
    family = texts.confirmatory(table).filter(pl.col("label").is_in(OWN))
    by = {(row["task"], row["cohort"]): row for row in family.iter_rows(named=True)}
    rows = []
    for task in tasks:
        cells = tuple(_entry(by.get((task, cohort)), task, cohort in trained, rule) for cohort in COHORTS)
        rows.append(Row(short_title(task), cells))
    return Matrix(COHORTS, tuple(rows), texts.ADJUSTED)


def _entry(row: dict[str, Any] | None, task: str, trained: bool, rule: Verdicts) -> Entry:
    if row is None:
        why = "no fusion strategy to compare with both single modalities" if trained else "not trained at this scale"
        return Entry(None, f"Empty: {why}")
    chip = texts.chip(row, rule)
    if not isinstance(chip, Chip):
        return Entry(None, f"Empty: {row['note'] or 'no verdict'}")
    cell = texts.told(row)
    text = f"{METRIC_TITLES[row['metric']]} {cell.told}" if cell.value is not None else row["note"] or cell.told
    text += ", unadjusted" if cell.interval and not texts.adjusted(row) else ""
    return Entry(chip, text, TARGETS.get(task, f"figure-when_{task}"))
