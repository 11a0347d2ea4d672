"""The figures of the results, one function each: scores, curves, histories, phenotypes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.presentation.figures import (
    DASHED,
    DOTTED,
    MARKERS,
    MUTED,
    PALETTE,
    WIDTH,
    as_svg,
    canvas,
    legend_below,
    panels,
)
from pipeline.presentation.findings import by_series, extremes

ROLES = {"ehr": "the best on the record", "image": "the best on the image", "fusion": "the best fusion"}


def forest(rows: pl.DataFrame, metric: str, metric_title: str, name: str, title: str) -> str:
    """Value and interval of a metric per strategy, trained and evaluated on base and on matched.

    `rows` are rows of results.csv of one task, with nothing removed.
    """
    chosen = rows.filter((pl.col("metric") == metric) & (pl.col("train_cohort") == pl.col("eval_cohort")))
    strategies = chosen["strategy"].unique(maintain_order=True).to_list()
    with canvas(WIDTH, 1.15 + 0.36 * len(strategies)) as (figure, (axes,)):
        for i, cohort in enumerate(("base", "matched")):
            of_cohort = {row["strategy"]: row for row in chosen.filter(eval_cohort=cohort).iter_rows(named=True)}
            places, values, bars = [], [], []
            for place, strategy in enumerate(strategies):
                row = of_cohort.get(strategy)
                if row is None or row["value"] is None:
                    continue
                low, high = row["low"], row["high"]
                known = low is not None and high is not None
                places.append(place + (0.15 if i else -0.15))
                values.append(row["value"])
                # a shifted interval may miss the estimate
                bars.append((max(0.0, row["value"] - low), max(0.0, high - row["value"])) if known else (0.0, 0.0))
            if places:
                axes.errorbar(
                    values,
                    places,
                    xerr=np.array(bars).T,
                    fmt=MARKERS[i],
                    color=PALETTE[i],
                    markersize=5,
                    elinewidth=1.4,
                    label=f"{cohort} cohort",
                )
        axes.set_yticks(range(len(strategies)), strategies)
        axes.set_ylim(len(strategies) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        if metric == "auroc":
            axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=DASHED)
        axes.set_xlabel(metric_title)
        legend_below(figure, axes)
        told = {
            f"{cohort} cohort": extremes(
                dict(chosen.filter(eval_cohort=cohort).select("strategy", "value").iter_rows())
            )
            for cohort in chosen["eval_cohort"].unique().sort()
        }
        return as_svg(figure, name, title, by_series(told))


def _curves(
    frame: pl.DataFrame,
    cohort: str,
    x: str,
    y: str,
    of: tuple[str, str],
    chance: Callable[[Axes], None],
    name: str,
    title: str,
) -> str:
    """A panel a strategy: its curve, the median of all (where they share their places) and what chance reaches."""
    rows = frame.filter(cohort=cohort).cast({x: pl.Float64, y: pl.Float64})  # a CSV without rows tells no types
    median = rows.group_by(x).agg(pl.col(y).median()).sort(x)
    with panels(rows["strategy"].unique(maintain_order=True).to_list(), *of) as (figure, grid):
        for strategy, axes in grid.items():
            chance(axes)
            axes.plot(median[x], median[y], color=MUTED, linewidth=0.8, linestyle=DOTTED, label="median of all")
            curve = rows.filter(strategy=strategy)
            axes.plot(curve[x].to_numpy(), curve[y].to_numpy(), color=PALETTE[0], label="the strategy")
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
        legend_below(figure, figure.axes[0])
        return as_svg(figure, name, title, f"Mean height of the curve, {extremes(_means(rows, pl.col(y)))}")


def _means(rows: pl.DataFrame, of: pl.Expr) -> dict[str, float | None]:
    """By strategy, the mean of an expression."""
    return dict(rows.group_by("strategy", maintain_order=True).agg(of.mean().alias("mean")).iter_rows())


def roc(frame: pl.DataFrame, cohort: str, name: str, title: str) -> str:
    """ROC curves (columns of plots/roc.csv) of one cohort."""

    def chance(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=DASHED, label="chance")

    return _curves(frame, cohort, "fpr", "tpr", ("False positive rate", "True positive rate"), chance, name, title)


def pr(frame: pl.DataFrame, cohort: str, name: str, title: str, prevalence: float | None) -> str:
    """Precision–recall curves (columns of plots/pr.csv) of one cohort; the prevalence is what chance reaches."""

    def chance(axes: Axes) -> None:
        if prevalence is not None:
            axes.axhline(prevalence, color=MUTED, linewidth=0.7, linestyle=DASHED, label="chance")

    return _curves(frame, cohort, "recall", "precision", ("Recall", "Precision"), chance, name, title)


def reliability(frame: pl.DataFrame, cohort: str, name: str, title: str) -> str:
    """Reliability curves (columns of plots/calibration.csv) of one cohort, a panel a strategy."""
    rows = frame.filter(cohort=cohort).cast({"predicted": pl.Float64, "observed": pl.Float64})  # as in `_curves`
    shown = rows.select("predicted", "observed").max().row(0)
    top = min(1.0, max([each for each in shown if each is not None], default=1.0) * 1.08)
    strategies = rows["strategy"].unique(maintain_order=True).to_list()
    with panels(strategies, "Mean predicted probability", "Observed share") as (figure, grid):
        for strategy, axes in grid.items():
            axes.plot([0, top], [0, top], color=MUTED, linewidth=0.7, linestyle=DASHED, label="perfect")
            curve = rows.filter(strategy=strategy)
            axes.plot(
                curve["predicted"].to_numpy(),
                curve["observed"].to_numpy(),
                color=PALETTE[0],
                marker="o",
                markersize=2.5,
                label="the strategy",
            )
            axes.set_xlim(-0.02 * top, top)
            axes.set_ylim(-0.02 * top, top)
        legend_below(figure, figure.axes[0])
        off = extremes(_means(rows, (pl.col("predicted") - pl.col("observed")).abs()))
        return as_svg(figure, name, title, f"Mean distance from the diagonal, {off}")


def history(frame: pl.DataFrame, metric_title: str, name: str, title: str) -> str:
    """Loss by epoch, a panel a strategy, the mean over folds and seeds; and which metric they reached.

    `frame` are rows of plots/history.csv of one task and cohort, with nothing removed.
    """
    strategies, means = _by_epoch(frame, pl.col("val_loss", "train_loss", "metric").mean())
    with panels(strategies, "Epoch", "Loss") as (figure, grid):
        for strategy, axes in grid.items():
            mean = means.filter(strategy=strategy)
            epochs = mean["epoch"].to_numpy()
            for column, line in (("val_loss", "-"), ("train_loss", DOTTED)):
                label = {"val_loss": "validation", "train_loss": "training"}[column]
                axes.plot(epochs, _points(mean[column]), color=PALETTE[0], linestyle=line, label=label)
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        legend_below(figure, figure.axes[0])
        lowest = means.group_by("strategy", maintain_order=True).agg(pl.col("val_loss").min())
        reached = means.group_by("strategy", maintain_order=True).agg(pl.col("metric").max())
        told = {
            "Lowest validation loss": extremes(dict(lowest.iter_rows())),
            f"{metric_title} at its best epoch": extremes(dict(reached.iter_rows())),
        }
        return as_svg(figure, name, title, by_series(told))


def monitor(frame: pl.DataFrame, metric_title: str, name: str, title: str) -> str:
    """The validation metric that selects models, by epoch, a panel a strategy; `frame` as for `history`."""
    return _score_by_epoch(frame, pl.col("metric"), metric_title, "At the last epoch", name, title)


def branches(frame: pl.DataFrame, metric_title: str, name: str, title: str) -> str:
    """What the record alone answers less what the image alone does, by epoch, the mean over folds and seeds.

    `frame` as for `history`, of the strategies that have both branches.
    """
    less, up = pl.col("ehr") - pl.col("cxr"), f"{metric_title}, EHR less image"
    return _score_by_epoch(frame, less, up, "Record less image at the last epoch", name, title, zero=True)


def _score_by_epoch(
    frame: pl.DataFrame, score: pl.Expr, up: str, finding: str, name: str, title: str, zero: bool = False
) -> str:
    """A panel a strategy, the score's mean over folds and seeds, with a line at 0 if `zero`."""
    strategies, means = _by_epoch(frame, score.mean().alias("score"))
    look: dict[str, Any] = {"color": PALETTE[0], "marker": "o", "markersize": 2}
    with panels(strategies, "Epoch", up) as (figure, grid):
        for strategy, axes in grid.items():
            mean = means.filter(strategy=strategy)
            if zero:
                axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.plot(mean["epoch"].to_numpy(), _points(mean["score"]), **look)
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        last = means.filter(pl.col("epoch") == pl.col("epoch").max().over("strategy"))
        told = extremes(dict(last.select("strategy", "score").iter_rows()))
        return as_svg(figure, name, title, f"{finding}, {told}")


def _by_epoch(frame: pl.DataFrame, *of: pl.Expr) -> tuple[list[str], pl.DataFrame]:
    """A row a strategy and epoch with the means over folds and seeds, and the strategies that have the first of them.

    What is fitted at once has no epochs, and no panel.
    """
    rows = frame.sort("fold", "seed", "epoch")
    means = rows.group_by("strategy", "epoch", maintain_order=True).agg(*of).sort("epoch", maintain_order=True)
    known = set(means.filter(pl.nth(2).is_not_null())["strategy"])
    return [each for each in frame["strategy"].unique(maintain_order=True) if each in known], means


def _points(column: pl.Series) -> np.ndarray[Any, Any]:
    """Nulls as gaps of the line."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def phenotypes(rows: Sequence[tuple[str, Mapping[str, float | None], Mapping[str, str]]], name: str, title: str) -> str:
    """AUROC of every phenotype, in the given order: where all strategies lie, and those that validation chose.

    A row: the phenotype's name, the value of every strategy, the strategy chosen in each of ROLES.
    """
    with canvas(WIDTH, 1.4 + 0.34 * len(rows)) as (figure, (axes,)):
        spans = [
            (place, [each for each in values.values() if each is not None]) for place, (_, values, _) in enumerate(rows)
        ]
        known = [(place, min(shown), max(shown)) for place, shown in spans if shown]
        places, low, high = zip(*known, strict=True) if known else ((), (), ())
        axes.hlines(places, low, high, color=MUTED, linewidth=1, label="all strategies")
        for i, (role, label) in enumerate(ROLES.items()):
            chosen = [(place, values.get(of.get(role, ""))) for place, (_, values, of) in enumerate(rows)]
            told = [(place, value) for place, value in chosen if value is not None]
            axes.plot(
                [value for _, value in told],
                [place for place, _ in told],
                linestyle="none",
                marker=MARKERS[i],
                markersize=4.5,
                color=PALETTE[i],
                label=label,
            )
        for place, (label, _, _) in enumerate(rows):
            axes.text(0, place - 0.3, label, transform=axes.get_yaxis_transform(), fontsize=7.5)
        axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=DASHED)
        axes.set_yticks(range(len(rows)), [""] * len(rows))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(rows) - 0.5, -0.9)
        axes.set_xlabel("AUROC")
        legend_below(figure, axes)
        pairs = [[values.get(of.get(role, "")) for role in ("fusion", "ehr")] for _, values, of in rows]
        both = [(fusion, ehr) for fusion, ehr in pairs if fusion is not None and ehr is not None]
        higher = sum(fusion > ehr for fusion, ehr in both)
        top = extremes({label: values.get(of.get("fusion", "")) for label, values, of in rows})
        told_all = f"The best fusion lies above the best on the record in {higher} of {len(both)}. Of it, {top}"
        return as_svg(figure, name, title, told_all)
