"""Which chest X-rays belong to which stay: frontal images taken in the window, ranked; and why a stay has none."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from pipeline.mimic.clock import GROUP_YEARS, era_at, first_possible_year, hours
from pipeline.params import Cohort

# MIMIC-CXR: studies of patients of BIDMC's emergency department, 2011 to 2016 (Johnson et al. 2019).
COLLECTED_FROM, COLLECTED_TO = 2011, 2016
# An era outside of these years counts as covered where at least this share of the images certainly lies outside and
# in it: of MIMIC-CXR none do; the stand-in for the demo has made-up dates.
COVERED_SHARE = 0.01


def frontal_view() -> pl.Expr:
    """AP or PA, or null where an image is not known to be frontal; of columns view_position and procedure.

    A null view is resolved where, as a word, exactly one of AP and PA stands in the procedure and neither LAT nor
    LATERAL does. AP AXIAL, AP LLD and other views that are spelled much alike are not frontal.
    """
    view = pl.col("view_position").str.strip_chars().str.to_uppercase()
    view = pl.when(view != "").then(view)
    procedure = pl.col("procedure").fill_null("").str.to_uppercase()
    ap, pa = procedure.str.contains(r"\bAP\b"), procedure.str.contains(r"\bPA\b")
    frontal = ~procedure.str.contains(r"\b(LAT|LATERAL)\b")
    return (
        pl.when(view.is_in(["AP", "PA"]))
        .then(view)
        .when(view.is_null() & frontal & ap & ~pa)
        .then(pl.lit("AP"))
        .when(view.is_null() & frontal & pa & ~ap)
        .then(pl.lit("PA"))
    )


@dataclass(frozen=True)
class Links:
    """`images`: the rows of cxr.parquet; `counts`: what became of the images of the metadata."""

    images: pl.DataFrame
    counts: dict[str, int]


def link_images(metadata: pl.DataFrame, stays: pl.DataFrame, cohort: Cohort) -> Links:
    """Every eligible image of every stay, best first (columns of cxr.parquet, sorted by stay_id, rank).

    Eligible: a frontal image in one of `cohort.cxr_views`, of the stay's subject, taken in
    [intime - cxr_hours_before, intime + cxr_hours_after], both ends included. Rank: the latest study first (two studies
    with the same time are one pool), within it AP before PA, then the larger Rows x Columns, then the smaller dicom_id.
    `metadata` has the columns of cxr_metadata.parquet, `stays` has stay_id, subject_id and intime.
    """
    images = metadata.with_columns(view=frontal_view())
    usable = images.filter(pl.col("view").is_in(cohort.cxr_views) & pl.col("study_time").is_not_null())
    earliest = pl.col("intime") - hours(cohort.cxr_hours_before)
    latest = pl.col("intime") + hours(cohort.cxr_hours_after)
    linked = (
        usable.join(stays.select("stay_id", "subject_id", "intime"), on="subject_id")
        .filter(pl.col("study_time").is_between(earliest, latest))
        .with_columns(
            # of a study: its images share one time in MIMIC-CXR, and stay together where they do not
            latest=pl.col("study_time").max().over("stay_id", "study_id"),
            area=pl.col("rows").cast(pl.Int64) * pl.col("columns").cast(pl.Int64),
            hours_from_intime=(pl.col("study_time") - pl.col("intime")).dt.total_microseconds() / 3_600_000_000,
        )
        .sort(
            ["stay_id", "latest", pl.col("view") != "AP", "area", "dicom_id"],
            descending=[False, True, False, True, False],
            nulls_last=True,
        )
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("stay_id"))
        .select(
            *("stay_id", "rank", "dicom_id", "study_id", "subject_id"),
            pl.col("study_time").alias("cxr_time"),
            *("hours_from_intime", "view"),
        )
    )
    no_view = pl.col("view_position").is_null()
    counts = {
        "images": images.height,
        "images_without_view": images.filter(no_view).height,
        "of_these_resolved_by_procedure": images.filter(no_view & pl.col("view").is_not_null()).height,
        "images_not_frontal": images.filter(pl.col("view").is_null()).height,
        "images_without_usable_time": images.filter(pl.col("study_time").is_null()).height,
        "images_of_unknown_size": images.filter(pl.any_horizontal(pl.col("rows", "columns").is_null())).height,
        "frontal_images_of_no_stay_of_the_cohort": usable.join(linked, on="dicom_id", how="anti").height,
        "eligible_images": linked["dicom_id"].n_unique(),
        "links": linked.height,
        "stays_with_image": linked["stay_id"].n_unique(),
        "images_in_windows_of_several_stays": linked.group_by("dicom_id").len().filter(pl.col("len") > 1).height,
    }
    return Links(linked, counts)


def covered_eras(metadata: pl.DataFrame, patients: pl.DataFrame) -> list[str]:
    """Eras outside of 2011 to 2016 in which the images' own dates show that images were collected; sorted."""
    dated = (
        metadata.join(patients, on="subject_id")
        .filter(pl.col("study_time").is_not_null())
        .select(first=first_possible_year("study_time"), era=era_at("study_time"))
        .drop_nulls()
    )
    outside = dated.filter((pl.col("first") > COLLECTED_TO) | (pl.col("first") + GROUP_YEARS - 1 < COLLECTED_FROM))
    eras = outside.group_by("era").len().filter(pl.col("len") >= COVERED_SHARE * dated.height)
    return sorted(eras["era"].to_list())


def cxr_status(metadata: pl.DataFrame, eras: list[str]) -> pl.Expr:
    """present, not_taken or not_collectable; of columns has_cxr, subject_id, era and first_year (first possible year).

    not_taken: the subject is in MIMIC-CXR, and one of the stay's possible years lies in 2011 to 2016 or its era is
    among `eras` (of `covered_eras`). not_collectable: no image could be there, so that its absence tells nothing.
    """
    overlaps = (pl.col("first_year") <= COLLECTED_TO) & (pl.col("first_year") + GROUP_YEARS - 1 >= COLLECTED_FROM)
    covered = (overlaps | pl.col("era").is_in(eras)).fill_null(False)
    known = pl.col("subject_id").is_in(metadata["subject_id"].unique().to_list())
    return (
        pl.when(pl.col("has_cxr"))
        .then(pl.lit("present"))
        .when(known & covered)
        .then(pl.lit("not_taken"))
        .otherwise(pl.lit("not_collectable"))
    )
