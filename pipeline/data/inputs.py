"""From packed values to what models see: filled, scaled, clipped channels beside `observed` and hours since observed.

Per numeric or ordinal variable one channel: forward fill within the stay (for at most its `fill.carry_hours`), then the
fold's training median, then (x − median) / scale, clipped to ±10. Per category one channel an entry of its vocabulary:
one-hot of the last charted entry (at most `carry_hours` old), unscaled, all zero where there is none. Applied once per
fold: gathering ready rows is cheaper than filling them anew in every batch (tests/benchmarks/test_filling.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.statistics import Statistics
from pipeline.mimic.variables import Variable

HOURS = 48
CLIP = 10.0
_CHUNK = 2048  # stays at a time: bounds the temporaries


@dataclass(frozen=True)
class SeriesInputs:
    """`ehr` float32 [N, T, C]; `observed` bool [N, T, V]; `since` float32 [N, T, V]: hours since observed / 48, ≤ 1."""

    ehr: np.ndarray[Any, Any]
    observed: np.ndarray[Any, Any]
    since: np.ndarray[Any, Any]


def channel_variables(variables: Sequence[Variable]) -> tuple[int, ...]:
    """The variable of each of the C channels: one a numeric or ordinal variable, one an entry of a vocabulary."""
    widths = [len(variable.vocabulary) if variable.kind == "category" else 1 for variable in variables]
    return tuple(index for index, width in enumerate(widths) for _ in range(width))


def build_inputs(values: np.ndarray[Any, Any], variables: Sequence[Variable], statistics: Statistics) -> SeriesInputs:
    """`values` float32 [N, T, V] with NaN where nothing was charted; variables in the order of V."""
    n, hours, width = values.shape
    if width != len(variables):
        raise ValueError(f"values have {width} variables, the tier has {len(variables)}")
    inputs = SeriesInputs(
        ehr=np.zeros((n, hours, len(channel_variables(variables))), np.float32),
        observed=np.zeros((n, hours, width), np.bool_),
        since=np.ones((n, hours, width), np.float32),
    )
    for start in range(0, n, _CHUNK):
        rows = slice(start, start + _CHUNK)
        _fill(np.asarray(values[rows]), variables, statistics, inputs, rows)
    return inputs


def _fill(
    values: np.ndarray[Any, Any],
    variables: Sequence[Variable],
    statistics: Statistics,
    inputs: SeriesInputs,
    rows: slice,
) -> None:
    hours = np.arange(values.shape[1], dtype=np.int16)[None, :, None]
    observed = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(observed, hours, np.int16(-1)), axis=1)  # hour of the last value, or -1
    age = np.where(last < 0, np.int16(HOURS), hours - last)
    carried = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    inputs.observed[rows] = observed
    inputs.since[rows] = np.minimum(age, HOURS).astype(np.float32) / HOURS
    channel = 0
    for column, variable in enumerate(variables):
        usable = last[:, :, column] >= 0
        if variable.fill.carry_hours is not None:
            usable &= age[:, :, column] <= variable.fill.carry_hours
        value = carried[:, :, column]
        if variable.kind == "category":
            for entry in range(len(variable.vocabulary)):
                inputs.ehr[rows, :, channel] = usable & (value == entry)
                channel += 1
            continue
        known = statistics[variable.name]
        median, scale = np.float32(known["median"]), np.float32(known["scale"])
        scaled = (np.where(usable, value, median) - median) / scale
        inputs.ehr[rows, :, channel] = np.clip(scaled, -CLIP, CLIP)
        channel += 1
