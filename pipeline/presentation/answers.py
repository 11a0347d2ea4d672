"""What the page shows for one of the four questions: a sentence, the figure that leads, tables, other figures.

Each room of pipeline/questions has a section whose `answer` reads the tables that a stage wrote, and nothing else; the
page lays them out. Numbers are formatted by pipeline.presentation.text and tables.Cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.presentation.tables import Cell


class Chip(NamedTuple):
    """A verdict in few words; the sign before it, and `tone` (up, down, even, open), say at a glance which way."""

    text: str
    sign: str
    tone: str


class Link(NamedTuple):
    """A cell that leads on: `target` is the id of a row, table, figure or card of the page."""

    text: str
    target: str


Value = str | int | Cell | Chip | Link | None  # of a table's cell; None is shown as "n. e."


@dataclass(frozen=True)
class AnswerFigure:
    """A figure: `svg` as pipeline.presentation.figures draws it, `source` the table that it shows (below reports/)."""

    name: str
    svg: str
    caption: str
    source: str


@dataclass(frozen=True)
class AnswerTable:
    """A table: the first column is the row's name; a Cell is an estimate with its interval.

    `folded`: closed until the reader opens it, and not printed while it is. `anchors`: an id a row, for links to it.
    """

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    source: str
    stage: str
    folded: bool = True
    anchors: tuple[str, ...] = ()

    @property
    def shown(self) -> AnswerTable:
        """Without the columns that are blank in every row, as notes are where there is nothing to note."""
        if not self.rows:
            return self
        columns = enumerate(zip(*self.rows, strict=True))
        kept = [place for place, column in columns if any(cell != "" for cell in column)]
        header = tuple(self.header[place] for place in kept)
        return replace(self, header=header, rows=tuple(tuple(row[place] for place in kept) for row in self.rows))

    @property
    def bounded(self) -> tuple[bool, ...]:
        """Which columns hold an interval: in those that hold none at all, its absence is nothing to tell."""
        return tuple(
            any(isinstance(cell, Cell) and cell.interval for cell in column) for column in zip(*self.rows, strict=True)
        )

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers and Cells alone."""
        return tuple(
            place > 0 and all(cell is None or isinstance(cell, int | Cell) for cell in column)
            for place, column in enumerate(zip(*self.rows, strict=True) if self.rows else self.header)
        )


@dataclass(frozen=True)
class Answer:
    """`key` is the section's anchor; `sentence` holds every number with its interval; the first figure leads.

    `brief` is the answer on the first screen, in two sentences: what the answer's own test says, then how it stands;
    empty where it is none of the four. `verdicts` is a table that leads even before the sentence. `notes` are what a
    reader must know before the tables: what is exploratory, what is too small to tell.
    """

    key: str
    question: str
    sentence: str
    notes: tuple[str, ...]
    figures: tuple[AnswerFigure, ...]
    tables: tuple[AnswerTable, ...]
    verdicts: AnswerTable | None = None
    brief: str = ""
