"""What the audit looks at, read from data/, and what a check returns."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.data.statistics import Statistics
from pipeline.mimic.variables import Variable

HOURS = 48
WINDOW = timedelta(hours=HOURS)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Events:
    """Raw rows of one source of variables.yaml: `key`, time, itemid, text, number.

    `key` is stay_id, or subject_id where rows name no stay: they then belong to every stay in whose window they lie.
    """

    rows: pl.LazyFrame
    key: str = "stay_id"


@dataclass(frozen=True)
class Artefacts:
    """What is audited; frames as in docs/artefacts.md, the first five from data/interim.

    `variables`: the tier's, in the order of V; `codes`: icd_version, icd_code, ccs, the map that the labels are to
    follow; an image counts in [intime - hours_before, intime + hours_after].
    """

    icustays: pl.DataFrame
    admissions: pl.DataFrame
    diagnoses: pl.DataFrame
    metadata: pl.DataFrame
    events: Mapping[str, Events]  # by `source` of the variables
    stays: pl.DataFrame
    cxr: pl.DataFrame
    labels: pl.DataFrame
    hourly: pl.DataFrame
    values: Array
    statistics: dict[str, Statistics]
    images: pl.DataFrame
    pixels: Array
    splits: pl.DataFrame
    masks: pl.DataFrame
    variables: Sequence[Variable]
    codes: pl.DataFrame
    hours_before: float
    hours_after: float
    test_from_year: int | None = None  # splits.scheme temporal: first year of the eras that are tested
    max_jump: float = math.inf  # series.max_jump
    images_per_stay: int = 1  # images.per_stay


def read_artefacts(
    data: Path,
    variables: Sequence[Variable],
    codes: pl.DataFrame,
    hours_before: float,
    hours_after: float,
    test_from_year: int | None = None,
    lab_time: str = "available",
    max_jump: float = math.inf,
    images_per_stay: int = 1,
) -> Artefacts:
    """The artefacts below `data`; event rows stay on disk, arrays are memory-mapped.

    `lab_time`: the column of lab.parquet from which a lab counts (`series.lab_time`).
    """
    interim = data / "interim"
    key = ("stay_id", pl.col("charttime").alias("time"), "itemid")
    chart = pl.scan_parquet(interim / "chart.parquet").select(*key, text="value", number="valuenum")
    output = pl.scan_parquet(interim / "output.parquet").select(*key, text=pl.lit(None, pl.String), number="value")
    lab = pl.scan_parquet(interim / "lab.parquet").select(
        "stay_id", pl.col(lab_time).alias("time"), "itemid", text=pl.lit(None, pl.String), number="valuenum"
    )
    return Artefacts(
        icustays=pl.read_parquet(interim / "icustays.parquet"),
        admissions=pl.read_parquet(interim / "admissions.parquet"),
        diagnoses=pl.read_parquet(interim / "diagnoses.parquet"),
        metadata=pl.read_parquet(interim / "cxr_metadata.parquet"),
        events={"chartevents": Events(chart), "outputevents": Events(output), "labevents": Events(lab)},
        stays=pl.read_parquet(data / "cohort/stays.parquet"),
        cxr=pl.read_parquet(data / "cohort/cxr.parquet"),
        labels=pl.read_parquet(data / "cohort/labels.parquet"),
        hourly=pl.read_parquet(data / "series/hourly.parquet"),
        values=np.load(data / "series/values.npy", mmap_mode="r"),
        statistics=json.loads((data / "series/statistics.json").read_text(encoding="utf-8")),
        images=pl.read_parquet(data / "images/index.parquet"),
        pixels=np.load(data / "images/pixels.npy", mmap_mode="r"),
        splits=pl.read_parquet(data / "splits.parquet"),
        masks=pl.read_parquet(data / "masks.parquet"),
        variables=variables,
        codes=codes,
        hours_before=hours_before,
        hours_after=hours_after,
        test_from_year=test_from_year,
        max_jump=max_jump,
        images_per_stay=images_per_stay,
    )


@dataclass(frozen=True)
class Leak:
    """What a check found: `text` for the report, without any id; `first`: an id, for the eyes of who runs it."""

    text: str
    first: str = ""


def leak_of(what: str, frame: pl.DataFrame, column: str = "stay_id") -> Leak | None:
    """None for a frame without rows; else how many different ids of `column` it has, and the smallest of them."""
    if frame.is_empty():
        return None
    ids = frame[column].drop_nulls().unique().sort().to_list()
    return Leak(f"{what}: {len(ids)} {column}(s)", f"{column} {ids[0]}" if ids else "")


def since_intime(time: str) -> pl.Expr:
    """Microseconds from `intime` to a column."""
    return (pl.col(time) - pl.col("intime")).dt.total_microseconds()


def died_at() -> pl.Expr:
    """Death in hospital, of the columns of admissions.parquet: deathtime; where it is null and hospital_expire_flag is
    1, dischtime; else null. Written anew here: clock.death_time is under audit."""
    return pl.coalesce("deathtime", pl.when(pl.col("hospital_expire_flag") == 1).then("dischtime"))
