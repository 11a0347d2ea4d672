"""How likely an image was for a stay: a logistic model of has_cxr, fitted to a fold's training stays (`absence_odds`).

One model for all who ask who had an image (Rosenbaum & Rubin 1983): on traits known at admission, as removal by traits
has it, and, for weights, on the record of the first hours besides.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.data.masks import absence_odds
from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.metrics import Bools
from pipeline.evaluation.reading import there

FIRST_HOURS = 6


def in_part(stays: pl.DataFrame, splits: pl.DataFrame, fold: int, part: str) -> Bools:
    """Which of `stays` are in a part of a fold, [N]."""
    of = splits.filter(fold=fold, part=part).select(pl.col("stay_id").cast(stays["stay_id"].dtype))
    return stays["stay_id"].is_in(of["stay_id"].implode()).to_numpy()


def could(stays: pl.DataFrame) -> Bools:
    """For which of `stays` an image could have been there, [N]: nothing is said of the others."""
    return (stays["cxr_status"] != "not_collectable").to_numpy()


def image_chances(stays: pl.DataFrame, train: Bools, record: Floats | None = None) -> Floats | None:
    """Chance of an image per stay, [N], from those in `train`; None where these hold one outcome alone.

    `record` [N, K], NaN where nothing is known, is standardised by the training stays; what is absent counts as such.
    """
    odds, fitted = absence_odds(stays, train, None if record is None else _standardised(record, train))
    return 1 / (1 + odds) if fitted else None


def first_hours(data: Path, stays: pl.DataFrame) -> Floats:
    """Mean of each numeric variable over the hours before FIRST_HOURS, [N, V]; NaN where nothing was charted.

    Raises InputError where data/series/hourly.parquet is absent.
    """
    hourly = pl.scan_parquet(there(data / "series" / "hourly.parquet")).filter(pl.col("hour") < FIRST_HOURS)
    names = [name for name, kind in hourly.collect_schema().items() if kind == pl.Float64]
    early = hourly.group_by("stay_id").agg(pl.col(names).mean()).sort("stay_id").collect()
    early = early.with_columns(pl.col("stay_id").cast(stays["stay_id"].dtype))
    joined = stays.select("stay_id").join(early, on="stay_id", how="left", maintain_order="left")
    return joined.select(pl.col(names).fill_null(np.nan)).to_numpy().reshape(stays.height, len(names))


def _standardised(record: Floats, train: Bools) -> Floats:
    known = ~np.isnan(record)
    count = np.maximum(known[train].sum(axis=0), 1)
    mean = np.nan_to_num(record[train]).sum(axis=0) / count
    spread = np.sqrt((np.where(known, record - mean, 0.0)[train] ** 2).sum(axis=0) / count)
    scaled = np.where(known, record - mean, 0.0) / np.where(spread > 0, spread, 1.0)
    return np.concatenate([scaled, ~known], axis=1)
