"""The administrative tables, shaped like the real files: patients, admissions, icustays, transfers, services, omr."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.synthetic.labs import PROVIDERS
from pipeline.synthetic.people import DAY, People
from pipeline.synthetic.streams import identifiers, pick, stream

WARDS = {
    "Medicine": 5, "Med/Surg": 4, "Medicine/Cardiology": 3, "Neurology": 2, "Cardiac Surgery": 2,
    "Hematology/Oncology": 2, "Transplant": 1, "Vascular": 1, "Med/Surg/Trauma": 2,
}  # fmt: skip
SERVICES = {
    "MED": 45,
    "CMED": 16,
    "SURG": 13,
    "OMED": 8,
    "CSURG": 8,
    "NSURG": 5,
    "VSURG": 3,
    "NMED": 3,
    "TRAUM": 3,
    "ORTHO": 2,
}
ADMISSION_COLUMNS = [
    "subject_id",
    "hadm_id",
    "admittime",
    "dischtime",
    "deathtime",
    "admission_type",
    "admit_provider_id",
    "admission_location",
    "discharge_location",
    "insurance",
    "language",
    "marital_status",
    "race",
    "edregtime",
    "edouttime",
    "hospital_expire_flag",
]


def patients(people: People) -> pl.DataFrame:
    """patients; dod is a date, given as days since 1970."""
    return people.patients.select("subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod")


def admissions(seed: int, people: People) -> pl.DataFrame:
    """admissions; times in seconds."""
    rng = stream(seed, "admissions", "providers")
    frame = people.admissions
    who = rng.integers(0, len(PROVIDERS), frame.height)
    provider = pl.Series("admit_provider_id", [PROVIDERS[i] for i in who], dtype=pl.String)
    return frame.with_columns(provider).sort("subject_id", "admittime").select(ADMISSION_COLUMNS)


def icustays(people: People) -> pl.DataFrame:
    """icustays; times in seconds, los in days."""
    los = ((pl.col("outtime") - pl.col("intime")) / DAY).alias("los")
    columns = ["subject_id", "hadm_id", "stay_id", "first_careunit", "last_careunit", "intime", "outtime"]
    return people.stays.sort("subject_id", "intime", "stay_id").select(*columns, los)


def transfers(seed: int, people: People) -> pl.DataFrame:
    """transfers: emergency department, ward, ICU (with a move inside of it), ward, discharge; times in seconds."""
    rng = stream(seed, "transfers")
    adm = people.admissions.select("subject_id", "hadm_id", "admittime", "dischtime", "edregtime")
    adm = adm.with_columns(pl.Series("ward", pick(rng, WARDS, adm.height).astype(str)))
    stays = people.stays.sort("hadm_id", "intime").with_columns(
        pl.col("intime").shift(-1).over("hadm_id").alias("next"), pl.int_range(pl.len()).over("hadm_id").alias("k")
    )
    opening = stays.filter(pl.col("k") == 0).select("hadm_id", pl.col("intime").alias("icu"))
    stays = stays.join(adm.select("hadm_id", "dischtime", "ward"), on="hadm_id", how="left", maintain_order="left")
    split = stays["intime"] + (
        (stays["outtime"] - stays["intime"]) * pl.Series(rng.uniform(0.2, 0.8, stays.height))
    ).cast(pl.Int64)
    stays = stays.with_columns(
        split.alias("split"), (pl.col("first_careunit") != pl.col("last_careunit")).alias("moved")
    )
    keys = ["subject_id", "hadm_id"]

    def leg(frame: pl.DataFrame, event: str, unit: pl.Expr, begin: str, end: pl.Expr) -> pl.DataFrame:
        return frame.select(
            *keys,
            pl.lit(event).alias("eventtype"),
            unit.alias("careunit"),
            pl.col(begin).alias("intime"),
            end.alias("outtime"),
        )

    nothing = pl.lit(None, dtype=pl.Int64)
    adm = adm.join(opening, on="hadm_id", how="left", maintain_order="left")
    back = stays.with_columns(pl.coalesce("next", "dischtime").alias("until")).filter(
        pl.col("until") > pl.col("outtime")
    )
    legs = [
        leg(
            adm.filter(pl.col("edregtime").is_not_null()),
            "ED",
            pl.lit("Emergency Department"),
            "edregtime",
            pl.col("admittime"),
        ),
        leg(adm, "admit", pl.col("ward"), "admittime", pl.coalesce("icu", "dischtime")),
        leg(stays, "transfer", pl.col("first_careunit"), "intime", pl.when("moved").then("split").otherwise("outtime")),
        leg(stays.filter("moved"), "transfer", pl.col("last_careunit"), "split", pl.col("outtime")),
        leg(back, "transfer", pl.col("ward"), "outtime", pl.col("until")),
        leg(adm, "discharge", pl.lit(None, dtype=pl.String), "dischtime", nothing),
    ]
    frame = pl.concat(legs).sort("subject_id", "hadm_id", "intime", "eventtype")
    ids = identifiers(rng, 30_000_000, 40_000_000, frame.height)
    columns = ["subject_id", "hadm_id", "transfer_id", "eventtype", "careunit", "intime", "outtime"]
    return frame.with_columns(pl.Series("transfer_id", ids)).select(columns)


def services(seed: int, people: People) -> pl.DataFrame:
    """services: the service on admission, and for some a change; times in seconds."""
    rng = stream(seed, "services")
    adm = people.admissions.select("subject_id", "hadm_id", "admittime", "dischtime")
    first, second = pick(rng, SERVICES, adm.height).astype(str), pick(rng, SERVICES, adm.height).astype(str)
    begin = adm["admittime"] + pl.Series(rng.integers(20, 300, adm.height))
    opening = adm.select("subject_id", "hadm_id").with_columns(
        begin.alias("transfertime"),
        pl.lit(None, dtype=pl.String).alias("prev_service"),
        pl.Series("curr_service", first),
    )
    changed = (rng.random(adm.height) < 0.14) & (first != second)
    when = adm["admittime"] + (
        (adm["dischtime"] - adm["admittime"]) * pl.Series(rng.uniform(0.1, 0.8, adm.height))
    ).cast(pl.Int64)
    change = adm.select("subject_id", "hadm_id").with_columns(
        when.alias("transfertime"), pl.Series("prev_service", first), pl.Series("curr_service", second)
    )
    return pl.concat([opening, change.filter(pl.Series(changed))]).sort("subject_id", "hadm_id", "transfertime")


def omr(seed: int, people: People) -> pl.DataFrame:
    """omr: outpatient heights, weights and pressures of half of the patients; chartdate in days since 1970."""
    rng = stream(seed, "omr")
    adm = (
        people.admissions.group_by("subject_id")
        .agg(pl.col("admittime").min(), pl.col("weight").first())
        .sort("subject_id")
    )
    adm = adm.filter(pl.Series(rng.random(adm.height) < 0.5))
    row = np.repeat(np.arange(adm.height), rng.integers(1, 5, adm.height))
    date = adm["admittime"].to_numpy()[row] // DAY - rng.integers(5, 700, len(row))
    name = pick(rng, {"Weight (Lbs)": 3, "Blood Pressure": 3, "BMI (kg/m2)": 2, "Height (Inches)": 1}, len(row)).astype(
        str
    )
    weight = adm["weight"].to_numpy()[row]
    high, low = rng.integers(100, 165, len(row)), rng.integers(55, 95, len(row))
    value = np.select(
        [name == "Weight (Lbs)", name == "BMI (kg/m2)", name == "Height (Inches)"],
        [
            np.round(weight * 2.2046, 1).astype(str),
            np.round(weight / 2.86, 1).astype(str),
            rng.integers(58, 77, len(row)).astype(str),
        ],
        np.char.add(np.char.add(high.astype(str), "/"), low.astype(str)),
    )
    frame = pl.DataFrame(
        {"subject_id": adm["subject_id"].to_numpy()[row], "chartdate": date, "result_name": name, "result_value": value}
    )
    frame = frame.sort("subject_id", "chartdate", "result_name", "result_value")
    sequence = pl.int_range(1, pl.len() + 1).over("subject_id", "chartdate", "result_name").alias("seq_num")
    return frame.with_columns(sequence).select("subject_id", "chartdate", "seq_num", "result_name", "result_value")
