"""Variables that come from others of the same stay, hour by hour: GCS total, urine over 6, 12 and 24 hours; and jumps.

It works on dense arrays [stays, hours], NaN where nothing was charted, and never looks at an hour after its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.mimic.variables import Variable

Hours = np.ndarray[Any, np.dtype[np.float64]]  # [N, T]


def without_jumps(hourly: Hours, ratio: float) -> Hours:
    """[N, T]: without values more than `ratio` times the median of the stay's earlier hours, or that much below it.

    The median is of the hours as charted, those left out among them: where the first one was wrong, later ones outvote
    it. Of an even number of hours both in the middle count: what jumps does so from either. Values are above 0.
    """
    kept = hourly.copy()
    for hour in range(1, hourly.shape[1]):
        rows = np.flatnonzero(~np.isnan(hourly[:, hour]) & ~np.isnan(hourly[:, :hour]).all(axis=1))
        if rows.size:
            before = np.sort(hourly[rows, :hour], axis=1)  # NaN last
            count = (~np.isnan(before)).sum(axis=1)
            every = np.arange(len(rows))
            lower, upper = before[every, (count - 1) // 2], before[every, count // 2]
            now = hourly[rows, hour]
            kept[rows[(now > ratio * upper) | (now < lower / ratio)], hour] = np.nan
    return kept


def derive(values: dict[str, Hours], variables: Sequence[Variable]) -> dict[str, Hours]:
    """The derived ones among `variables`, by name, from the extracted `values`; no range is applied yet."""
    found: dict[str, Hours] = {}
    for variable in variables:
        rule = variable.derive
        if rule is None:
            continue
        if rule.sum_of:
            found[variable.name] = np.sum([values[name] for name in rule.sum_of], axis=0)  # NaN where a part is missing
            continue
        hourly = values[rule.lookback]
        if rule.statistic == "sum":
            result = lookback_sum(hourly, rule.hours)
        elif rule.statistic == "hours":
            result = covered_hours(hourly, rule.hours)
        else:
            covered = covered_hours(hourly, rule.hours) == rule.hours
            rate = lookback_sum(hourly, rule.hours) / rule.hours / last_observed(values[rule.per])
            result = np.where(covered, rate, np.nan)
        found[variable.name] = np.where(np.isnan(hourly), np.nan, result)
    return found


def lookback_sum(hourly: Hours, hours: int) -> Hours:
    """[N, T]: the sum over grid hours h-hours+1 ... h, hours without a value counting 0.

    Added term by term: differences of a running sum would cancel digits.
    """
    filled = np.nan_to_num(hourly, nan=0.0)
    result = np.zeros_like(filled)
    for back in range(min(hours, filled.shape[1])):
        result[:, back:] += filled[:, : filled.shape[1] - back]
    return result


def covered_hours(hourly: Hours, hours: int) -> Hours:
    """[N, T]: how many of the hours h-hours+1 ... h lie at or after the stay's first hour with a value."""
    observed = ~np.isnan(hourly)
    grid = np.arange(hourly.shape[1])
    first = np.where(observed.any(axis=1), observed.argmax(axis=1), hourly.shape[1])
    covered: Hours = np.clip(grid - first[:, None] + 1, 0, hours).astype(np.float64)
    return covered


def last_observed(hourly: Hours) -> Hours:
    """[N, T]: the last value up to and with hour h; NaN before the first."""
    grid = np.arange(hourly.shape[1])
    last = np.maximum.accumulate(np.where(np.isnan(hourly), -1, grid), axis=1)
    return np.where(last >= 0, np.take_along_axis(hourly, np.maximum(last, 0), axis=1), np.nan)
