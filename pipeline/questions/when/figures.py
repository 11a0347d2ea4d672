"""The figure of reliance: what each modality adds to a score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from pipeline.presentation.figures import MARKERS, MUTED, PALETTE, WIDTH, as_svg, canvas, legend_below


def shapley(rows: pl.DataFrame, metric: str, name: str, title: str) -> str:
    """What each modality adds to the score of each fusion strategy; `rows` of reliance.csv of one task and cohort."""
    strategies = rows["strategy"].unique(maintain_order=True).to_list()
    with canvas(WIDTH, 1.15 + 0.3 * len(strategies)) as (figure, (axes,)):
        for i, (quantity, label) in enumerate((("shapley_ehr", "EHR"), ("shapley_cxr", "image"))):
            _points(axes, rows.filter(quantity=quantity), strategies, 0.15 if i else -0.15, i, label)
        axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(strategies)), strategies)
        axes.set_ylim(len(strategies) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{metric} that each modality adds (Shapley value)")
        axes.set_title(title)
        legend_below(figure, axes)
        return as_svg(figure, name, title)


def _points(axes: Axes, rows: pl.DataFrame, strategies: Sequence[str], shift: float, look: int, label: str) -> None:
    shown = rows.filter(pl.col("value").is_not_null())
    if not shown.height:
        return
    low, high = (shown[end].fill_null(shown["value"]).to_numpy() for end in ("low", "high"))
    values = shown["value"].to_numpy()
    axes.errorbar(
        values,
        [strategies.index(strategy) + shift for strategy in shown["strategy"]],
        xerr=np.maximum(0.0, np.array([values - low, high - values])),
        fmt=MARKERS[look],
        color=PALETTE[look],
        markersize=4.5,
        elinewidth=1.3,
        label=label,
    )
