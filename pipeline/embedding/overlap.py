"""What a frozen encoder has seen of the patients it is judged on: by a list, by the official split, or not known.

An encoder that learned from a patient's images, let alone from labels or reports of them, may know that patient: its
row tells less of patients yet to come. Whoever has an image that may have been seen counts as seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import polars as pl

from pipeline.disclosure import parted, protected
from pipeline.embedding.card import OFFICIAL, Card
from pipeline.errors import InputError
from pipeline.mimic.csv_query import csv_query, one_line
from pipeline.mimic.manifest import find_table
from pipeline.mimic.schema import CXR_PREFIX, Table, place_columns

Badge = Literal["clean", "images seen", "labels or reports seen", "unknown"]
SPLIT = Table(
    "mimic_cxr",
    f"{CXR_PREFIX}split",
    {"dicom_id": "VARCHAR", "subject_id": "INTEGER", "split": "VARCHAR"},
    order=("dicom_id",),
    required=False,
)
COLUMNS = {
    "dicom_id": "dicom_id",
    "image_id": "dicom_id",
    "subject_id": "subject_id",
}  # a list's column -> what it names
AUDITED = ("dev", "test")
TOLD_APART = {"subject_id": pl.Int32, "saw": pl.Boolean}


@dataclass(frozen=True)
class Exposure:
    """`seen`: the subjects that count as seen, of those with an image; `basis`: how that is known."""

    seen: frozenset[int]
    basis: Literal["no MIMIC-CXR", "list", "official split", "all of MIMIC-CXR", "unknown"]
    why: str  # a sentence


def official_split(manifest: dict[str, Any]) -> pl.DataFrame | None:
    """dicom_id, subject_id, split of MIMIC-CXR's own split file; None where the folder has none.

    Raises InputError where the file is not the one that the manifest lists, lacks a column or cannot be read.
    """
    found = find_table(manifest, SPLIT)
    if found is None:
        return None
    path, header = found
    _, missing = place_columns(header, SPLIT.columns)
    if missing:
        raise InputError(f"{path}: column {missing[0]} is missing")
    with one_line(path), duckdb.connect() as connection:
        rows = connection.execute(csv_query([path], header, SPLIT)).fetchall()
    return pl.DataFrame(rows, schema=["dicom_id", "subject_id", "split"], orient="row")


def exposure(card: Card, images: pl.DataFrame, official: pl.DataFrame | None) -> Exposure:
    """Who has been seen, of the subjects of `images` (dicom_id, subject_id: of the hospital, not of the cohort alone).

    `official` as `official_split` gives it. Raises InputError where a list is not there or names no images or subjects.
    """
    everybody = frozenset(images["subject_id"].to_list())
    mimic = card.mimic_cxr
    if mimic == "none":
        return Exposure(frozenset(), "no MIMIC-CXR", "its card says that it saw nothing of MIMIC-CXR")
    if mimic == "all":
        return Exposure(everybody, "all of MIMIC-CXR", "its card says that it saw all of MIMIC-CXR")
    if mimic in OFFICIAL:
        if official is None:
            return Exposure(everybody, "unknown", f"the folder has no {SPLIT.source}.csv.gz, which would tell")
        shown = images.join(official.filter(pl.col("split").is_in(OFFICIAL[mimic])), on="dicom_id", how="semi")
        if images.join(official, on="dicom_id", how="semi").height < images.height:
            return Exposure(everybody, "unknown", f"{SPLIT.source}.csv.gz does not name all images")
        parts = " and ".join(OFFICIAL[mimic])
        return Exposure(_subjects(shown), "official split", f"it saw {parts} of MIMIC-CXR's own split")
    if mimic == "unknown":
        return Exposure(everybody, "unknown", "its card does not know what of MIMIC-CXR it saw")
    column, listed = _listed(card, Path(mimic))
    found = images.filter(pl.col(column).cast(pl.String).is_in(listed.implode()))
    if found.is_empty():
        return Exposure(everybody, "unknown", f"{mimic} names no image of this data")
    return Exposure(
        _subjects(found), "list", f"{mimic} names {found.height:,} of {images.height:,} images of this data"
    )


def audit(card: Card, splits: pl.DataFrame, images: pl.DataFrame, official: pl.DataFrame | None) -> dict[str, Any]:
    """Subjects of dev and of each fold's test, and how many of them the encoder has seen; for reports/embedding/.

    `splits` has fold, subject_id, part (data/splits.parquet); the rest as in `exposure`. Counts of people are protected
    (pipeline.disclosure); dev is the same in every fold, and stands once, with fold null.
    """
    found = exposure(card, images, official)
    rows = _judged(splits).with_columns(seen=pl.col("subject_id").is_in(found.seen)).group_by("part", "fold")
    counts = rows.agg(pl.len().alias("subjects"), pl.col("seen").sum()).sort("part", "fold")
    wholes = counts["subjects"].to_list()
    subjects = protected(wholes, [range(len(wholes))])  # the cohort's size is known, how many of it were seen is not
    seen, _ = parted(wholes, counts["seen"].to_list(), subjects, lines=[])
    return {
        "encoder": card.name,
        "badge": _badge(card, found, int(counts["seen"].sum())),
        "basis": found.basis,
        "why": found.why,
        "saw": list(card.seen),
        "parts": [
            {"part": part, "fold": fold, "subjects": subjects[i], "seen": seen[i]}
            for i, (part, fold) in enumerate(counts.select("part", "fold").iter_rows())
        ],
    }


def told_apart(splits: pl.DataFrame, found: Exposure) -> pl.DataFrame:
    """subject_id, saw of tested subjects, by subject_id: for results of those alone whom the encoder has not seen.

    Without a row where that is not known, or where everybody or nobody was seen: it would say nothing new.
    """
    rows = (
        splits.filter(part="test")
        .select(pl.col("subject_id").cast(pl.Int32), saw=pl.col("subject_id").is_in(found.seen))
        .unique()
        .sort("subject_id")
    )
    exact = found.basis in ("list", "official split")
    return rows if exact and rows["saw"].n_unique() == 2 else rows.clear()


def _judged(splits: pl.DataFrame) -> pl.DataFrame:
    """part, fold, subject_id of dev (once) and of the tests, each subject once."""
    dev = pl.col("part") == "dev"
    return (
        splits.filter(pl.col("part").is_in(AUDITED))
        .select("part", pl.when(~dev).then("fold").alias("fold"), "subject_id")
        .unique(maintain_order=True)
    )


def _badge(card: Card, found: Exposure, seen: int) -> Badge:
    if found.basis == "unknown":
        return "unknown"
    if not seen:
        return "clean"
    return "labels or reports seen" if {"labels", "reports"} & set(card.seen) else "images seen"


def _subjects(images: pl.DataFrame) -> frozenset[int]:
    return frozenset(images["subject_id"].to_list())


def _listed(card: Card, path: Path) -> tuple[str, pl.Series]:
    """The column of images that a list is about, and its values as text."""
    key = f"pretrained_on.mimic_cxr: {path}"
    if not path.is_file():
        raise card.error(f"{key}: not found")
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError) as error:
        raise card.error(f"{key}: cannot be read as CSV", error) from None
    for name, column in COLUMNS.items():
        if name in table.columns:
            return column, table[name].drop_nulls().str.strip_chars().str.strip_suffix(".jpg")
    raise card.error(f"{key}: has none of the columns {', '.join(COLUMNS)}; it has {', '.join(table.columns[:5])}")
