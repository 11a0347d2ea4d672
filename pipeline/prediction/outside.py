"""What new stays lack, and where they lie outside of what a run was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.data.tensors import Array, FoldTensors
from pipeline.evaluation.scores import in_cohort
from pipeline.mimic.variables import Variable, load_variables
from pipeline.prediction.inputs import parts
from pipeline.training.grid import RunSpec

TAILS = (0.001, 0.999)  # quantiles of the training values: 0.2 % of them lie outside
MOST_OUTSIDE = 0.05  # of the new values: more is told; of few stays some lie outside by chance
EXPECTED = 5  # stays in which a variable would be charted as often as in training: that none has it is told


def missing(values: Array, tensors: FoldTensors) -> pl.DataFrame:
    """A row a stay, of `values` [N, 48, V] with NaN where nothing was charted.

    record_empty, image_absent; hours_charted: the share of hours with a value; variables_charted: of variables.
    """
    observed = ~np.isnan(values)
    return pl.DataFrame(
        {
            "record_empty": ~observed.any(axis=(1, 2)),
            "image_absent": ~tensors.pictured,
            "hours_charted": observed.any(axis=2).mean(axis=1),
            "variables_charted": observed.any(axis=1).mean(axis=1),
        }
    )


def compare(values: Array, data: Path, spec: RunSpec) -> pl.DataFrame:
    """A row a numeric or ordinal variable: variable, low, high, values, outside, stays, stays_in_training.

    low and high: the TAILS of the values of the run's training stays, which lie below `data`; null where it has none.
    outside: the share of the new `values` [N, 48, V] that lie beyond; null without any. stays: the share with a value.
    """
    known = parts(data, spec.fold)
    trained = known.select((pl.col("part") == "train") & in_cohort(spec.train_cohort)).to_series().to_numpy()
    own = np.load(data / "series/values.npy", mmap_mode="r")
    rows = np.flatnonzero(trained)
    return pl.DataFrame(
        [
            _compared(variable, np.asarray(own[rows, :, column]), values[:, :, column])
            for column, variable in enumerate(load_variables(spec.tier))
            if variable.kind != "category"
        ],
        schema={"variable": pl.String, "low": pl.Float64, "high": pl.Float64, "values": pl.Int64}
        | {"outside": pl.Float64, "stays": pl.Float64, "stays_in_training": pl.Float64},
        orient="row",
    )


def _compared(variable: Variable, trained: Array, new: Array) -> tuple[object, ...]:
    there, here = trained[~np.isnan(trained)], new[~np.isnan(new)]
    low, high = np.quantile(there.astype(np.float64), TAILS).tolist() if there.size else (None, None)
    outside = float(((here < low) | (here > high)).mean()) if there.size and here.size else None
    shares = ((~np.isnan(each)).any(axis=1).mean() if len(each) else 0.0 for each in (new, trained))
    return (variable.name, low, high, here.size, outside, *map(float, shares))


def warnings(compared: pl.DataFrame, stays: int) -> Sequence[str]:
    """A line a variable that lies outside of the training range, or that no new stay has though it should."""
    lines = []
    for row in compared.iter_rows(named=True):
        name, outside = row["variable"], row["outside"]
        if outside is not None and outside > MOST_OUTSIDE:
            span = f"{TAILS[0]:.1%} to {TAILS[1]:.1%} of the training values, {row['low']:g} to {row['high']:g}"
            lines.append(f"{name}: {outside:.1%} of {row['values']:,} values lie outside of {span}")
        if outside is None and row["low"] is None and row["values"]:
            lines.append(f"{name}: {row['values']:,} values, and none in training")
        if not row["values"] and row["stays_in_training"] * stays >= EXPECTED:
            lines.append(f"{name}: charted in no stay, in training in {row['stays_in_training']:.0%}")
    return lines
