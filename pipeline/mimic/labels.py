"""Labels of the stays: deaths, length of stay in classes, 25 phenotypes. Frames in, frames out.

They lie after the first 48 h by definition, and are joined to predictions at evaluation and to inputs in training only.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from pipeline.disclosure import FEW, Count, groups, part_of, parted, protected, told
from pipeline.errors import InputError
from pipeline.mimic.clock import death_time
from pipeline.mimic.phenotypes import MAPS, classify, phenotype_categories
from pipeline.tasks import LOS_EDGES


def los_class(days: str = "los_days") -> pl.Expr:
    """0 to 6 for [2,3) [3,4) [4,5) [5,6) [6,7) [7,14) [14,inf) days; null below 2 days or where null."""
    count = pl.sum_horizontal((pl.col(days) >= edge).cast(pl.Int8) for edge in LOS_EDGES)
    return pl.when(pl.col(days) >= LOS_EDGES[0]).then(count - 1).cast(pl.Int8)


def died_in_icu() -> pl.Expr:
    """Died in [intime, outtime], both included; of columns died_at (`clock.death_time`), intime and outtime."""
    return pl.col("died_at").is_between(pl.col("intime"), pl.col("outtime")).fill_null(False)


def outcome_labels(stays: pl.DataFrame, admissions: pl.DataFrame) -> pl.DataFrame:
    """stay_id, icu_mortality, hospital_mortality, los_class; in the order of `stays`.

    icu_mortality: `died_in_icu`. hospital_mortality: hospital_expire_flag, so that all stays of an admission share it.
    Raises InputError where a stay has no class of length.
    """
    died = admissions.select("hadm_id", "hospital_expire_flag", died_at=death_time())
    labels = stays.join(died, on="hadm_id", how="left", maintain_order="left").select(
        "stay_id",
        icu_mortality=died_in_icu(),
        hospital_mortality=(pl.col("hospital_expire_flag") == 1).fill_null(False),
        los_class=los_class(),
    )
    short = labels.filter(pl.col("los_class").is_null())["stay_id"]
    if len(short):
        raise InputError(
            f"stay_id {short[0]}: shorter than {LOS_EDGES[0]:g} days, has no length-of-stay class: "
            "cohort.min_stay_hours must be at least 48"
        )
    return labels


def phenotype_labels(stays: pl.DataFrame, diagnoses: pl.DataFrame) -> pl.DataFrame:
    """stay_id and 25 boolean columns; in the order of `stays`.

    True where any diagnosis of the stay's hospital admission, whatever its seq_num, is in the phenotype's CCS category:
    stays of one admission share them.
    `diagnoses` has hadm_id and ccs (of `phenotypes.classify`).
    """
    found = diagnoses.group_by("hadm_id").agg(pl.col("ccs").drop_nulls().unique())
    return stays.join(found, on="hadm_id", how="left", maintain_order="left").select(
        "stay_id",
        **{
            slug: pl.col("ccs").list.contains(category).fill_null(False)
            for slug, category in phenotype_categories().items()
        },
    )


def make_labels(stays: pl.DataFrame, admissions: pl.DataFrame, diagnoses: pl.DataFrame) -> pl.DataFrame:
    """The content of labels.parquet, sorted by stay_id. `diagnoses` as in `phenotype_labels`."""
    stays = stays.sort("stay_id")
    return outcome_labels(stays, admissions).join(
        phenotype_labels(stays, diagnoses), on="stay_id", validate="1:1", maintain_order="left"
    )


def summarise(
    stays: pl.DataFrame, labels: pl.DataFrame, admissions: pl.DataFrame, diagnoses: pl.DataFrame
) -> dict[str, Any]:
    """The counts of the labels for the report: prevalences, by coding and image, and the codes that no table knows.

    `diagnoses` is classified by HCUP's tables, whatever map the labels follow.
    """
    of_cohort = diagnoses.join(stays, on="hadm_id", how="semi")
    joined = labels.join(stays.select("stay_id", "hadm_id", "icd_version", "has_cxr"), on="stay_id")
    targets = ["icu_mortality", "hospital_mortality", *phenotype_categories()]
    no_deathtime = admissions.filter(pl.col("deathtime").is_null() & (pl.col("hospital_expire_flag") == 1))
    classes = labels.group_by("los_class").len().sort("los_class")
    lengths = protected(classes["len"].to_list(), [range(classes.height)])
    unknown = _unknown(of_cohort)
    return {
        "stays": told(labels.height),
        "positives": {name: part_of(labels.height, int(labels[name].sum())) for name in targets},
        "los_class": {str(value): count for value, count in zip(classes["los_class"], lengths, strict=True)},
        "prevalence_by_icd_version_and_image": _strata(joined, targets),
        "phenotypes_by_map": compare_maps(stays, diagnoses),
        "stays_without_diagnosis": told(stays.join(diagnoses, on="hadm_id", how="anti").height),
        "deaths_dated_by_discharge": told(stays.join(no_deathtime, on="hadm_id", how="semi").height),
        "codes": {
            "rows": of_cohort.height,
            "rows_by_a_later_code": of_cohort.filter(pl.col("source") == "later").height,
            "unknown_rows": of_cohort["ccs"].null_count(),
            "unknown_codes": unknown.height,
            "unknown_top_20": unknown.filter(pl.col("rows") >= FEW).head(20).to_dicts(),
            "unknown_rows_of_all_admissions": diagnoses["ccs"].null_count(),
        },
    }


def compare_maps(stays: pl.DataFrame, diagnoses: pl.DataFrame) -> dict[str, dict[str, Count]]:
    """Per phenotype: stays that have it by each map, and stays that have it by one alone (`only_NAME`).

    `diagnoses` has hadm_id, icd_version and icd_code.
    """
    of_cohort = diagnoses.select("hadm_id", "icd_version", "icd_code").join(stays, on="hadm_id", how="semi")
    (one, has), (other, has_too) = (
        (name, phenotype_labels(stays, classify(of_cohort, name)).drop("stay_id")) for name in MAPS
    )
    return {slug: _compared(has[slug], has_too[slug], one, other) for slug in has.columns}


def _compared(has: pl.Series, has_too: pl.Series, one: str, other: str) -> dict[str, Count]:
    """Stays with a label by each of two maps, and by one alone, which is not told where what both say would follow."""
    counts = {one: int(has.sum()), other: int(has_too.sum())}
    shown = {name: part_of(len(has), count) for name, count in counts.items()}
    cells = [int(each.sum()) for each in (has & ~has_too, has_too & ~has, has & has_too, ~has & ~has_too)]
    lines = {one: ([0, 2], [1, 3]), other: ([1, 2], [0, 3])}  # add up to who has the label by a map, and who has not
    only = protected(cells, [line for name in lines if not isinstance(shown[name], str) for line in lines[name]])
    return {**shown, f"only_{one}": only[0], f"only_{other}": only[1]}


def _strata(joined: pl.DataFrame, targets: list[str]) -> list[dict[str, Any]]:
    """One entry per (icd_version, has_cxr): stays, and positives per target: label noise may follow the coding era."""
    versions = joined.group_by("icd_version").agg(pl.len(), pl.col("has_cxr").sum()).sort("icd_version")
    _, with_image, without = groups(versions["len"].to_list(), versions["has_cxr"].to_list())  # as cohort.json has them
    told_of = {True: dict(zip(versions["icd_version"], with_image, strict=True))}
    told_of[False] = dict(zip(versions["icd_version"], without, strict=True))
    key = ("icd_version", "has_cxr")
    cells = joined.group_by(key).agg(pl.len().alias("stays"), *(pl.col(name).sum() for name in targets)).sort(key)
    stays = [told_of[image][version] for version, image in cells.select(key).iter_rows()]
    columns = {
        **{name: cells[name].to_list() for name in key},
        "stays": stays,
        **{name: parted(cells["stays"].to_list(), cells[name].to_list(), stays)[0] for name in targets},
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _unknown(diagnoses: pl.DataFrame) -> pl.DataFrame:
    return (
        diagnoses.filter(pl.col("ccs").is_null())
        .group_by("icd_version", "icd_code")
        .agg(pl.len().alias("rows"))
        .sort(["rows", "icd_version", "icd_code"], descending=[True, False, False])
    )
