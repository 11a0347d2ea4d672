"""The figures of the fairness section, from the stage's tables: groups, gaps, what fusion changes, and group sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.disclosure import FEW, HIDDEN
from pipeline.presentation.figures import MARKERS, MUTED, PALETTE, WIDTH, as_svg, canvas, legend_below
from pipeline.presentation.findings import by_series, extremes, sides
from pipeline.presentation.tables import Cell
from pipeline.presentation.text import number, plural
from pipeline.questions.fair.text import ATTRIBUTE_TITLES

Point = tuple[float, float | None, float | None]  # an estimate and its bounds


def _points(axes: Axes, places: Sequence[float], points: Sequence[Point], look: int, label: str) -> None:
    """Estimates with their intervals at the given heights."""
    if not points:
        return
    values = np.array([value for value, _, _ in points])
    low = np.array([value if bound is None else bound for value, bound, _ in points])
    high = np.array([value if bound is None else bound for value, _, bound in points])
    axes.errorbar(
        values,
        places,
        xerr=np.maximum(0.0, np.array([values - low, high - values])),  # a shifted interval may miss the estimate
        fmt=MARKERS[look % len(MARKERS)],
        color=PALETTE[look % len(PALETTE)],
        markersize=4.5,
        elinewidth=1.3,
        label=label,
    )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def groups(rows: pl.DataFrame, strategies: Sequence[str], metric: str, label: str, name: str, title: str) -> str:
    """A metric with its interval in every group that is large enough, for one or two strategies.

    `rows` are rows of fairness_groups.csv of one task, label and cohort, single attributes.
    """
    shown = rows.filter(pl.col("strategy").is_in(strategies) & pl.col(metric).is_not_null())
    heads = shown.select("attribute", "group").unique(maintain_order=True).rows()
    with canvas(WIDTH, 1.3 + 0.3 * len(heads)) as (figure, (axes,)):
        for i, strategy in enumerate(strategies):
            of = {
                (row["attribute"], row["group"]): row for row in shown.filter(strategy=strategy).iter_rows(named=True)
            }
            there = [(place, of[head]) for place, head in enumerate(heads) if head in of]
            points = [(row[metric], row[f"{metric}_low"], row[f"{metric}_high"]) for _, row in there]
            offset = (i - (len(strategies) - 1) / 2) * 0.28
            _points(axes, [place + offset for place, _ in there], points, i, strategy)
        _rows(axes, [f"{ATTRIBUTE_TITLES.get(attribute, attribute)}: {group}" for attribute, group in heads])
        for place in range(1, len(heads)):
            if heads[place][0] != heads[place - 1][0]:
                axes.axhline(place - 0.5, color=MUTED, linewidth=0.5)
        axes.set_xlabel(label)
        legend_below(figure, axes)
        told = {
            strategy: extremes(
                {
                    f"{ATTRIBUTE_TITLES.get(row['attribute'], row['attribute'])} {row['group']}": row[metric]
                    for row in shown.filter(strategy=strategy).iter_rows(named=True)
                }
            )
            for strategy in strategies
        }
        return as_svg(figure, name, title, by_series(told))


def gaps(rows: pl.DataFrame, name: str, title: str) -> str:
    """AUROC gap by attribute with its interval, and what shuffled groups give; `rows` of fairness_gaps.csv."""
    shown = rows.drop_nulls("gap").to_dicts()
    with canvas(WIDTH, 1.5 + 0.34 * len(shown)) as (figure, (axes,)):
        points = [(row["gap"], row["low"], row["high"]) for row in shown]
        _points(axes, range(len(shown)), points, 0, "gap")
        null = [(place, row["null_mean"]) for place, row in enumerate(shown) if row["null_mean"] is not None]
        if null:
            axes.plot(
                [value for _, value in null],
                [place for place, _ in null],
                linestyle="none",
                marker="|",
                markersize=13,
                markeredgewidth=2,
                color=PALETTE[1],
                label="mean with shuffled groups",
            )
        _rows(axes, [ATTRIBUTE_TITLES[row["attribute"]] for row in shown])
        axes.set_xlim(left=0)
        axes.set_xlabel("Highest less lowest AUROC of a group")
        legend_below(figure, axes)
        widest = max(shown, key=lambda row: row["gap"], default=None)
        told = "No gap is estimable"
        if widest is not None:
            chance = "" if widest["null_mean"] is None else f" where chance gives {number(widest['null_mean'])}"
            told = f"The widest gap is by {ATTRIBUTE_TITLES[widest['attribute']]}, {number(widest['gap'])}{chance}"
        return as_svg(figure, name, title, told)


def changes(rows: pl.DataFrame, label: str, name: str, title: str) -> str:
    """Each fusion strategy's gap less the unimodal one's, by attribute; `rows` of fairness_fusion.csv, one metric."""
    shown = rows.drop_nulls("difference")
    strategies = shown["strategy"].unique(maintain_order=True).to_list()
    attributes = shown["attribute"].unique(maintain_order=True).to_list()
    with canvas(WIDTH, 1.4 + 0.42 * len(strategies)) as (figure, (axes,)):
        axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        for i, attribute in enumerate(attributes):
            of: dict[str, Any] = {
                row["strategy"]: row for row in shown.filter(attribute=attribute).iter_rows(named=True)
            }
            there = [(place, of[strategy]) for place, strategy in enumerate(strategies) if strategy in of]
            offset = (i - (len(attributes) - 1) / 2) * 0.8 / max(1, len(attributes))
            points = [(row["difference"], row["low"], row["high"]) for _, row in there]
            _points(axes, [place + offset for place, _ in there], points, i, ATTRIBUTE_TITLES[attribute])
        _rows(axes, strategies)
        axes.set_xlabel(label)
        legend_below(figure, axes)
        cells = {
            f"{row['strategy']} by {ATTRIBUTE_TITLES[row['attribute']]}": Cell(
                row["difference"], row["low"], row["high"]
            )
            for row in shown.iter_rows(named=True)
        }
        return as_svg(figure, name, title, sides(cells))


def counts(rows: pl.DataFrame, least: int, name: str, title: str) -> str:
    """Positives of every group beside the number that an estimate asks for: why nothing else can be shown.

    `rows` of fairness_groups.csv of one task and cohort, single attributes; a suppressed count has an open mark.
    """
    shown = rows.unique(["attribute", "group"], keep="first", maintain_order=True).to_dicts()
    with canvas(WIDTH, 1.3 + 0.26 * len(shown)) as (figure, (axes,)):
        known = [
            (place, int(row["positives"])) for place, row in enumerate(shown) if (row["positives"] or "").isdigit()
        ]
        hidden = [place for place, row in enumerate(shown) if (row["positives"] or "").startswith("<")]
        axes.axvline(least, color=PALETTE[1], linewidth=1.2, label=f"{least}: the least for an estimate")
        if known:
            axes.scatter(
                [n for _, n in known], [place for place, _ in known], s=26, color=PALETTE[0], label="positives"
            )
        if hidden:
            axes.barh(hidden, FEW, height=0.35, color="none", edgecolor=PALETTE[0], label=f"below {FEW}")
        for place, row in enumerate(shown):
            if row["positives"] == HIDDEN:
                axes.text(0.2, place, HIDDEN, va="center", fontsize=8, color=MUTED)
        _rows(axes, [f"{ATTRIBUTE_TITLES[row['attribute']]}: {row['group']}" for row in shown])
        axes.set_xlim(left=0)
        axes.set_xlabel("Test stays with the label")
        legend_below(figure, axes)
        enough = sum(n >= least for _, n in known)
        return as_svg(
            figure, name, title, f"{enough} of {plural(len(shown), 'group')} have the positives that are asked for"
        )
