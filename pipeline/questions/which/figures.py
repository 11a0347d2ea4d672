"""The figures of question 2: ranks, score against cost, calibration, decision curves, days missed, scores over trials.

Drawn in the style of pipeline.presentation.figures, from the tables of the stage `compare`; all return SVG.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pipeline.presentation.figures import INK, MUTED, PALETTE, WIDTH, Looks, as_svg, canvas, legend_below, panels
from pipeline.presentation.findings import by_series, extremes
from pipeline.presentation.text import UNKNOWN, joined, number, plural
from pipeline.questions.which.text import REFERENCES, TITLES

DASHED = (0, (3, 3))


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not estimable", ha="center", color=MUTED, transform=axes.transAxes)


def _short(count: float) -> str:
    """2000000 -> 2 M; math text is switched off, so that text stays text."""
    power = max(0, int(np.floor(np.log10(max(count, 1)) / 3)))
    return f"{count / 1000**power:g} {' kMGTP'[min(power, 5)]}".strip()


def rank_figure(rows: pl.DataFrame, name: str, title: str) -> str:
    """Rank, drawn ranks (thick), confidence set (thin) by strategy, of one task, cohort and metric, best first."""
    rows = rows.drop_nulls("rank")
    strategies, places = rows["strategy"].to_list(), np.arange(rows.height)
    with canvas(WIDTH, 1.35 + 0.22 * max(3, rows.height)) as (figure, (axes,)):
        sets = rows.with_row_index("place").drop_nulls("set_low")
        at = sets["place"].to_numpy()
        axes.hlines(at, sets["set_low"], sets["set_high"], color=MUTED, linewidth=1, label="confidence set")
        axes.hlines(
            at, sets["rank_low"], sets["rank_high"], color=PALETTE[0], linewidth=4, label="drawn ranks", alpha=0.85
        )
        axes.plot(rows["rank"], places, "o", color=INK, markersize=4.5, label="rank")
        axes.set_yticks(places, strategies)
        axes.set_ylim(max(2, rows.height - 0.5), -0.5)
        axes.set_xlim(0.5, max(2, rows.height) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("Rank (1 is the best)")
        if not rows.height:
            _nothing(axes)
        legend_below(figure, axes)
        may = rows.filter(pl.col("set_low") == 1).height
        told = (
            f"First: {rows['strategy'][0]}; {may} of {plural(rows.height, 'strategy')} may be"
            if rows.height
            else UNKNOWN
        )
        return as_svg(figure, name, title, told)


def cost_figure(rows: pl.DataFrame, looks: Looks, name: str, title: str) -> str:
    """Score with its interval against FLOPs with an image (log scale), and the frontier, of one task and cohort."""
    metric = TITLES[rows["metric"][0]] if rows.height else ""
    rows = rows.drop_nulls(["value", "flops_with_image"]).filter(pl.col("flops_with_image") > 0)
    with canvas(WIDTH, 4.2) as (figure, (axes,)):
        for row in rows.iter_rows(named=True):
            low, high = (row["value"] if row[end] is None else row[end] for end in ("low", "high"))
            point = looks.point(row["strategy"])
            axes.vlines(row["flops_with_image"], low, high, color=point["color"], linewidth=0.7)
            axes.plot(row["flops_with_image"], row["value"], linestyle="", label=row["strategy"], **point)
        frontier = rows.filter("frontier").sort("flops_with_image")
        axes.step(
            frontier["flops_with_image"], frontier["value"], where="post", color=MUTED, linewidth=0.9, linestyle=DASHED
        )
        if rows.height:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(lambda flops, _: _short(flops))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            _nothing(axes)
        axes.set_xlabel("FLOPs of a forward pass over one stay with an image")
        axes.set_ylabel(metric)
        legend_below(figure, axes)
        best = [f"{row['strategy']} ({number(row['value'])})" for row in frontier.iter_rows(named=True)]
        told = f"No strategy that costs as little scores higher than {joined(best)}"
        return as_svg(figure, name, title, told if frontier.height else UNKNOWN)


def calibration_figure(rows: pl.DataFrame, name: str, title: str) -> str:
    """Reliability curves of one task and cohort, a panel a strategy: as said and at the temperature of validation."""
    strategies = rows["strategy"].unique(maintain_order=True).to_list()
    shown = rows.select("predicted", "observed").max().row(0) if rows.height else (None, None)
    top = min(1.0, max([each for each in shown if each is not None], default=1.0) * 1.08)
    words = {"none": "as said", "temperature": "at the temperature of validation"}
    with panels(strategies, "Mean predicted probability", "Observed share") as (figure, grid):
        for strategy, axes in grid.items():
            axes.plot([0, top], [0, top], color=MUTED, linewidth=0.7, linestyle=DASHED)
            for i, (scaling, word) in enumerate(words.items()):
                curve = rows.filter(strategy=strategy, scaling=scaling)
                look: dict[str, Any] = {"color": PALETTE[i], "marker": "os"[i], "markersize": 2.0, "linewidth": 1.0}
                axes.plot(curve["predicted"], curve["observed"], label=word, **look)
            axes.set_xlim(-0.02 * top, top)
            axes.set_ylim(-0.02 * top, top)
        legend_below(figure, figure.axes[0])
        off = rows.group_by("scaling", "strategy").agg(
            (pl.col("predicted") - pl.col("observed")).abs().mean().alias("d")
        )
        told = {
            f"mean distance from the diagonal, {word}": extremes(
                dict(off.filter(scaling=scaling).sort("strategy").select("strategy", "d").iter_rows())
            )
            for scaling, word in words.items()
        }
        return as_svg(figure, name, title, by_series(told))


def decision_figure(rows: pl.DataFrame, name: str, title: str) -> str:
    """Net benefit by threshold of one cohort, a panel a strategy, with treating all and treating none."""
    known = rows.drop_nulls("net_benefit")
    strategies = [each for each in known["strategy"].unique(maintain_order=True) if each not in REFERENCES]
    best = max([0.0, *known["net_benefit"]]) or 0.1
    with panels(strategies, "Threshold probability", "Net benefit per patient") as (figure, grid):
        for strategy, axes in grid.items():
            for i, reference in enumerate(("treat_all", "treat_none")):
                curve, label = known.filter(strategy=reference), REFERENCES[reference].strip("()")
                line: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": ("-", DASHED)[i]}
                axes.plot(curve["threshold"], curve["net_benefit"], label=label, **line)
            curve = known.filter(strategy=strategy)
            axes.plot(curve["threshold"], curve["net_benefit"], color=PALETTE[0], label="the strategy")
            axes.set_ylim(-0.25 * best, 1.08 * best)  # treating all falls far below what is of interest
        legend_below(figure, figure.axes[0])
        mean = {each: cast(float, known.filter(strategy=each)["net_benefit"].mean()) for each in strategies}
        return as_svg(figure, name, title, f"Mean over thresholds, {extremes(mean)}")


def days_figure(rows: pl.DataFrame, name: str, title: str) -> str:
    """Mean absolute error in days of each strategy and cohort; dashed: validation's median for everybody."""
    strategies = [each for each in rows["strategy"].unique(maintain_order=True) if each not in REFERENCES]
    with canvas(WIDTH, 1.35 + 0.26 * max(3, len(strategies))) as (figure, (axes,)):
        for i, (cohort,) in enumerate(rows.select("cohort").unique(maintain_order=True).iter_rows()):
            of_cohort = {row["strategy"]: row for row in rows.filter(cohort=cohort).iter_rows(named=True)}
            places = [(place + (0.15 if i else -0.15), of_cohort.get(each)) for place, each in enumerate(strategies)]
            known = [(place, row) for place, row in places if row and row["absolute_days"] is not None]
            color = PALETTE[i % len(PALETTE)]
            axes.plot(
                [row["absolute_days"] for _, row in known],
                [place for place, _ in known],
                "os"[i % 2],
                color=color,
                markersize=4.5,
                label=f"{cohort} cohort",
            )
            bounded = [(place, row) for place, row in known if row["absolute_days_low"] is not None]
            axes.hlines(
                [place for place, _ in bounded],
                [row["absolute_days_low"] for _, row in bounded],
                [row["absolute_days_high"] for _, row in bounded],
                color=color,
                linewidth=1.3,
            )
            reference = next((row["absolute_days"] for each, row in of_cohort.items() if each in REFERENCES), None)
            if reference is not None:
                axes.axvline(reference, color=color, linewidth=0.9, linestyle=DASHED)
        axes.set_yticks(range(len(strategies)), strategies)
        axes.set_ylim(max(1, len(strategies)) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(TITLES["absolute_days"])
        legend_below(figure, axes)
        own = rows.filter(pl.col("strategy").is_in(strategies))
        told = {
            f"{cohort} cohort": extremes(dict(of.select("strategy", "absolute_days").iter_rows()), digits=2)
            for (cohort,), of in own.group_by("cohort", maintain_order=True)
        }
        return as_svg(figure, name, title, by_series(told))


def tuning_figure(rows: pl.DataFrame, metric: str, name: str, title: str) -> str:
    """Expected best score on dev by number of trials, a panel a strategy, of one task of tuning_curve.csv."""
    known = rows.drop_nulls("score")
    strategies = known["strategy"].unique(maintain_order=True).to_list()
    with panels(strategies, "Trials", f"Expected best {metric} on dev") as (figure, grid):
        for strategy, axes in grid.items():
            curve = known.filter(strategy=strategy)
            axes.plot(curve["k"], curve["score"], marker="o", markersize=2, color=PALETTE[0])
            axes.set_xlim(0.5, max(rows["k"].to_list()) + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        last = known.filter(pl.col("k") == pl.col("k").max().over("strategy"))
        told = extremes(dict(last.select("strategy", "score").iter_rows()))
        return as_svg(figure, name, title, f"After all trials, {told}")
