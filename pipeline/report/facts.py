"""What stages count (reports/data/STAGE.json, of any shape) as plain tables for the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

NUMBER = re.compile(r"-?[\d,]+(\.\d+)?(e[+-]\d+)?|—")
MOST_ROWS = 60  # of a table; what is more stays in the JSON beside the page


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
        return tuple(all(NUMBER.fullmatch(cell) for cell in column) for column in columns)


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


def _plain(content: Any) -> bool:
    return not isinstance(content, dict | list) or (
        isinstance(content, list) and not any(isinstance(item, dict | list) for item in content)
    )


def _cut(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Block:
    shown = tuple(tuple(row) for row in rows[:MOST_ROWS])
    return Block(title, tuple(header), shown, max(0, len(rows) - MOST_ROWS))


def _grid(title: str, corner: str, named: Sequence[tuple[str, dict[str, Any]]]) -> Block:
    columns = list(dict.fromkeys(key for _, row in named for key in row))
    header = [*([corner] if corner else []), *(words(column) for column in columns)]
    rows = [[*([name] if corner else []), *(value(row.get(column)) for column in columns)] for name, row in named]
    return _cut(title, header, rows)


def blocks(content: Any, title: str = "") -> list[Block]:
    """Tables for a JSON document: scalars as key and value, rows of equal shape as one table, the rest one by one."""
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        if all(_plain(cell) for row in content for cell in row.values()):
            return [_grid(title, "", [("", row) for row in content])]
        return [block for i, row in enumerate(content, 1) for block in blocks(row, f"{title} {i}".strip())]
    if not isinstance(content, dict):
        return [_cut(title, ("value",), [(value(content) if _plain(content) else str(content),)])]
    found = []
    plain = [(words(key), value(each)) for key, each in content.items() if _plain(each)]
    if plain:
        found.append(_cut(title, ("what", "value"), plain))
    nested = {key: each for key, each in content.items() if not _plain(each)}
    flat = [each for each in nested.values() if isinstance(each, dict) and all(_plain(cell) for cell in each.values())]
    if len(nested) > 1 and len(flat) == len(nested) and len({tuple(each) for each in flat}) == 1:
        return [*found, _grid(title, "what", [(words(key), each) for key, each in nested.items()])]
    for key, each in nested.items():
        found += blocks(each, f"{title}: {words(key)}" if title else words(key))
    return found
