"""The leak audit: each check takes frames, and returns what is wrong in one line (None: nothing).

It fails the pipeline on a leak; every train cell depends on its verdict. Checks recompute from other artefacts where
they can, rather than trust the stage that they check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from pipeline.data.statistics import Statistics

WINDOW = timedelta(hours=48)
OUTCOMES = frozenset({"outtime", "los_days", "los_class", "deathtime", "dischtime", "dod", "icu_mortality"})


@dataclass(frozen=True)
class Artefacts:
    """What is audited; frames as in docs/artefacts.md. `label_columns`: every label; `variables`: names of the tier."""

    stays: pl.DataFrame
    admissions: pl.DataFrame
    cxr: pl.DataFrame
    images: pl.DataFrame
    labels: pl.DataFrame
    splits: pl.DataFrame
    hourly: pl.DataFrame
    values: np.ndarray[Any, Any]
    statistics: dict[str, Statistics]
    variables: Sequence[str]
    hours_before: float
    hours_after: float


def _some(frame: pl.DataFrame, column: str = "stay_id") -> str:
    rows = frame[column].unique().sort().to_list()
    return f"{len(rows)} {column}(s), the first {rows[0]}"


def subjects_cross_parts(a: Artefacts) -> str | None:
    """A subject in two parts of one fold; a dev subject in anything else; a test subject in two test folds."""
    subject = a.stays.select("stay_id", "subject_id").join(a.splits.select("stay_id", "fold", "part"), on="stay_id")
    mixed = subject.group_by("fold", "subject_id").agg(pl.col("part").n_unique()).filter(pl.col("part") > 1)
    if mixed.height:
        return f"in two parts of a fold: {_some(mixed, 'subject_id')}"
    roles = subject.group_by("subject_id").agg(
        dev=(pl.col("part") == "dev").sum(),
        test=pl.col("fold").filter(pl.col("part") == "test").n_unique(),
        rows=pl.len(),
    )
    wrong = roles.filter(((pl.col("dev") > 0) & (pl.col("dev") < pl.col("rows"))) | (pl.col("test") > 1))
    return f"dev beside another part, or in test twice: {_some(wrong, 'subject_id')}" if wrong.height else None


def splits_incomplete(a: Artefacts) -> str | None:
    """A stay that is absent from the splits of a fold, or is there twice."""
    folds = a.splits["fold"].n_unique()
    rows = a.splits.group_by("stay_id").agg(n=pl.len(), folds=pl.col("fold").n_unique())
    wrong = a.stays.join(rows, on="stay_id", how="left").filter(
        (pl.col("n").fill_null(0) != folds) | (pl.col("folds").fill_null(0) != folds)
    )
    return f"not once in every fold: {_some(wrong)}" if wrong.height else None


def dead_at_prediction_time(a: Artefacts) -> str | None:
    """Death, or the end of the stay, before intime + 48 h: the label would be known when the prediction is made."""
    frame = a.stays.join(a.admissions.select("hadm_id", "deathtime"), on="hadm_id", how="left")
    dead = frame.filter(pl.col("deathtime") < pl.col("intime") + WINDOW)
    if dead.height:
        return f"dead before intime + 48 h: {_some(dead)}"
    gone = frame.filter(pl.col("outtime") < pl.col("intime") + WINDOW)
    return f"discharged before intime + 48 h: {_some(gone)}" if gone.height else None


def events_outside_window(a: Artefacts) -> str | None:
    """An hour outside 0–47, or packed values that are not those of the hourly table."""
    late = a.hourly.filter(~pl.col("hour").is_between(0, 47))
    if late.height:
        return f"hours outside 0–47: {_some(late)}"
    if a.values.shape[1] != 48:
        return f"values.npy holds {a.values.shape[1]} hours"
    position = a.stays.select("stay_id").with_row_index("row")
    placed = a.hourly.join(position, on="stay_id", how="left")
    if placed["row"].null_count():
        return f"hourly values of no stay of the cohort: {_some(placed.filter(pl.col('row').is_null()))}"
    there = np.zeros(a.values.shape, np.bool_)
    there[placed["row"].to_numpy(), placed["hour"].to_numpy()] = a.hourly.select(
        pl.col(name).is_not_null() for name in a.variables
    ).to_numpy()
    surplus = int((there != ~np.isnan(a.values)).sum())
    return f"{surplus} packed value(s) that hourly.parquet does not have, or the reverse" if surplus else None


def images_outside_window(a: Artefacts) -> str | None:
    """An image, linked or packed, outside of the declared hours around intime (both ends included)."""
    linked = a.cxr.join(a.stays.select("stay_id", "intime"), on="stay_id", how="left").with_columns(
        hours=(pl.col("cxr_time") - pl.col("intime")).dt.total_microseconds() / 3.6e9
    )
    bad = linked.filter(~pl.col("hours").is_between(-a.hours_before, a.hours_after).fill_null(False))
    if bad.height:
        return f"image outside the window: {_some(bad, 'dicom_id')}"
    packed = a.images.join(a.cxr.select("stay_id", "dicom_id"), on=["stay_id", "dicom_id"], how="anti")
    return f"packed image that is linked to no stay: {_some(packed, 'dicom_id')}" if packed.height else None


def statistics_beyond_training(a: Artefacts) -> str | None:
    """Statistics that differ from those of the training rows, recomputed from hourly.parquet."""
    for fold, known in a.statistics.items():
        train = a.splits.filter((pl.col("fold") == int(fold)) & (pl.col("part") == "train")).select("stay_id")
        rows = a.hourly.join(train, on="stay_id")
        for name, entry in known.items():
            column = rows[name].drop_nulls().cast(pl.Float32).cast(pl.Float64)
            median = column.median()
            close = median is None or np.isclose(entry["median"], float(str(median)), rtol=1e-4, atol=1e-4)
            if entry["count"] != column.len() or not close:
                return f"fold {fold}, {name}: from {entry['count']} values, training rows have {column.len()}"
    return None


def labels_among_inputs(a: Artefacts) -> str | None:
    """A label or an outcome among the input variables, by name or by value (one variable that equals a label)."""
    labels = [name for name in a.labels.columns if name != "stay_id"]
    named = sorted(set(a.variables) & ({*labels} | OUTCOMES))
    if named:
        return f"label among the inputs: {', '.join(named)}"
    numeric = [name for name in a.variables if a.hourly.schema[name].is_numeric()]
    means = a.hourly.group_by("stay_id").agg(pl.col(name).mean() for name in numeric)
    both = a.labels.join(means, on="stay_id")
    for label in labels:
        target = both[label].cast(pl.Float64)
        for name in numeric:
            usable = both[name].is_not_null()
            truth = target.filter(usable)
            if usable.sum() >= 20 and truth.n_unique() > 1 and (both[name].filter(usable) == truth).all():
                return f"{name} equals the label {label}"
    return None


def images_cross_parts(a: Artefacts) -> str | None:
    """The same image, by the content of its pixels, in two parts of a fold."""
    placed = a.images.select("stay_id", "dicom_id", "sha256").join(a.splits, on="stay_id")
    mixed = placed.group_by("fold", "sha256").agg(pl.col("part").n_unique(), pl.col("dicom_id").min())
    mixed = mixed.filter(pl.col("part") > 1)
    return f"the same pixels in two parts: {_some(mixed, 'dicom_id')}" if mixed.height else None


def stays_without_series(a: Artefacts) -> str | None:
    """A stay of the cohort without a single row in hourly.parquet, or without labels."""
    for name, frame in (("hourly.parquet", a.hourly), ("labels.parquet", a.labels)):
        bare = a.stays.join(frame, on="stay_id", how="anti")
        if bare.height:
            return f"without a row in {name}: {_some(bare)}"
    return None


CHECKS = (
    subjects_cross_parts,
    splits_incomplete,
    dead_at_prediction_time,
    events_outside_window,
    images_outside_window,
    statistics_beyond_training,
    labels_among_inputs,
    images_cross_parts,
    stays_without_series,
)


def audit(artefacts: Artefacts) -> list[dict[str, Any]]:
    """All checks: name, what it looks for, passed, detail."""
    found = []
    for check in CHECKS:
        wrong = check(artefacts)
        meaning = " ".join((check.__doc__ or "").split())
        found.append({"name": check.__name__, "meaning": meaning, "passed": wrong is None, "detail": wrong or ""})
    return found
