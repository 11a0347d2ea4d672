"""The figures of the results, one function each: scores, curves, histories, phenotypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.presentation.figures import MARKERS, MUTED, PALETTE, WIDTH, Looks, as_svg, canvas, legend_below


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
            axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlabel(metric_title)
        axes.set_title(title)
        legend_below(figure, axes)
        return as_svg(figure, name, title)


def _curves(
    frame: pl.DataFrame,
    cohort: str,
    x: str,
    y: str,
    looks: Looks,
    decorate: Callable[[Axes], None],
    name: str,
    title: str,
) -> str:
    with canvas(WIDTH, 4.6) as (figure, (axes,)):
        of_cohort = frame.filter(cohort=cohort)
        for strategy in of_cohort["strategy"].unique(maintain_order=True):
            curve = of_cohort.filter(strategy=strategy)
            marker: dict[str, Any] = {"marker": "o", "markersize": 3} if y == "observed" else {}
            axes.plot(curve[x].to_numpy(), curve[y].to_numpy(), label=strategy, **looks.line(strategy), **marker)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_title(title)
        decorate(axes)
        if not of_cohort.height:
            axes.text(0.5, 0.5, "not estimable", ha="center", color=MUTED)
        legend_below(figure, axes)
        return as_svg(figure, name, title)


def roc(frame: pl.DataFrame, cohort: str, looks: Looks, name: str, title: str) -> str:
    """ROC curves (columns of plots/roc.csv) of one cohort."""

    def decorate(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlabel("False positive rate")
        axes.set_ylabel("True positive rate")

    return _curves(frame, cohort, "fpr", "tpr", looks, decorate, name, title)


def pr(frame: pl.DataFrame, cohort: str, looks: Looks, name: str, title: str, prevalence: float | None) -> str:
    """Precision–recall curves (columns of plots/pr.csv) of one cohort; the prevalence is what chance reaches."""

    def decorate(axes: Axes) -> None:
        if prevalence is not None:
            axes.axhline(prevalence, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlabel("Recall")
        axes.set_ylabel("Precision")

    return _curves(frame, cohort, "recall", "precision", looks, decorate, name, title)


def reliability(frame: pl.DataFrame, cohort: str, looks: Looks, name: str, title: str) -> str:
    """Reliability curves (columns of plots/calibration.csv) of one cohort."""

    def decorate(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        shown = frame.filter(cohort=cohort).select("predicted", "observed").max().row(0)
        top = min(1.0, max([each for each in shown if each is not None], default=1.0) * 1.08)
        axes.set_xlim(-0.02 * top, top)
        axes.set_ylim(-0.02 * top, top)
        axes.set_xlabel("Mean predicted probability")
        axes.set_ylabel("Observed share")

    return _curves(frame, cohort, "predicted", "observed", looks, decorate, name, title)


def history(frame: pl.DataFrame, looks: Looks, metric_title: str, name: str, title: str) -> str:
    """Loss (validation solid, training dotted) and validation metric by epoch, the mean over folds and seeds.

    `frame` are rows of plots/history.csv of one task and cohort, with nothing removed.
    """
    with canvas(WIDTH, 4.8, rows=2) as (figure, (above, below)):
        for strategy in frame["strategy"].unique(maintain_order=True):
            mean = (
                frame.filter(strategy=strategy)
                .sort("fold", "seed", "epoch")
                .group_by("epoch", maintain_order=True)
                .agg(pl.col("train_loss", "val_loss", "metric").mean())
                .sort("epoch")
            )
            epochs = mean["epoch"].to_numpy()
            line = looks.line(strategy)
            above.plot(epochs, _points(mean["val_loss"]), label=strategy, **line)
            above.plot(epochs, _points(mean["train_loss"]), color=line["color"], linestyle=":", linewidth=1)
            below.plot(epochs, _points(mean["metric"]), marker="o", markersize=2.5, **line)
        above.set_ylabel("Loss")
        below.set_ylabel(metric_title)
        below.set_xlabel("Epoch")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        above.set_title(title)
        legend_below(figure, above)
        return as_svg(figure, name, title)


def branches(frame: pl.DataFrame, looks: Looks, metric_title: str, name: str, title: str) -> str:
    """What the record alone answers less what the image alone does, by epoch, the mean over folds and seeds.

    `frame` as for `history`, of the strategies that have both branches.
    """
    with canvas(WIDTH, 3.2) as (figure, (axes,)):
        for strategy in frame["strategy"].unique(maintain_order=True):
            mean = (
                frame.filter(strategy=strategy)
                .sort("fold", "seed", "epoch")
                .group_by("epoch", maintain_order=True)
                .agg((pl.col("ehr") - pl.col("cxr")).mean().alias("imbalance"))
                .sort("epoch")
            )
            line = looks.line(strategy)
            axes.plot(
                mean["epoch"].to_numpy(), _points(mean["imbalance"]), marker="o", markersize=2.5, label=strategy, **line
            )
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_ylabel(f"{metric_title}, EHR less image")
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title)
        legend_below(figure, axes)
        return as_svg(figure, name, title)


def _points(column: pl.Series) -> np.ndarray[Any, Any]:
    """Nulls as gaps of the line."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def phenotypes(
    rows: Sequence[tuple[str, Sequence[float | None]]], strategies: Sequence[str], looks: Looks, name: str, title: str
) -> str:
    """AUROC of every phenotype (a row: name, a value a strategy), in the given order; names stand above their row."""
    with canvas(WIDTH, 1.2 + 0.34 * len(rows)) as (figure, (axes,)):
        for column, strategy in enumerate(strategies):
            shown = [values[column] for _, values in rows]
            axes.scatter(
                [value for value in shown if value is not None],
                [place for place, value in enumerate(shown) if value is not None],
                s=26,
                label=strategy,
                alpha=0.9,
                linewidths=0,
                **looks.point(strategy),
            )
        for place, (label, _) in enumerate(rows):
            axes.text(0, place - 0.3, label, transform=axes.get_yaxis_transform(), fontsize=7.5)
        axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(rows)), [""] * len(rows))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(rows) - 0.5, -0.9)
        axes.set_xlabel("AUROC")
        axes.set_title(title)
        legend_below(figure, axes)
        return as_svg(figure, name, title)
