"""The first thing on the page: tasks by cohorts, a verdict and its interval in each cell, or why there is none.

One click on stands every fusion strategy by task and cohort. Verdicts are of the declared family alone; a strategy's
own chip says on which side of 0 its unadjusted interval lies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline.estimation.verdicts import (
    EQUIVALENT,
    GAINS,
    LOSES,
    NO_RELEVANT_GAIN,
    NO_RELEVANT_LOSS,
    NOT_TESTABLE,
    UNDETERMINED,
)
from pipeline.evaluation.reading import read_table
from pipeline.params import Verdicts
from pipeline.presentation.answers import Chip
from pipeline.presentation.tables import METRIC_TITLES, short_title
from pipeline.questions.when import tables as texts
from pipeline.questions.when.contest import SCHEMA
from pipeline.questions.when.section import anchor
from pipeline.questions.when.section_tables import FIRST
from pipeline.questions.when.tables import OWN

COHORTS = ("base", "matched")
MEANINGS = {  # for who has not read the rule
    GAINS: "fusion scores higher than the record alone and than the image alone, by more than chance",
    LOSES: "fusion scores lower than the record alone or than the image alone, by more than chance",
    EQUIVALENT: "fusion and the better of the two differ by less than matters",
    NO_RELEVANT_GAIN: "a gain large enough to matter is ruled out",
    NO_RELEVANT_LOSS: "a loss large enough to matter is ruled out",
    UNDETERMINED: "these data leave open whether fusion gains or loses",
    NOT_TESTABLE: "fewer than {} test stays with the rarer outcome, or a single run",
}
HIGHER, LOWER = Chip("higher", "▲", "even"), Chip("lower", "▼", "even")
NOT_APART, NO_INTERVAL = Chip("not told apart", "?", "open"), Chip("no interval", "–", "open")


class Entry(NamedTuple):
    """A cell: its verdict, linked to the row that it rests on, and its numbers; no chip where `text` says why."""

    chip: Chip | None
    text: str
    target: str = ""


class Row(NamedTuple):
    """A task, or a strategy, and its cells; `task` is empty for a strategy."""

    title: str
    cells: tuple[Entry, ...]
    task: str = ""


class Matrix(NamedTuple):
    """The verdicts at a glance, what their words mean, and every fusion strategy by (task, cohort): `heads`."""

    cohorts: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str
    words: tuple[tuple[str, str], ...]
    heads: tuple[tuple[str, str], ...]
    strategies: tuple[Row, ...]


def matrix(tables: Path, tasks: tuple[str, ...], trained: tuple[str, ...], rule: Verdicts) -> Matrix:
    """Every task of the grid by both cohorts; `trained` are the scale's. Raises InputError without gain.csv."""
    table = read_table(tables / "gain.csv", SCHEMA)
    family = texts.confirmatory(table).filter(pl.col("label").is_in(OWN))
    by = {(row["task"], row["cohort"]): row for row in family.iter_rows(named=True)}
    rows = []
    for task in tasks:
        cells = tuple(_entry(by.get((task, cohort)), cohort in trained, rule) for cohort in COHORTS)
        rows.append(Row(short_title(task), cells, task))
    heads = tuple((task, cohort) for task in tasks for cohort in COHORTS if cohort in trained)
    said = {row["verdict"] for (task, cohort), row in by.items() if task in tasks and cohort in COHORTS}
    words = tuple((word, of.format(rule.least_positives)) for word, of in MEANINGS.items() if word in said)
    return Matrix(COHORTS, tuple(rows), texts.ADJUSTED, words, heads, _strategies(table, heads))


def _entry(row: dict[str, Any] | None, trained: bool, rule: Verdicts) -> Entry:
    if row is None:
        why = "no fusion strategy to compare with both single modalities" if trained else "not trained at this scale"
        return Entry(None, f"Empty: {why}")
    chip = texts.chip(row, rule)
    if not isinstance(chip, Chip):
        return Entry(None, f"Empty: {row['note'] or 'no verdict'}")
    text = f"{METRIC_TITLES[row['metric']]} {texts.told_text(row)}"
    return Entry(chip, row["note"] or text if row["difference"] is None else text, anchor(row))


def _strategies(table: pl.DataFrame, heads: tuple[tuple[str, str], ...]) -> tuple[Row, ...]:
    """A row a fusion strategy: its own difference to the better single modality in each of `heads`."""
    every = table.filter(~pl.col("chosen") & pl.col("label").is_in(OWN) & pl.col("metric").is_in(FIRST), stratum="all")
    found = []
    for name in every["strategy"].unique(maintain_order=True):
        own = {(row["task"], row["cohort"]): row for row in every.filter(strategy=name).iter_rows(named=True)}
        found.append(Row(name, tuple(_own(own.get(head), name) for head in heads)))
    return tuple(found)


def _own(row: dict[str, Any] | None, name: str) -> Entry:
    if row is None:
        return Entry(None, "Empty: not compared")
    cell = texts.difference(row)
    chip = NOT_APART
    if cell.low is None or cell.high is None:
        chip = NO_INTERVAL
    elif cell.low > 0 or cell.high < 0:
        chip = HIGHER if cell.low > 0 else LOWER
    return Entry(chip, f"{METRIC_TITLES[row['metric']]} {cell.told}", f"every-{name}")
