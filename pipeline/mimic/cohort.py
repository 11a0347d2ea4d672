"""Which ICU stays are in the cohort, rule by rule, and what is known of them at admission; `make` does all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import polars as pl

from pipeline.disclosure import Count, groups, levels, part_of, protected, told
from pipeline.errors import InputError
from pipeline.mimic.clock import age_at, death_time, era_at, first_possible_year, hours
from pipeline.mimic.cxr_links import Links, covered_eras, cxr_status, link_images
from pipeline.mimic.groups import admission_group, is_known_admission_type, race_group
from pipeline.mimic.variables import Variable, load_all
from pipeline.params import Cohort

VITALS = ("heart_rate", "sbp", "dbp", "mbp")  # names in variables.yaml: heart rate and blood pressure
VITAL_HOURS = 48
OLDEST = 120  # years; MIMIC says 91 of all above 89 in the anchor year, so that more than some 105 is a mistake

STAYS_COLUMNS = (
    *("stay_id", "subject_id", "hadm_id", "intime", "outtime", "los_days", "age", "gender", "race_group"),
    *("admission_group", "admission_type", "insurance", "era", "icd_version", "first_careunit", "has_cxr"),
    "cxr_status",
)
GROUPS = ("race_group", "admission_group", "gender", "era", "icd_version", "insurance")
IMAGES_OF_THE_COHORT = ("eligible_images", "links", "images_in_windows_of_several_stays")  # the rest: rows


class Made(NamedTuple):
    """A cohort: all stays before any rule, those that are in it (STAYS_COLUMNS), what each rule left, their images."""

    every: pl.DataFrame
    stays: pl.DataFrame
    attrition: pl.DataFrame
    links: Links


def make(interim: Path, asked: Cohort) -> Made:
    """The cohort of the tables in the folder `interim`. Raises InputError where no stay is left."""
    patients, admissions, icustays, diagnoses, metadata = (
        pl.read_parquet(interim / f"{name}.parquet")
        for name in ("patients", "admissions", "icustays", "diagnoses", "cxr_metadata")
    )
    vital = stays_with_vital(pl.scan_parquet(interim / "chart.parquet"), icustays, load_all())
    every = describe_stays(patients, admissions, icustays, vital)
    chosen, attrition = apply_rules(every, rules(asked))
    check(attrition)
    links = link_images(metadata, chosen, asked)
    return Made(every, finish_stays(chosen, diagnoses, links, metadata, patients), attrition, links)


def describe_stays(
    patients: pl.DataFrame, admissions: pl.DataFrame, icustays: pl.DataFrame, vital: pl.Series
) -> pl.DataFrame:
    """All ICU stays with what the rules look at: los_days, age, era, died_at, has_vital, their place among others.

    `vital`: ids of `stays_with_vital`. A stay whose subject or admission is in no table, or whose admission is another
    subject's, has `linked` false. Places count all stays, whatever else becomes of them, by intime, then by stay_id; a
    stay without intime comes last. `first_death` is the subject's earliest death in any admission. `after_death`: the
    stay begins then or later, as those of organ donors do (mimic-code issue 1194), or on a day after dod; on the day
    itself it may have been before, and an admission that dates a death of its own is believed rather than dod, which
    can be days off (mimic-code discussion 2167).
    """
    by_time = ("intime", "stay_id")
    dated = admissions.with_columns(linked=pl.lit(True), died_at=death_time())
    deaths = dated.group_by("subject_id").agg(pl.col("died_at").min().alias("first_death"))
    return (
        icustays.join(patients, on="subject_id", how="left")
        .join(dated, on=["subject_id", "hadm_id"], how="left")
        .join(deaths, on="subject_id", how="left")
        .with_columns(
            los_days=(pl.col("outtime") - pl.col("intime")).dt.total_microseconds() / 86_400_000_000,
            age=age_at("intime"),
            era=era_at("intime"),
            first_year=first_possible_year("intime"),
            linked=pl.col("linked").fill_null(False) & pl.col("anchor_year").is_not_null(),
            has_vital=pl.col("stay_id").is_in(vital.implode()),
            after_death=(pl.col("intime") >= pl.col("first_death")).fill_null(False)
            | (pl.col("died_at").is_null() & (pl.col("intime").dt.date() > pl.col("dod")).fill_null(False)),
            stays_in_admission=pl.len().over("hadm_id"),
        )
        .sort(by_time, nulls_last=True)
        .with_columns(
            place_in_admission=pl.int_range(1, pl.len() + 1).over("hadm_id"),
            place_in_subject=pl.int_range(1, pl.len() + 1).over("subject_id"),
        )
        .sort("stay_id")
    )


def stays_with_vital(chart: pl.LazyFrame, stays: pl.DataFrame, variables: Sequence[Variable]) -> pl.Series:
    """Ids of stays with a heart rate or blood pressure in [intime, intime + 48 h); sorted.

    A value counts where, in the variable's unit, it lies in its plausible range (both bounds included). `chart` has the
    columns of chart.parquet, and is streamed.
    """
    items = [(item, variable) for variable in variables if variable.name in VITALS for item in variable.items]
    in_range = pl.any_horizontal(
        (pl.col("itemid") == item.itemid)
        & cast(pl.Expr, cast(Any, item.conversion)(pl.col("valuenum"))).is_between(variable.low, variable.high)
        for item, variable in items
    )
    found = (
        chart.filter(pl.col("itemid").is_in([item.itemid for item, _ in items]))
        .select("stay_id", "charttime", "itemid", "valuenum")
        .join(stays.lazy().select("stay_id", "intime"), on="stay_id")
        .filter(pl.col("charttime").is_between(pl.col("intime"), pl.col("intime") + hours(VITAL_HOURS), closed="left"))
        .filter(in_range)
        .select("stay_id")
        .unique()
        .collect(engine="streaming")
    )
    return found["stay_id"].sort()


# Which of several stays: the words of the attrition table, and the rule. `all` is no rule.
CHOICES = {
    "only_of_admission": ("only ICU stay of the hospital admission", pl.col("stays_in_admission") == 1),
    "first_of_admission": ("first ICU stay of the hospital admission", pl.col("place_in_admission") == 1),
    "first_of_subject": ("first ICU stay of the subject", pl.col("place_in_subject") == 1),
}


def rules(cohort: Cohort) -> list[tuple[str, pl.Expr]]:
    """The rules in order, each with the words that the attrition table says: a stay stays where all are true.

    The expressions are of columns of `describe_stays`. Null (an unknown age, a missing outtime) is not true.
    """
    until = pl.col("intime") + hours(cohort.alive_at_hours)
    steps = [
        ("subject and admission known", pl.col("linked")),
        ("alive at ICU admission", ~pl.col("after_death")),
        (f"age {cohort.min_age_years} to {OLDEST} years", pl.col("age").is_between(cohort.min_age_years, OLDEST)),
        (
            f"ICU stay of at least {cohort.min_stay_hours:g} h",
            pl.col("outtime") - pl.col("intime") >= hours(cohort.min_stay_hours),
        ),
        (
            f"alive {cohort.alive_at_hours:g} h after ICU admission",
            pl.col("first_death").is_null() | (pl.col("first_death") >= until),
        ),
    ]
    if cohort.rules.stays in CHOICES:
        steps.append(CHOICES[cohort.rules.stays])
    if cohort.rules.same_unit:
        steps.append(("same unit at ICU admission and discharge", pl.col("first_careunit") == pl.col("last_careunit")))
    if cohort.require_vital:
        steps.append((f"heart rate or blood pressure in the first {VITAL_HOURS} h", pl.col("has_vital")))
    return steps


def apply_rules(stays: pl.DataFrame, steps: Sequence[tuple[str, pl.Expr]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The stays for which all rules hold, and how many were left after each: attrition (step, stays, subjects)."""
    rows = [("all ICU stays", stays.height, stays["subject_id"].n_unique())]
    for name, holds in steps:
        stays = stays.filter(holds)
        rows.append((name, stays.height, stays["subject_id"].n_unique()))
    return stays, pl.DataFrame(rows, schema=["step", "stays", "subjects"], orient="row")


def icd_versions(diagnoses: pl.DataFrame) -> pl.DataFrame:
    """The coding of each admission: hadm_id, icd_version 9, 10 or 19 (both)."""
    version = pl.col("icd_version")
    return diagnoses.group_by("hadm_id").agg(
        pl.when((version == 9).any() & (version == 10).any())
        .then(19)
        .when((version == 9).any())
        .then(9)
        .when((version == 10).any())
        .then(10)
        .otherwise(0)
        .cast(pl.Int16)
        .alias("icd_version")
    )


def finish_stays(
    stays: pl.DataFrame, diagnoses: pl.DataFrame, links: Links, metadata: pl.DataFrame, patients: pl.DataFrame
) -> pl.DataFrame:
    """The chosen stays with the columns of stays.parquet, sorted by stay_id."""
    with_image = links.images["stay_id"].unique().to_list()
    return (
        stays.join(icd_versions(diagnoses), on="hadm_id", how="left")
        .with_columns(
            icd_version=pl.col("icd_version").fill_null(0),
            has_cxr=pl.col("stay_id").is_in(with_image),
            race_group=race_group(),
            admission_group=admission_group(),
        )
        .with_columns(cxr_status=cxr_status(metadata, covered_eras(metadata, patients)))
        .select(STAYS_COLUMNS)
        .sort("stay_id")
    )


def count_oddities(stays: pl.DataFrame) -> dict[str, int]:
    """Rows of `describe_stays` that a reader should know of: what is missing, reversed or contradictory."""
    flagged = pl.col("hospital_expire_flag") == 1
    inside = (pl.col("intime") >= pl.col("admittime")) & (pl.col("outtime") <= pl.col("dischtime"))
    odd = {
        "stays_of_unknown_subject_or_admission": ~pl.col("linked"),
        "stays_without_intime": pl.col("intime").is_null(),
        "stays_without_outtime": pl.col("outtime").is_null(),
        "stays_that_end_before_they_begin": pl.col("outtime") < pl.col("intime"),
        "stays_whose_admission_ends_before_it_begins": pl.col("dischtime") < pl.col("admittime"),
        "stays_not_within_their_admission": ~inside,
        "stays_that_begin_after_death": pl.col("after_death"),
        "stays_of_unknown_age": pl.col("linked") & pl.col("age").is_null(),
        f"stays_of_an_age_below_0_or_above_{OLDEST}": ~pl.col("age").is_between(0, OLDEST),
        "hospital_expire_flag_neither_0_nor_1": pl.col("linked")
        & ~pl.col("hospital_expire_flag").is_in([0, 1]).fill_null(False),
        "died_in_hospital_without_deathtime": flagged & pl.col("deathtime").is_null(),
        "deathtime_without_hospital_death": (pl.col("hospital_expire_flag") == 0) & pl.col("deathtime").is_not_null(),
        "deathtime_before_intime": pl.col("deathtime") < pl.col("intime"),
        "admission_type_not_known": pl.col("linked") & ~is_known_admission_type(),
        "without_era": pl.col("linked") & pl.col("era").is_null(),
    }
    return {name: stays.filter(condition).height for name, condition in odd.items()}


def check(attrition: pl.DataFrame) -> None:
    """Raise InputError, naming the rule, where no stay is left: nothing after it could be made."""
    empty = attrition.filter(pl.col("stays") == 0)
    if not empty.is_empty():
        raise InputError(f"the cohort is empty: no ICU stay is left after the rule {empty['step'][0]!r}")


def summarise(
    every: pl.DataFrame, stays: pl.DataFrame, attrition: pl.DataFrame, images: dict[str, int]
) -> dict[str, Any]:
    """The counts of the cohort for the report; those of people as pipeline.disclosure lets them be told."""
    steps = {name: levels(attrition[name].to_list()) for name in ("stays", "subjects")}
    with_image = stays.filter("has_cxr")
    subjects = stays["subject_id"].n_unique(), with_image["subject_id"].n_unique()
    matched = part_of(stays.height, with_image.height)
    counted = {name: told(rows) if name in IMAGES_OF_THE_COHORT else rows for name, rows in images.items()}
    return {
        "attrition": [
            {"step": step, **dict(zip(steps, left, strict=True))}
            for step, *left in zip(attrition["step"], *steps.values(), strict=True)
        ],
        "matched": {"stays": matched, "subjects": part_of(*subjects)},
        "oddities": count_oddities(every),
        "images": counted | {"stays_with_image": matched},
        "groups": {"cxr_status": _by_status(stays), **{name: _by_group(stays, name) for name in GROUPS}},
    }


def _by_group(stays: pl.DataFrame, name: str) -> dict[str, dict[str, Count]]:
    counts = stays.group_by(name).agg(pl.len(), pl.col("has_cxr").sum()).sort(name)
    wholes, parts, _ = groups(counts["len"].to_list(), counts["has_cxr"].to_list())
    return {
        str(value): {"stays": whole, "with_cxr": part}
        for value, whole, part in zip(counts[name], wholes, parts, strict=True)
    }


def _by_status(stays: pl.DataFrame) -> dict[str, dict[str, Count]]:
    """Those with an image are all `present`, and stand as `matched`: the others alone could hide one another."""
    counts = stays.filter(~pl.col("has_cxr")).group_by("cxr_status").len().sort("cxr_status")
    shown = protected(counts["len"].to_list(), [range(counts.height)])
    present = part_of(stays.height, int(stays["has_cxr"].sum()))
    return {
        **{status: {"stays": count, "with_cxr": 0} for status, count in zip(counts["cxr_status"], shown, strict=True)},
        "present": {"stays": present, "with_cxr": present},
    }
