"""Labels of the stays: deaths, length of stay in classes, 25 phenotypes. Frames in, frames out.

They lie after the first 48 h by definition, and are joined to predictions at evaluation and to inputs in training only.
"""

from __future__ import annotations

from typing import Any

import polars as pl

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
    return {
        "stays": labels.height,
        "positives": {name: int(labels[name].sum()) for name in targets},
        "los_class": {
            str(value): rows for value, rows in labels.group_by("los_class").len().sort("los_class").iter_rows()
        },
        "prevalence_by_icd_version_and_image": _strata(joined, targets),
        "phenotypes_by_map": compare_maps(stays, diagnoses),
        "stays_without_diagnosis": stays.join(diagnoses, on="hadm_id", how="anti").height,
        "deaths_dated_by_discharge": stays.join(no_deathtime, on="hadm_id", how="semi").height,
        "codes": {
            "rows": of_cohort.height,
            "rows_by_a_later_code": of_cohort.filter(pl.col("source") == "later").height,
            "unknown_rows": of_cohort["ccs"].null_count(),
            "unknown_codes": _unknown(of_cohort).height,
            "unknown_top_20": _unknown(of_cohort).head(20).to_dicts(),
            "unknown_rows_of_all_admissions": diagnoses["ccs"].null_count(),
        },
    }


def compare_maps(stays: pl.DataFrame, diagnoses: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Per phenotype: stays that have it by each map, and stays that have it by one alone (`only_NAME`).

    `diagnoses` has hadm_id, icd_version and icd_code.
    """
    of_cohort = diagnoses.select("hadm_id", "icd_version", "icd_code").join(stays, on="hadm_id", how="semi")
    (one, has), (other, has_too) = (
        (name, phenotype_labels(stays, classify(of_cohort, name)).drop("stay_id")) for name in MAPS
    )
    return {
        slug: {
            one: int(has[slug].sum()),
            other: int(has_too[slug].sum()),
            f"only_{one}": int((has[slug] & ~has_too[slug]).sum()),
            f"only_{other}": int((has_too[slug] & ~has[slug]).sum()),
        }
        for slug in has.columns
    }


def _strata(joined: pl.DataFrame, targets: list[str]) -> list[dict[str, Any]]:
    """One entry per (icd_version, has_cxr): stays, and positives per target: label noise may follow the coding era."""
    return (
        joined.group_by("icd_version", "has_cxr")
        .agg(pl.len().alias("stays"), *(pl.col(name).sum() for name in targets))
        .sort("icd_version", "has_cxr")
        .to_dicts()
    )


def _unknown(diagnoses: pl.DataFrame) -> pl.DataFrame:
    return (
        diagnoses.filter(pl.col("ccs").is_null())
        .group_by("icd_version", "icd_code")
        .agg(pl.len().alias("rows"))
        .sort(["rows", "icd_version", "icd_code"], descending=[True, False, False])
    )
