"""Race and admission type as the few groups by which results are stratified."""

from __future__ import annotations

import polars as pl

# MIMIC-IV 2.2 has 33 race texts. South American, Portuguese, multiple, American Indian, Native Hawaiian: OTHER.
RACE_GROUPS = ("WHITE", "BLACK", "HISPANIC", "ASIAN", "OTHER", "UNKNOWN")
NOT_TOLD = ("UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER", "")

# Elective as in mimic-code (issue 1215); observation stays apart: they are admitted for less.
ADMISSION_GROUPS = {
    "EW EMER.": "EMERGENCY",
    "DIRECT EMER.": "EMERGENCY",
    "URGENT": "EMERGENCY",
    "OBSERVATION ADMIT": "OBSERVATION",
    "EU OBSERVATION": "OBSERVATION",
    "DIRECT OBSERVATION": "OBSERVATION",
    "AMBULATORY OBSERVATION": "OBSERVATION",
    "ELECTIVE": "ELECTIVE",
    "SURGICAL SAME DAY ADMISSION": "ELECTIVE",
}


def _text(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.strip_chars().str.to_uppercase()


def race_group(column: str = "race") -> pl.Expr:
    """WHITE, BLACK, HISPANIC, ASIAN, OTHER or UNKNOWN (not told, or null); `WHITE - RUSSIAN` is WHITE, and so on."""
    race = _text(column)
    named = [pl.when(race.str.contains(rf"^{name}\b")).then(pl.lit(name)) for name in RACE_GROUPS[:4]]
    return pl.coalesce(pl.when(race.is_in(NOT_TOLD)).then(pl.lit("UNKNOWN")), *named, pl.lit("OTHER"))


def admission_group(column: str = "admission_type") -> pl.Expr:
    """EMERGENCY, OBSERVATION or ELECTIVE; a type that is not known counts as EMERGENCY (`is_known_admission_type`)."""
    return _text(column).replace_strict(ADMISSION_GROUPS, default="EMERGENCY", return_dtype=pl.String)


def is_known_admission_type(column: str = "admission_type") -> pl.Expr:
    """Whether the type is one of MIMIC-IV's nine."""
    return _text(column).is_in(list(ADMISSION_GROUPS))
