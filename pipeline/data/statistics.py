"""Median and scale of every numeric variable, per fold, from observed values of the fold's training stays alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Statistics = dict[str, dict[str, float | int]]  # variable -> median, iqr, scale, count


def describe(values: np.ndarray[Any, Any]) -> dict[str, float | int]:
    """Of a 1-D array without NaN: median, interquartile range, scale and count.

    The scale is the IQR; where that is 0 the standard deviation; where that is 0 too, 1. No value: median 0, scale 1.
    """
    if values.size == 0:
        return {"median": 0.0, "iqr": 0.0, "scale": 1.0, "count": 0}
    low, median, high = np.percentile(values.astype(np.float64), [25, 50, 75]).tolist()
    scale = (high - low) or float(np.std(values, dtype=np.float64)) or 1.0
    return {"median": median, "iqr": high - low, "scale": scale, "count": int(values.size)}


def fold_statistics(
    values: np.ndarray[Any, Any], train: np.ndarray[Any, Any], names: Sequence[str], numeric: Sequence[bool]
) -> Statistics:
    """Statistics of the numeric variables from `values` [N, T, V] (NaN: not observed), rows of `train` (bool [N])."""
    rows = np.flatnonzero(train)
    found: Statistics = {}
    for column, (name, is_numeric) in enumerate(zip(names, numeric, strict=True)):
        if is_numeric:
            observed = np.asarray(values[rows, :, column]).ravel()
            found[name] = describe(observed[~np.isnan(observed)])
    return found
