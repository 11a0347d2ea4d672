"""Leaks by images: of another time, person or stay, packed in another place, or in two parts at once."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from pipeline.data.audit.artefacts import Array, Artefacts, Leak, leak_of, since_intime

BLOCKS = 4  # thumbnails of 4 x 4 grey means
ALIKE = 2.0  # of 255: what saving a picture anew, or noise of a grey level, does to it


def _taken(a: Artefacts, placed: pl.DataFrame) -> pl.DataFrame:
    """Rows with stay_id, dicom_id; with the image's raw study_time and subject, and hours since the raw intime."""
    return (
        placed.join(a.metadata.select("dicom_id", "study_time", owner="subject_id"), on="dicom_id", how="left")
        .join(a.icustays.select("stay_id", "intime", person="subject_id"), on="stay_id", how="left")
        .with_columns(hours=since_intime("study_time") / 3.6e9)
    )


def images_outside_window(a: Artefacts) -> Leak | None:
    """An image, linked or packed, that was taken outside of the declared hours around intime (both ends included), or
    whose cxr_time or hours_from_intime, which models see, are not the true ones. Recounted from interim/cxr_metadata
    and interim/icustays."""
    outside = ~pl.col("hours").is_between(-a.hours_before, a.hours_after).fill_null(False)
    linked, packed = _taken(a, a.cxr), _taken(a, a.images)
    moved = ((pl.col("hours_from_intime") - pl.col("hours")).abs() > 1e-6).fill_null(True)
    return (
        leak_of("image outside the window", linked.filter(outside), "dicom_id")
        or leak_of("packed image outside the window", packed.filter(outside), "dicom_id")
        or leak_of("of another time", linked.filter(pl.col("cxr_time").ne_missing(pl.col("study_time"))), "dicom_id")
        or leak_of(
            "of another hour", pl.concat([f.filter(moved) for f in (linked, packed)], how="diagonal"), "dicom_id"
        )
    )


def images_of_others(a: Artefacts) -> Leak | None:
    """An image, linked or packed, of another subject than the stay's (by interim/cxr_metadata and interim/icustays); a
    packed one that is not among its stay's first in cxr.parquet (`images.per_stay` of them), or not in their order; one
    twice; has_cxr that the links do not bear out."""
    other = pl.col("owner").ne_missing(pl.col("person"))
    linked = a.stays["stay_id"].is_in(a.cxr["stay_id"].unique().to_list())
    first = a.cxr.filter(pl.col("rank") <= a.images_per_stay).select("stay_id", "dicom_id", link="rank")
    strange = a.images.join(first, on=["stay_id", "dicom_id"], how="anti")
    ordered = a.images.join(first, on=["stay_id", "dicom_id"]).with_columns(
        place=pl.col("link").rank("ordinal").over("stay_id").cast(pl.Int32)
    )
    return (
        leak_of("image of another subject", _taken(a, a.cxr).filter(other), "dicom_id")
        or leak_of("packed image of another subject", _taken(a, a.images).filter(other), "dicom_id")
        or leak_of("packed, but not the stay's", strange, "dicom_id")
        or leak_of("packed twice", a.images.filter(pl.struct("stay_id", "dicom_id").is_duplicated()))
        or leak_of("not in the order of its links", ordered.filter(pl.col("place") != pl.col("rank")))
        or leak_of("linked to no stay of the cohort", a.cxr.join(a.stays, on="stay_id", how="anti"), "dicom_id")
        or leak_of("has_cxr, but no link, or the reverse", a.stays.filter(pl.col("has_cxr").ne_missing(linked)))
    )


def _digests(pixels: Array) -> list[str]:
    return [hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest() for picture in pixels]


def packed_images_differ(a: Artefacts) -> Leak | None:
    """A row of pixels.npy that is not the image that index.parquet says (sha256 of the pixels, anew), rows that are not
    counted from 0, or more or fewer of them than the index has."""
    if len(a.pixels) != a.images.height or a.images["row"].to_list() != list(range(a.images.height)):
        return Leak(f"{len(a.pixels)} packed images, {a.images.height} rows in index.parquet, or not in their order")
    wrong = a.images.filter(a.images["sha256"].ne_missing(pl.Series(_digests(a.pixels), dtype=pl.String)))
    return leak_of("packed pixels that are not the index's", wrong, "dicom_id")


def _varied(a: Artefacts) -> Array:
    """Rows of pixels.npy with more than one grey level: a picture of one tells nothing of anybody."""
    rows = min(len(a.pixels), a.images.height)
    return np.flatnonzero([a.pixels[row].max() > a.pixels[row].min() for row in range(rows)])


def images_cross_parts(a: Artefacts) -> Leak | None:
    """The same image in two parts of a fold: the same dicom_id, or the same pixels (recounted from pixels.npy; pictures
    of a single grey level are left aside)."""
    rows = _varied(a)
    pixels = a.images[rows].with_columns(same=pl.Series(_digests(a.pixels[rows]), dtype=pl.String))
    for what, frame, key in (("image", a.images, "dicom_id"), ("pixels", pixels, "same")):
        placed = frame.join(a.splits.select("stay_id", "fold", "part"), on="stay_id")
        mixed = placed.group_by("fold", key).agg(pl.col("part").n_unique(), first=pl.col("dicom_id").min())
        mixed = mixed.filter(pl.col("part") > 1).select(dicom_id="first")
        if leak := leak_of(f"the same {what} in two parts", mixed, "dicom_id"):
            return leak
    return None


def images_nearly_alike(a: Artefacts) -> Leak | None:
    """Two packed images in different parts of a fold whose pixels differ by at most 2 of 255 grey levels on average:
    one picture saved twice, or with noise. Candidates are pairs whose 4 x 4 block means are as near (a tree finds them
    in about linear time); then all pixels decide. Pictures of two people are farther apart, even at 16 pixels a side
    (8.8 or more in three synthetic hospitals); pictures of one person are in one part. Recounted from pixels.npy."""
    from scipy.spatial import cKDTree

    rows = _varied(a)
    if len(rows) < 2:
        return None
    side = a.pixels.shape[1] // BLOCKS
    crop = slice(0, side * BLOCKS)
    thumbs = [a.pixels[row][crop, crop].reshape(BLOCKS, side, BLOCKS, side).mean(axis=(1, 3)).ravel() for row in rows]
    pairs = rows[cKDTree(np.stack(thumbs)).query_pairs(ALIKE, p=np.inf, output_type="ndarray")]
    alike = [np.abs(a.pixels[i].astype(np.int16) - a.pixels[j].astype(np.int16)).mean() <= ALIKE for i, j in pairs]
    one, two = pairs[np.asarray(alike, np.bool_)].T
    stay, part = a.images["stay_id"], a.splits.select("stay_id", "fold", "part")
    found = pl.DataFrame(
        {"one": stay.gather(one), "two": stay.gather(two), "dicom_id": a.images["dicom_id"].gather(one)}
    )
    both = found.join(part, left_on="one", right_on="stay_id").join(
        part, left_on=["two", "fold"], right_on=["stay_id", "fold"], suffix="_two"
    )
    return leak_of("nearly the same pixels in two parts", both.filter(pl.col("part") != pl.col("part_two")), "dicom_id")
