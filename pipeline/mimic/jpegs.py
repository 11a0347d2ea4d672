"""Where the JPEGs of the cohort lie, and what shows that one of them is not the file that it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError

if TYPE_CHECKING:
    import polars as pl


def release_folder(manifest: Path) -> Path:
    """The folder of MIMIC-CXR-JPG, above files/, that manifest.json names."""
    try:
        return Path(json.loads(manifest.read_text(encoding="utf-8"))["mimic_cxr"]["root"])
    except FileNotFoundError:
        raise InputError(f"{manifest}: not found; the stage manifest writes it") from None


def image_table(cxr: pl.DataFrame, metadata: pl.DataFrame, per_stay: int = 1) -> pl.DataFrame:
    """The images to pack in the order of stay_id and rank, with `path` below the folder of the release.

    `rows` and `columns` are those of `metadata` (cxr_metadata.parquet), null where not known.
    """
    sizes = metadata.select("dicom_id", "rows", "columns")
    return with_path(cxr, per_stay).join(sizes, on="dicom_id", how="left").sort("stay_id", "rank")


def with_path(cxr: pl.DataFrame, per_stay: int = 1) -> pl.DataFrame:
    """The rows of cxr.parquet up to rank `per_stay`, with `path` below the folder of the release."""
    import polars as pl

    return cxr.filter(pl.col("rank") <= per_stay).with_columns(jpeg_path())


def jpeg_path() -> pl.Expr:
    """`path` below the folder of the release, of rows with subject_id, study_id and dicom_id."""
    import polars as pl

    subject, study = pl.col("subject_id").cast(pl.String), pl.col("study_id").cast(pl.String)
    return pl.format("files/p{}/p{}/s{}/{}.jpg", subject.str.slice(0, 2), subject, study, "dicom_id").alias("path")


def state_of(root: Path, paths: Sequence[str]) -> dict[str, Any]:
    """Of files below `root`: their number, how many are there, and a digest that is another one once one of them is.

    The digest is of path, size, time of change and whether it is a link; what is in a file is not read.
    """
    digest, there = hashlib.sha256(), 0
    for path in sorted(paths):
        try:
            found = (root / path).stat()
        except OSError as error:  # not there, or not for us
            state = error.strerror
        else:
            there += 1
            state = f"{found.st_size} {found.st_mtime_ns} {(root / path).is_symlink()}"
        digest.update(f"{path}\0{state}\n".encode())
    return {"images": len(paths), "there": there, "sha256": digest.hexdigest()}
