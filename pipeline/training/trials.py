"""What the stage `tune` leaves of its trials in data/tuned, for those who write it and those who read it."""

from __future__ import annotations

from typing import Any

import polars as pl

TRIALS, HOURS = "trials.csv", "hours.json"  # HOURS: {strategy: {task: hours of its trials' processes}}
TRIALS_SCHEMA: dict[str, Any] = {
    "strategy": pl.String,
    "task": pl.String,
    "trial": pl.Int64,  # from 1, the written defaults
    "score": pl.Float64,  # the task's monitor on dev, mean over cohorts and seeds; null where it is not estimable
    "chosen": pl.Boolean,
    "epochs": pl.Int64,  # of all its runs
    "settings": pl.String,  # JSON
}
