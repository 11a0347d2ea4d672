"""Figures of differences, in the style of presentation.figures: forests with a margin, and planted against found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from pipeline.presentation.figures import DOTTED, MARKERS, MUTED, PALETTE, RULE, WIDTH, as_svg, canvas, legend_below
from pipeline.presentation.findings import by_series, extremes, sides
from pipeline.presentation.tables import Cell
from pipeline.presentation.text import plural

SPREAD = 0.5  # of a row's height, over which its series lie


class Row(NamedTuple):
    """A row of a forest: its name, and a cell a series (None: not there)."""

    name: str
    cells: tuple[Cell | None, ...]


class Point(NamedTuple):
    """A label of the scatter: what could be gained, and what was, with its interval."""

    group: str
    attainable: float
    found: Cell


def _bars(axes: Axes, series: int, name: str, points: Sequence[tuple[float, Cell]]) -> None:
    """One series: dots and intervals of (place, cell)."""
    color, marker = PALETTE[series % len(PALETTE)], MARKERS[series % len(MARKERS)]
    known = [(place, cell.value, cell) for place, cell in points if cell.value is not None]
    for place, _, cell in known:
        if cell.low is not None and cell.high is not None:
            axes.plot([cell.low, cell.high], [place, place], color=color, linewidth=1.4, solid_capstyle="butt")
    axes.plot(
        [value for _, value, _ in known],
        [place for place, _, _ in known],
        linestyle="none",
        marker=marker,
        markersize=4.5,
        color=color,
        label=name,
    )


def _margin(axes: Axes, margin: float) -> None:
    """0, and between dotted edges what is too small to matter."""
    axes.axvspan(-margin, margin, color=RULE, linewidth=0, alpha=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for edge in (-margin, margin) if margin else ():
        axes.axvline(edge, color=MUTED, linewidth=0.6, linestyle=DOTTED)


def forest(
    rows: Sequence[Row], series: Sequence[str], axis: str, name: str, title: str, margin: float | None = None
) -> str:
    """Values with intervals, a row a name, a colour and marker a series; names stand above their row.

    With a margin they are differences: a line at 0, and a band of what is too small to matter.
    """
    with canvas(WIDTH, 1.3 + 0.36 * max(1, len(rows))) as (figure, (axes,)):
        if margin is not None:
            _margin(axes, margin)
        for i, label in enumerate(series):
            shift = SPREAD * (i / (len(series) - 1) - 0.5) if len(series) > 1 else 0.0
            points = [(place + 0.12 + shift * 0.6, row.cells[i]) for place, row in enumerate(rows)]
            _bars(axes, i, label, [(place, cell) for place, cell in points if cell is not None])
        for place, row in enumerate(rows):
            axes.text(0, place - 0.26, row.name, transform=axes.get_yaxis_transform(), fontsize=7.5)
        if not rows:
            axes.text(0.5, 0.5, "not estimable", ha="center", color=MUTED, transform=axes.transAxes)
        axes.set_yticks(range(len(rows)), [""] * len(rows))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(max(1, len(rows)) - 0.4, -0.7)
        axes.set_xlabel(axis)
        legend_below(figure, axes)
        of = {label: {row.name: row.cells[i] for row in rows} for i, label in enumerate(series)}
        told = {label: _told(cells, margin is not None) for label, cells in of.items()}
        return as_svg(figure, name, title, by_series(told))


def _told(cells: Mapping[str, Cell | None], differences: bool) -> str:
    return sides(cells) if differences else extremes({name: cell.value for name, cell in cells.items() if cell})


class Block(NamedTuple):
    """A block of a caterpillar: its name, a cell a strategy and whether it is the one chosen, and a target."""

    name: str
    cells: tuple[tuple[Cell, bool], ...]
    target: float | None


def caterpillar(blocks: Sequence[Block], axis: str, target: str, name: str, title: str, margin: float) -> str:
    """Intervals of all strategies of each block, the smallest first, the chosen one in another colour."""
    lines = sum(len(block.cells) for block in blocks)
    with canvas(WIDTH, 1.3 + 0.34 * len(blocks) + 0.055 * lines) as (figure, (axes,)):
        _margin(axes, margin)
        top, step = 0.0, 0.055 / 0.34  # a block's name takes one unit
        for block in blocks:
            axes.text(0, top + 0.45, block.name, transform=axes.get_yaxis_transform(), fontsize=7.5)
            known = sorted((cell.value, cell, own) for cell, own in block.cells if cell.value is not None)
            places = [top + 1 + step * i for i in range(len(known))]
            for place, (_, cell, own) in zip(places, known, strict=True):
                if cell.low is not None and cell.high is not None:
                    axes.plot([cell.low, cell.high], [place] * 2, color=PALETTE[own], linewidth=1.6 if own else 0.9)
            for i, label in enumerate(("every fusion strategy", "the one that validation chose")):
                of = [(value, place) for (value, _, own), place in zip(known, places, strict=True) if own == bool(i)]
                dots: dict[str, Any] = {"marker": MARKERS[i], "color": PALETTE[i], "label": "" if top else label}
                axes.plot([value for value, _ in of], [place for _, place in of], ls="none", markersize=3 + i, **dots)
            bottom = top + 1 + step * len(known)
            if block.target is not None:
                ends = [top + 0.8, bottom - 0.1]
                axes.plot([block.target] * 2, ends, color=PALETTE[2], linewidth=2, label="" if top else target)
            top = bottom
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(top, 0)
        axes.set_xlabel(axis)
        legend_below(figure, axes)
        chosen = {block.name: next((cell for cell, own in block.cells if own), None) for block in blocks}
        return as_svg(figure, name, title, f"Of those that validation chose, {sides(chosen)}")


def scatter(points: Sequence[Point], groups: Sequence[str], name: str, title: str) -> str:
    """Found against attainable difference; on the diagonal everything that could be gained was."""
    with canvas(WIDTH, 4.6) as (figure, (axes,)):
        top = max([0.05, *(point.attainable for point in points)])
        axes.plot([0, top], [0, top], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for i, group in enumerate(groups):
            own = [point for point in points if point.group == group]
            color = PALETTE[i % len(PALETTE)]
            for point in own:
                if point.found.low is not None and point.found.high is not None:
                    bounds = [point.found.low, point.found.high]
                    axes.plot([point.attainable] * 2, bounds, color=color, linewidth=1.1)
            axes.plot(
                [point.attainable for point in own if point.found.value is not None],
                [point.found.value for point in own if point.found.value is not None],
                linestyle="none",
                marker=MARKERS[i % len(MARKERS)],
                markersize=5,
                color=color,
                label=group.replace("_", " "),
            )
        axes.set_xlabel("Attainable gain of AUROC")
        axes.set_ylabel("Found difference of AUROC")
        legend_below(figure, axes)
        above = sum(point.found.low is not None and point.found.low > 0 for point in points)
        below = sum(point.found.high is not None and point.found.high < 0 for point in points)
        told = f"Of {plural(len(points), 'label')}, {above} gain for certain and {below} lose, one at a time"
        return as_svg(figure, name, title, told)
