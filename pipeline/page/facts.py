"""What stages count (reports/data/STAGE.json, of any shape) as plain tables for the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.disclosure import HIDDEN, SMALL

NUMBER = re.compile(rf"-?[\d,]+(\.\d+)?(e[+-]\d+)?|—|none|yes|no|{SMALL}|{HIDDEN}")
WHAT = "what"
FIRST = (
    "step",
    "fold",
    "part",
    "icd version",
    "stays",
    "subjects",
    "has cxr",
)  # columns that lead a table, whatever order their file has
WIDE = 9  # columns from which a table lies down
MOST_ROWS = 100  # of a table; what is more stays in the JSON beside the page


class Block(NamedTuple):
    """A table: title, header and rows of text; `more` rows are left out."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers alone."""
        columns = zip(*self.rows, strict=True) if self.rows else [("",)] * len(self.header)
        return tuple(
            head != WHAT and all(NUMBER.fullmatch(cell) for cell in column)
            for head, column in zip(self.header, columns, strict=True)
        )


def words(key: object) -> str:
    """A key for people: rows_read -> rows read."""
    return str(key).replace("_", " ")


def value(content: Any) -> str:
    """A scalar, or a list of scalars, for people."""
    if content is None:
        return "—"
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, int):
        return f"{content:,}"
    if isinstance(content, float):
        return f"{content:,.4g}" if abs(content) < 1e4 else f"{content:,.0f}"
    if isinstance(content, list):
        return ", ".join(value(item) for item in content) if content else "none"
    return str(content)


def _is_text(cell: Any) -> bool:
    """Whether a cell is text, and no word that stands for a count."""
    return isinstance(cell, str) and cell not in (SMALL, HIDDEN)


def _plain(content: Any) -> bool:
    """Fits in a cell: a scalar, a list of scalars, anything empty."""
    if isinstance(content, list):
        return not any(isinstance(item, dict | list) for item in content)
    return not isinstance(content, dict) or not content


def _flat(row: dict[str, Any]) -> dict[str, Any] | None:
    """The row with nested mappings as `outer: inner`; None where a cell is a table of its own."""
    found: dict[str, Any] = {}
    for key, cell in row.items():
        if isinstance(cell, dict) and cell:
            inner = _flat(cell)
            if inner is None:
                return None
            found |= {f"{words(key)}: {name}": each for name, each in inner.items()}
        elif isinstance(cell, dict):
            continue
        elif _plain(cell):
            found[words(key)] = cell
        else:
            return None
    return found


def _cut(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Block:
    shown = tuple(tuple(row) for row in rows[:MOST_ROWS])
    return Block(title, tuple(header), shown, max(0, len(rows) - MOST_ROWS))


def _grid(title: str, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> Block:
    """A row each, columns with text and known keys first; lying down where it would be too wide."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    first = {name: place for place, name in enumerate(FIRST)}
    columns.sort(key=lambda name: (first.get(name, len(first)), not any(_is_text(row.get(name)) for row in rows)))
    named = any(names)
    if len(columns) > WIDE and len(columns) > len(rows):
        header = [WHAT, *(names if named else map(str, range(1, len(rows) + 1)))]
        return _cut(title, header, [[column, *(value(row.get(column)) for row in rows)] for column in columns])
    body = [
        [*([name] if named else []), *(value(row.get(column)) for column in columns)]
        for name, row in zip(names, rows, strict=True)
    ]
    return _cut(title, [*([WHAT] if named else []), *columns], body)


def _alike(rows: Sequence[dict[str, Any] | None]) -> bool:
    """Whether rows are one table: two columns in all of them, or one and half of the cells filled."""
    known = [row for row in rows if row is not None]
    shared = set.intersection(*map(set, known)) if known else set()
    if len(known) < max(2, len(rows)) or not shared:
        return False
    return len(shared) > 1 or sum(map(len, known)) >= 0.5 * len(rows) * len({key for row in known for key in row})


def blocks(content: Any, title: str = "") -> list[Block]:
    """Tables for a JSON document: scalars as key and value, rows of like shape as one table, the rest one by one."""
    if _plain(content):
        return [_cut(title, ("value",), [(value(content or None) if isinstance(content, dict) else value(content),)])]
    if isinstance(content, list):
        rows = [_flat(row) if isinstance(row, dict) else None for row in content]
        if None not in rows:
            return [_grid(title, [""] * len(rows), [row for row in rows if row is not None])]
        return [block for i, row in enumerate(content, 1) for block in blocks(row, f"{title} {i}".strip())]
    found = []
    plain = [(words(key), value(each if each != {} else [])) for key, each in content.items() if _plain(each)]
    if plain:
        found.append(_cut(title, (WHAT, "value"), plain))
    nested = {key: each for key, each in content.items() if not _plain(each)}
    rows = [_flat(each) if isinstance(each, dict) else None for each in nested.values()]
    if _alike(rows):
        return [*found, _grid(title, [words(key) for key in nested], [row for row in rows if row is not None])]
    for key, each in nested.items():
        found += blocks(each, f"{title}: {words(key)}" if title else words(key))
    return found


def besides(counts: Any) -> Any:
    """What ingest.json has of a raw table besides what `rows_read` shows; of other entries all."""
    if not isinstance(counts, dict) or "rows_read" not in counts:
        return counts
    return {key: each for key, each in counts.items() if key not in ("rows_read", "kept", "dropped") and each != {}}


def rows_read(counts: Any) -> list[dict[str, Any]]:
    """Of ingest.json, a row a raw table: how many rows were read and kept, and why the others were not."""
    found = []
    for name, each in (counts or {}).items():
        if isinstance(each, dict) and "rows_read" in each:
            why = ", ".join(f"{words(reason)} {value(n)}" for reason, n in (each.get("dropped") or {}).items())
            found.append({"name": words(name), "read": each["rows_read"], "kept": each.get("kept"), "why": why})
    return found
