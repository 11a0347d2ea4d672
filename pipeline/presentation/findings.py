"""What a figure shows, in words: the finding that its description tells who does not see it."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.presentation.tables import Cell
from pipeline.presentation.text import UNKNOWN, joined, number


def extremes(values: Mapping[str, float | None], digits: int = 3) -> str:
    """highest: gbm 0.812, lowest: resnet 0.496; not estimable where there is no value."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return UNKNOWN
    top, bottom = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
    told = f"highest: {top} {number(known[top], digits)}"
    return told if len(known) == 1 else f"{told}, lowest: {bottom} {number(known[bottom], digits)}"


def sides(cells: Mapping[str, Cell | None]) -> str:
    """above 0: medfuse; below 0: climd and mind; 5 of 8 intervals hold 0. Without any interval, `extremes`."""
    known = {name: cell for name, cell in cells.items() if cell is not None}
    bounds = {name: (cell.low, cell.high) for name, cell in known.items()}
    above = [name for name, (low, _) in bounds.items() if low is not None and low > 0]
    below = [name for name, (_, high) in bounds.items() if high is not None and high < 0]
    told = [f"{side} 0: {joined(names)}" for side, names in (("above", above), ("below", below)) if names]
    given = [name for name, (low, high) in bounds.items() if low is not None and high is not None]
    if not given:
        return extremes({name: cell.value for name, cell in known.items()})
    return "; ".join([*told, f"{len(given) - len(above) - len(below)} of {len(given)} intervals hold 0"])


def by_series(told: Mapping[str, str]) -> str:
    """base cohort: …. matched cohort: …."""
    return ". ".join(f"{name}: {text}" for name, text in told.items())
