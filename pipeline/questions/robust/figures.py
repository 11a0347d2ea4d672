"""The figures of the robustness section: degradation curves and overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.ticker import PercentFormatter

from pipeline.presentation.figures import INK, MARKERS, MUTED, PALETTE, WIDTH, as_svg, band, canvas, legend_below
from pipeline.presentation.findings import by_series
from pipeline.presentation.text import number

FAMILIES = {
    "native": "built for missing: mean",
    "complete": "for complete pairs: mean",
}


def _line(rows: pl.DataFrame, column: str) -> tuple[np.ndarray[Any, Any], ...]:
    """Rates and values with their bounds, by rate; a bound that is not known is the value."""
    rows = rows.sort("rate").filter(pl.col(column).is_not_null())
    bounds = (pl.col(f"{column}_{end}").fill_null(pl.col(column)) for end in ("low", "high"))
    return tuple(each.to_numpy() for each in rows.select("rate", column, *bounds).get_columns())


def degradation(
    strategies: Sequence[pl.DataFrame],
    families: Mapping[str, pl.DataFrame],
    reference: tuple[str, pl.DataFrame] | None,
    what: str,
    metric: str,
    name: str,
    title: str,
) -> str:
    """A metric by the share of images (or records: `what`) removed: each fusion strategy thin, families with intervals.

    All tables have the columns rate, value, value_low and value_high.
    """
    told = {}
    with canvas(WIDTH, 3.7) as (figure, (axes,)):
        for i, rows in enumerate(strategies):
            rates, values, _, _ = _line(rows, "value")
            axes.plot(rates, values, color=MUTED, linewidth=0.6, label=None if i else "a fusion strategy")
        for i, (family, rows) in enumerate(families.items()):
            rates, values, low, high = _line(rows, "value")
            if len(rates):
                band(axes, rates, low, high, PALETTE[i])
                axes.plot(rates, values, color=PALETTE[i], marker=MARKERS[i], markersize=4, label=FAMILIES[family])
                told[FAMILIES[family]] = f"from {number(values[0])} with nothing removed to {number(values[-1])}"
        if reference is not None:
            rates, values, _, _ = _line(reference[1], "value")
            axes.plot(rates, values, color=INK, linestyle=(0, (4, 2)), label=f"EHR alone ({reference[0]})")
            if len(rates):
                told[f"EHR alone ({reference[0]})"] = f"from {number(values[0])} to {number(values[-1])}"
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(f"Share of {what} removed at inference")
        axes.set_ylabel(metric)
        legend_below(figure, axes)
        return as_svg(figure, name, title, by_series(told))


def overlap(rows: pl.DataFrame, name: str, title: str) -> str:
    """Stays by propensity of having an image; a bar of fewer than ten has no height of its own, and says so."""
    told = {}
    with canvas(WIDTH, 3.2) as (figure, (axes,)):
        for i, image in enumerate(("present", "absent")):
            chosen = rows.filter(image=image)
            known = chosen.with_columns(count=pl.col("stays").cast(pl.Int64, strict=False))
            places = chosen["from"].to_numpy() + (0.03 if i == 0 else 0.07)
            counts = known["count"].fill_null(0).to_numpy()
            most = known.drop_nulls("count").sort("count", maintain_order=True)[-1:]
            for row in most.iter_rows(named=True):
                told[f"image {image}"] = f"most stays ({row['count']}) lie from {row['from']:g} on"
            axes.bar(places, counts, width=0.036, color=PALETTE[i], label=f"image {image}")
            for place, text in zip(places, chosen["stays"].to_list(), strict=True):
                if not text.isdigit():
                    axes.text(place, 0, text, ha="center", va="bottom", rotation=90, fontsize=6.5, color=MUTED)
        axes.set_xlim(0, 1)
        axes.set_xlabel("Propensity of having an image, by patient traits")
        axes.set_ylabel("Stays")
        axes.grid(axis="x", visible=False)
        legend_below(figure, axes)
        return as_svg(figure, name, title, by_series(told))
