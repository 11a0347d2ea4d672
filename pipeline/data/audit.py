"""The leak audit: each check takes frames, and returns what is wrong (None: nothing).

It fails the pipeline on a leak; every train cell depends on its verdict. Checks recompute from other artefacts where
they can, rather than trust the stage that they check. Counts go to the report, which is in git; ids of patients do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from pipeline.data.statistics import Statistics
from pipeline.mimic.clock import death_time
from pipeline.mimic.variables import Variable

HOURS = 48
WINDOW = timedelta(hours=HOURS)
OUTCOMES = frozenset({"outtime", "los_days", "los_class", "deathtime", "dischtime", "dod", "icu_mortality"})


@dataclass(frozen=True)
class Artefacts:
    """What is audited; frames as in docs/artefacts.md.

    `events`: stay_id, charttime, itemid of all chart and output rows; `variables`: the tier's, in the order of V.
    """

    stays: pl.DataFrame
    admissions: pl.DataFrame
    cxr: pl.DataFrame
    images: pl.DataFrame
    labels: pl.DataFrame
    splits: pl.DataFrame
    events: pl.LazyFrame
    hourly: pl.DataFrame
    values: np.ndarray[Any, Any]
    statistics: dict[str, Statistics]
    variables: Sequence[Variable]
    hours_before: float
    hours_after: float


@dataclass(frozen=True)
class Leak:
    """What a check found: `text` for the report, without any id; `first`: an id, for the eyes of who runs it."""

    text: str
    first: str = ""


def _leak(what: str, frame: pl.DataFrame, column: str = "stay_id") -> Leak:
    rows = frame[column].unique().sort().to_list()
    return Leak(f"{what}: {len(rows)} {column}(s)", f"{column} {rows[0]}")


def subjects_cross_parts(a: Artefacts) -> Leak | None:
    """A subject in two parts of one fold; a dev subject in anything else; a test subject in two test folds."""
    subject = a.stays.select("stay_id", "subject_id").join(a.splits.select("stay_id", "fold", "part"), on="stay_id")
    mixed = subject.group_by("fold", "subject_id").agg(pl.col("part").n_unique()).filter(pl.col("part") > 1)
    if mixed.height:
        return _leak("in two parts of a fold", mixed, "subject_id")
    roles = subject.group_by("subject_id").agg(
        dev=(pl.col("part") == "dev").sum(),
        test=pl.col("fold").filter(pl.col("part") == "test").n_unique(),
        rows=pl.len(),
    )
    wrong = roles.filter(((pl.col("dev") > 0) & (pl.col("dev") < pl.col("rows"))) | (pl.col("test") > 1))
    return _leak("dev beside another part, or in test twice", wrong, "subject_id") if wrong.height else None


def splits_incomplete(a: Artefacts) -> Leak | None:
    """A stay that is absent from the splits of a fold, or is there twice."""
    folds = a.splits["fold"].n_unique()
    rows = a.splits.group_by("stay_id").agg(n=pl.len(), folds=pl.col("fold").n_unique())
    wrong = a.stays.join(rows, on="stay_id", how="left").filter(
        (pl.col("n").fill_null(0) != folds) | (pl.col("folds").fill_null(0) != folds)
    )
    return _leak("not once in every fold", wrong) if wrong.height else None


def dead_at_prediction_time(a: Artefacts) -> Leak | None:
    """Death, or the end of the stay, before intime + 48 h: the label would be known when the prediction is made."""
    frame = a.stays.join(a.admissions.select("hadm_id", died_at=death_time()), on="hadm_id", how="left")
    dead = frame.filter(pl.col("died_at") < pl.col("intime") + WINDOW)
    if dead.height:
        return _leak("dead before intime + 48 h", dead)
    gone = frame.filter(pl.col("outtime") < pl.col("intime") + WINDOW)
    return _leak("discharged before intime + 48 h", gone) if gone.height else None


def events_outside_window(a: Artefacts) -> Leak | None:
    """An hour outside 0–47, or a value in an hour in which no raw row of its items was charted for that stay."""
    late = a.hourly.filter(~pl.col("hour").is_between(0, HOURS - 1))
    if late.height:
        return _leak("hours outside 0–47", late)
    charted = [variable for variable in a.variables if variable.items]
    items = pl.DataFrame(
        [(item.itemid, variable.name) for variable in charted for item in variable.items],
        schema={"itemid": pl.Int32, "name": pl.Enum([variable.name for variable in charted])},
        orient="row",
    )
    since = (pl.col("charttime") - pl.col("intime")).dt.total_microseconds()
    rows = (
        a.events.join(items.lazy(), on="itemid")
        .join(a.stays.lazy().select("stay_id", "intime"), on="stay_id")
        .filter((since >= 0) & (since < HOURS * 3_600_000_000))
        .select("stay_id", (since // 3_600_000_000).cast(pl.Int8).alias("hour"), "name")
        .unique()
        .collect(engine="streaming")
    )
    for variable in charted:
        there = a.hourly.filter(pl.col(variable.name).is_not_null()).select("stay_id", "hour")
        bare = there.join(rows.filter(pl.col("name") == variable.name), on=["stay_id", "hour"], how="anti")
        if bare.height:
            return _leak(f"{variable.name} in hours in which it was not charted", bare)
    return None


def packed_values_differ(a: Artefacts) -> Leak | None:
    """Packed values, which models see, that are not those of the hourly table."""
    if a.values.shape != (a.stays.height, HOURS, len(a.variables)):
        return Leak(f"values.npy has the shape {a.values.shape}")
    placed = a.hourly.join(a.stays.select("stay_id").with_row_index("row"), on="stay_id", how="left")
    if placed["row"].null_count():
        return _leak("hourly values of no stay of the cohort", placed.filter(pl.col("row").is_null()))
    row, hour = placed["row"].to_numpy(), placed["hour"].to_numpy()
    for column, variable in enumerate(a.variables):
        known = placed[variable.name]
        if variable.kind == "category":
            known = known.cast(pl.Enum(variable.vocabulary)).to_physical()
        expected = np.full(a.values.shape[:2], np.nan, np.float32)
        expected[row, hour] = known.cast(pl.Float32).to_numpy()
        packed = np.asarray(a.values[:, :, column])
        surplus = int(((packed != expected) & ~(np.isnan(packed) & np.isnan(expected))).sum())
        if surplus:
            return Leak(f"{variable.name}: {surplus} packed value(s) are not those of hourly.parquet")
    return None


def images_outside_window(a: Artefacts) -> Leak | None:
    """An image, linked or packed, outside of the declared hours around intime (both ends included)."""
    linked = a.cxr.join(a.stays.select("stay_id", "intime"), on="stay_id", how="left").with_columns(
        hours=(pl.col("cxr_time") - pl.col("intime")).dt.total_microseconds() / 3.6e9
    )
    bad = linked.filter(~pl.col("hours").is_between(-a.hours_before, a.hours_after).fill_null(False))
    if bad.height:
        return _leak("image outside the window", bad, "dicom_id")
    packed = a.images.join(a.cxr.select("stay_id", "dicom_id"), on=["stay_id", "dicom_id"], how="anti")
    return _leak("packed image that is linked to no stay", packed, "dicom_id") if packed.height else None


def statistics_beyond_training(a: Artefacts) -> Leak | None:
    """Statistics that differ from those of the training rows, recomputed from hourly.parquet."""
    for fold, known in a.statistics.items():
        train = a.splits.filter((pl.col("fold") == int(fold)) & (pl.col("part") == "train")).select("stay_id")
        rows = a.hourly.join(train, on="stay_id")
        for name, entry in known.items():
            column = rows[name].drop_nulls().cast(pl.Float32).cast(pl.Float64)
            median = column.median()
            close = median is None or np.isclose(entry["median"], float(str(median)), rtol=1e-4, atol=1e-4)
            if entry["count"] != column.len() or not close:
                return Leak(f"fold {fold}, {name}: from {entry['count']} values, training rows have {column.len()}")
    return None


def labels_among_inputs(a: Artefacts) -> Leak | None:
    """A label or an outcome among the input variables, by name or by value (one variable that equals a label)."""
    labels = [name for name in a.labels.columns if name != "stay_id"]
    named = sorted({variable.name for variable in a.variables} & ({*labels} | OUTCOMES))
    if named:
        return Leak(f"label among the inputs: {', '.join(named)}")
    numeric = [variable.name for variable in a.variables if variable.kind != "category"]
    means = a.hourly.group_by("stay_id").agg(pl.col(name).mean() for name in numeric)
    both = a.labels.join(means, on="stay_id")
    for label in labels:
        target = both[label].cast(pl.Float64)
        for name in numeric:
            usable = both[name].is_not_null()
            truth = target.filter(usable)
            if usable.sum() >= 20 and truth.n_unique() > 1 and (both[name].filter(usable) == truth).all():
                return Leak(f"{name} equals the label {label}")
    return None


def images_cross_parts(a: Artefacts) -> Leak | None:
    """The same image, by the content of its pixels, in two parts of a fold."""
    placed = a.images.select("stay_id", "dicom_id", "sha256").join(a.splits, on="stay_id")
    mixed = placed.group_by("fold", "sha256").agg(pl.col("part").n_unique(), pl.col("dicom_id").min())
    mixed = mixed.filter(pl.col("part") > 1)
    return _leak("the same pixels in two parts", mixed, "dicom_id") if mixed.height else None


def stays_without_series(a: Artefacts) -> Leak | None:
    """A stay of the cohort without a single row in hourly.parquet, or without labels."""
    for name, frame in (("hourly.parquet", a.hourly), ("labels.parquet", a.labels)):
        bare = a.stays.join(frame, on="stay_id", how="anti")
        if bare.height:
            return _leak(f"without a row in {name}", bare)
    return None


CHECKS = (
    subjects_cross_parts,
    splits_incomplete,
    dead_at_prediction_time,
    events_outside_window,
    packed_values_differ,
    images_outside_window,
    statistics_beyond_training,
    labels_among_inputs,
    images_cross_parts,
    stays_without_series,
)


def audit(artefacts: Artefacts) -> tuple[list[dict[str, Any]], list[str]]:
    """All checks, for the report (name, what it looks for, passed, detail); and a line a leak, which names an id."""
    rows: list[dict[str, Any]] = []
    leaks: list[str] = []
    for check in CHECKS:
        leak = check(artefacts)
        meaning = " ".join((check.__doc__ or "").split())
        detail = leak.text if leak else ""
        rows.append({"name": check.__name__, "meaning": meaning, "passed": leak is None, "detail": detail})
        if leak:
            leaks.append(f"{check.__name__}: {leak.text}" + (f", the first {leak.first}" if leak.first else ""))
    return rows, leaks
