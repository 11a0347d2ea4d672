"""Arithmetic on MIMIC's shifted calendar: hours, age, calendar era and the moment of death, as Polars expressions.

A patient's dates are shifted by a constant; `anchor_year` is a shifted year, `anchor_age` the age in it (above 89: 91),
and `anchor_year_group` the three real years among which that year lies.
"""

from __future__ import annotations

import polars as pl

# The three-year groups of MIMIC-IV: 2.2 ends with 2017 - 2019, 3.1 with 2020 - 2022.
FIRST_GROUP, LAST_GROUP, GROUP_YEARS = 2008, 2020, 3


def hours(value: float) -> pl.Expr:
    """A duration of so many hours, exact to the microsecond."""
    return pl.duration(microseconds=round(value * 3_600_000_000))


def age_at(moment: str) -> pl.Expr:
    """Age in whole years in the calendar year of column `moment`: anchor_age counts for the anchor year alone."""
    return pl.col("anchor_age") + pl.col(moment).dt.year() - pl.col("anchor_year")


def first_possible_year(moment: str) -> pl.Expr:
    """The earliest real calendar year of column `moment`; the latest one is two years later. Null where unknown."""
    start = pl.col("anchor_year_group").str.extract(r"^\s*(\d{4})\s*-\s*\d{4}\s*$", 1).cast(pl.Int32)
    return start + pl.col(moment).dt.year() - pl.col("anchor_year")


def era_at(moment: str) -> pl.Expr:
    """The three-year group of column `moment`, like `2011 - 2013`: that of the middle one of the three possible years.

    A shift by a multiple of three years hits the group exactly; otherwise the true year may lie one year outside of it.
    Nothing lies before 2008 or after 2022. Null where the patient's anchor_year_group is missing.
    """
    middle = first_possible_year(moment) + 1
    start = FIRST_GROUP + (middle - FIRST_GROUP).floordiv(GROUP_YEARS) * GROUP_YEARS
    start = start.clip(FIRST_GROUP, LAST_GROUP)
    return pl.format("{} - {}", start, start + GROUP_YEARS - 1)


def death_time() -> pl.Expr:
    """When the patient died in hospital: deathtime, else dischtime where hospital_expire_flag says so, else null.

    MIMIC-IV 3.1 has admissions with the flag and no deathtime (mimic-code discussion 2167); the discharge is then the
    best bound there is. `dod` is a date without time and holds deaths long after discharge: not used here, but for
    who comes after it (`cohort.describe_stays`).
    """
    died = pl.col("hospital_expire_flag").fill_null(0) == 1
    return pl.coalesce(pl.col("deathtime"), pl.when(died).then(pl.col("dischtime")))
