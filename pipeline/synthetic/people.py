"""Patients, their admissions and ICU stays: who, when, where, how it ended; with the causes and planted probabilities.

All times are int64 seconds since 1970 in the patient's shifted calendar (local wall-clock). A patient's calendar is
shifted by whole years: the year that counts for eras, ICD versions and the years of MIMIC-CXR is `year` (unshifted), as
in MIMIC-IV, where only anchor_year_group tells it roughly. Admissions are drawn in rounds (every patient's first,
second, ...), because each begins after the one before has ended, and none follows a death.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.params import Synthetic
from pipeline.synthetic import model, traps
from pipeline.synthetic.streams import Floats, Ints, identifiers, pick, sigmoid, stream

HOUR, DAY = 3600, 86400
ADMISSIONS = {1: 0.66, 2: 0.21, 3: 0.09, 4: 0.04}
ICU_STAYS = {0: 0.11, 1: 0.80, 2: 0.07, 3: 0.02}  # in an admission
LONG_SHARE = 0.57  # stays of 48 h and more
SHORT_DEATHS, WARD_DEATHS, MINORS = 0.05, 0.035, 0.02
UNITS = {
    "Medical Intensive Care Unit (MICU)": 0.22,
    "Surgical Intensive Care Unit (SICU)": 0.17,
    "Medical/Surgical Intensive Care Unit (MICU/SICU)": 0.17,
    "Cardiac Vascular Intensive Care Unit (CVICU)": 0.17,
    "Trauma SICU (TSICU)": 0.12,
    "Coronary Care Unit (CCU)": 0.11,
    "Neuro Surgical Intensive Care Unit (Neuro SICU)": 0.02,
    "Neuro Intermediate": 0.01,
    "Neuro Stepdown": 0.01,
}
LATER_UNITS = {
    "Intensive Care Unit (ICU)": 0.03,
    "Surgery/Vascular/Intermediate": 0.03,
    "Medicine/Cardiology Intermediate": 0.02,
    "Surgery/Trauma": 0.01,
    "Medicine": 0.01,
    "Neurology": 0.01,
    "PACU": 0.01,
}
TYPES = {  # admission_type: share, group, usual admission_location
    "EW EMER.": (0.44, "EMERGENCY", "EMERGENCY ROOM"),
    "URGENT": (0.13, "EMERGENCY", "TRANSFER FROM HOSPITAL"),
    "DIRECT EMER.": (0.05, "EMERGENCY", "PHYSICIAN REFERRAL"),
    "OBSERVATION ADMIT": (0.15, "OBSERVATION", "EMERGENCY ROOM"),
    "EU OBSERVATION": (0.02, "OBSERVATION", "EMERGENCY ROOM"),
    "DIRECT OBSERVATION": (0.02, "OBSERVATION", "PHYSICIAN REFERRAL"),
    "AMBULATORY OBSERVATION": (0.01, "OBSERVATION", "PROCEDURE SITE"),
    "SURGICAL SAME DAY ADMISSION": (0.11, "ELECTIVE", "PHYSICIAN REFERRAL"),
    "ELECTIVE": (0.07, "ELECTIVE", "PHYSICIAN REFERRAL"),
}

DESTINATIONS = {
    "HOME HEALTH CARE": 28, "HOME": 27, "SKILLED NURSING FACILITY": 20, "REHAB": 9, "CHRONIC/LONG TERM ACUTE CARE": 6,
    None: 4, "HOSPICE": 3, "AGAINST ADVICE": 1, "PSYCH FACILITY": 1,
}  # fmt: skip
UNDER_65 = {"Other": 7, "Medicaid": 2, "Medicare": 1}
MARITAL = {"MARRIED": 42, "SINGLE": 32, "WIDOWED": 13, "DIVORCED": 8, None: 5}


@dataclass(frozen=True)
class Years:
    """The years in which a group of patients came: shares of the anchor_year_groups, first and last year, ICUs."""

    groups: dict[str, float]
    first: int
    last: int
    units: dict[str, float]


UNTIL_2019 = Years(
    {"2008 - 2010": 0.12, "2011 - 2013": 0.34, "2014 - 2016": 0.34, "2017 - 2019": 0.20}, 2008, 2019, UNITS
)
UNTIL_2022 = Years({"2020 - 2022": 1.0}, 2020, 2022, UNITS | LATER_UNITS)  # whom MIMIC-IV 3.1 adds
NO_IDS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class People:
    """A row a subject; a row an admission, with its causes z_*; a row an ICU stay, sorted by stay_id."""

    patients: pl.DataFrame
    admissions: pl.DataFrame
    stays: pl.DataFrame


def populate(params: Synthetic, count: int, years: Years = UNTIL_2019, taken: Ints = NO_IDS) -> People:
    """`count` patients with their admissions and stays, without the ids in `taken`."""
    patients = _patients(params.seed, count, years, taken)
    rounds = [_round(params, years, patients, None, 1)]
    for k in range(2, max(ADMISSIONS) + 1):
        rounds.append(_round(params, years, patients, rounds[-1][0], k))
    admissions, stays = _readmit_early(
        params, pl.concat([a for a, _ in rounds]).sort("hadm_id"), pl.concat([s for _, s in rounds])
    )
    rng = stream(params.seed, "identifiers")
    ids = identifiers(rng, 20_000_000, 30_000_000, admissions.height, taken)
    admissions = admissions.with_columns(pl.Series("key", admissions["hadm_id"]), pl.Series("hadm_id", ids))
    stays = stays.rename({"hadm_id": "key"}).join(
        admissions.select("key", "hadm_id", "subject_id", "admission_group", "year", "gender"), on="key", how="left"
    )
    stays = stays.sort("key", "number").with_columns(
        pl.Series("stay_id", identifiers(rng, 30_000_000, 40_000_000, stays.height, taken))
    )
    causes = admissions.select("hadm_id", *[f"z_{name}" for name in model.CAUSES])
    stays = stays.join(causes, on="hadm_id", how="left").sort("stay_id")
    last = admissions.group_by("subject_id").agg(
        pl.col("dischtime").max().alias("last"), pl.col("deathtime").max().alias("died")
    )
    patients = patients.join(last, on="subject_id", how="left")
    return People(_dates_of_death(params.seed, patients), admissions.drop("key"), stays.drop("key"))


def _patients(seed: int, count: int, years: Years, taken: Ints) -> pl.DataFrame:
    rng = stream(seed, "patients")
    group = pick(rng, years.groups, count).astype(str)
    age = np.clip(np.rint(rng.normal(65, 16, count)), 18, 102)
    age = np.where(age > 89, 91, age)  # MIMIC-IV groups ages above 89
    minor = rng.random(count) < MINORS
    real = np.array([int(text[:4]) for text in group]) + rng.integers(0, 3, count)
    race = {"WHITE": 0.60, "BLACK/AFRICAN AMERICAN": 0.13, "UNKNOWN": 0.06, "PORTUGUESE": 0.015, "OTHER": 0.03}
    race |= {"HISPANIC/LATINO - PUERTO RICAN": 0.025, "HISPANIC/LATINO - DOMINICAN": 0.02, "HISPANIC OR LATINO": 0.01}
    race |= {"BLACK/CAPE VERDEAN": 0.015, "WHITE - OTHER EUROPEAN": 0.02, "WHITE - RUSSIAN": 0.02, "ASIAN": 0.015}
    race |= {"ASIAN - CHINESE": 0.015, "UNABLE TO OBTAIN": 0.015, "PATIENT DECLINED TO ANSWER": 0.01}
    return pl.DataFrame(
        {
            "subject_id": np.sort(identifiers(rng, 10_000_000, 20_000_000, count, taken)),
            "gender": np.where(rng.random(count) < 0.55, "M", "F"),
            "anchor_age": np.where(minor, rng.integers(14, 18, count), age).astype(np.int64),
            "anchor_year": rng.integers(2110, 2206, count),
            "anchor_year_group": group,
            "real_year": real,
            "race": pick(rng, race, count).astype(str),
            "language": np.where(rng.random(count) < 0.91, "ENGLISH", "?"),
            "admissions": pick(rng, ADMISSIONS, count).astype(np.int64),
            "weight": np.clip(rng.normal(82, 19, count), 40, 180),
        }
    )


def _year_start(year: Ints) -> Ints:
    return np.asarray((year - 1970).astype("datetime64[Y]").astype("datetime64[s]").astype(np.int64))


def _year_of(seconds: Ints) -> Ints:
    return np.asarray(seconds.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970)


def _minute(seconds: NDArray[np.float64] | Ints) -> Ints:
    return np.asarray(np.floor(np.asarray(seconds) / 60).astype(np.int64) * 60)


def _round(
    params: Synthetic, years: Years, patients: pl.DataFrame, before: pl.DataFrame | None, number: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every patient's admission of that number and its ICU stays; `before` holds the admissions of the round before."""
    rng = stream(params.seed, "admissions", number)
    if before is None:
        who = patients
        shift = pick(rng, {-1: 0.04, 0: 0.66, 1: 0.15, 2: 0.09, 3: 0.06}, who.height).astype(np.int64)
        real = who["real_year"].to_numpy() + shift
        shift = np.where((real < years.first) | (real > years.last), 0, shift)
        start = _year_start(who["anchor_year"].to_numpy() + shift) + rng.integers(0, 364 * DAY, who.height)
    else:
        alive = before.filter(pl.col("deathtime").is_null()).select("subject_id", "dischtime")
        who = patients.filter(pl.col("admissions") >= number).join(
            alive, on="subject_id", how="inner", maintain_order="left"
        )
        gap = np.where(
            rng.random(who.height) < 0.4, rng.uniform(2, 30, who.height), rng.exponential(220, who.height) + 20
        )
        start = who["dischtime"].to_numpy() + (gap * DAY).astype(np.int64)
        year = _year_of(start) - who["anchor_year"].to_numpy() + who["real_year"].to_numpy()
        who, start = who.filter(pl.Series(year <= years.last)), start[year <= years.last]
    return _admit(params, rng, years.units, who, _minute(start), number)


def _admit(
    params: Synthetic, rng: np.random.Generator, units: dict[str, float], who: pl.DataFrame, start: Ints, number: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    n = who.height
    kind = pick(rng, {name: row[0] for name, row in TYPES.items()}, n).astype(str)
    group = np.array([TYPES[name][1] for name in kind], dtype=str)
    place = np.array([TYPES[name][2] for name in kind], dtype=str)
    other = pick(
        rng, {"CLINIC REFERRAL": 3, "WALK-IN/SELF REFERRAL": 2, "TRANSFER FROM SKILLED NURSING FACILITY": 1}, n
    )
    place = np.where(rng.random(n) < 0.10, other.astype(str), place)
    causes = {name: cause.draw(rng, n) for name, cause in model.CAUSES.items()}
    stays, left, dead = _stays(params, rng, units, causes, group, start)

    ward = np.clip(rng.lognormal(np.log(3.2), 0.8, n), 0.1, 40) * DAY
    ward_death = np.isnan(dead) & (rng.random(n) < WARD_DEATHS)
    end = np.where(np.isnan(dead), left + ward, dead)
    death = np.where(ward_death, end, dead)
    died = ~np.isnan(death)
    deathtime = _minute(np.where(died, death, 0))
    # the habit of some rows: discharge at the midnight before the hour of death
    midnight = deathtime // DAY * DAY
    dischtime = np.where(died, np.where(rng.random(n) < 0.15, midnight, deathtime), _minute(end))
    year = _year_of(start) - who["anchor_year"].to_numpy() + who["real_year"].to_numpy()
    age = who["anchor_age"].to_numpy() + _year_of(start) - who["anchor_year"].to_numpy()
    via_ed = (place == "EMERGENCY ROOM") | (rng.random(n) < 0.05)
    goes = pick(rng, DESTINATIONS, n)
    insurance = np.where(age >= 65, pick(rng, {"Medicare": 8, "Other": 2}, n), pick(rng, UNDER_65, n)).astype(str)
    key = who["subject_id"].to_numpy() * 10 + number
    admissions = pl.DataFrame(
        {
            "subject_id": who["subject_id"],
            "hadm_id": key,
            "gender": who["gender"],
            "admittime": start,
            "dischtime": dischtime.astype(np.int64),
            "deathtime": pl.Series(deathtime).set(pl.Series(~died), None),
            "admission_type": kind,
            "admission_group": group,
            "admission_location": place,
            "discharge_location": pl.Series(np.where(died, "DIED", goes).tolist(), dtype=pl.String),
            "insurance": insurance,
            "language": who["language"],
            "marital_status": pl.Series(pick(rng, MARITAL, n).tolist(), dtype=pl.String),
            "race": who["race"],
            "edregtime": pl.Series(_minute(start - rng.uniform(1, 9, n) * HOUR)).set(pl.Series(~via_ed), None),
            "edouttime": pl.Series(_minute(start + rng.uniform(0.3, 4, n) * HOUR)).set(pl.Series(~via_ed), None),
            "hospital_expire_flag": died.astype(np.int64),
            "year": year,
            # the fraction of the calendar year that has gone by at discharge tells ICD-9 from ICD-10 (October 2015)
            "year_end": year + (dischtime - _year_start(_year_of(start))) / (365.25 * DAY),
            "weight": who["weight"].to_numpy() * np.exp(rng.normal(0, 0.04, n)),
        }
        | {f"z_{name}": values for name, values in causes.items()}
    )  # fmt: skip
    return admissions, stays.with_columns(pl.Series("hadm_id", key[stays["row"].to_numpy()])).drop("row")


def _stays(
    params: Synthetic,
    rng: np.random.Generator,
    units: dict[str, float],
    causes: dict[str, Floats],
    group: NDArray[np.str_],
    start: Ints,
) -> tuple[pl.DataFrame, Floats, Floats]:
    """ICU stays of n admissions, when each admission's last one ended, and the time of a death in the ICU (or NaN).

    How many stays an admission will have is settled beforehand; only its last one may end in death. Whether a stay
    lasts 48 h depends on no cause, so that the planted probabilities hold within the cohort.
    """
    n = len(start)
    planned = pick(rng, ICU_STAYS, n).astype(np.int64)
    mortality = model.probability(model.ICU_MORTALITY, causes, params.signal)
    location = model.los_location(causes, params.signal)
    wait = np.where(group == "ELECTIVE", rng.uniform(4, 14, n), rng.exponential(9, n) + 0.2) * HOUR
    left, dead = (start + rng.uniform(0.5, 4, n) * DAY), np.full(n, np.nan)
    begin = start + wait
    frames = []
    for number in range(1, max(ICU_STAYS) + 1):
        row = np.flatnonzero(planned >= number)
        m, last = len(row), planned[row] == number
        draw = rng.random(m)
        # dead before hour 48, but moved out, on paper, after it
        paper = last & (draw < params.traps.dead_before_48h)
        long = ~paper & (draw < params.traps.dead_before_48h + LONG_SHARE)
        days = 2 + np.exp(location[row] + model.LOS_SPREAD * rng.standard_normal(m))
        days = np.where(long, np.minimum(days, model.LOS_LIMIT_DAYS), np.clip(rng.gamma(3.2, 9, m), 5, 47.9) / 24)
        days = np.where(paper, rng.uniform(48.2, 52, m) / 24, days)
        intime = np.floor(begin[row]).astype(np.int64)
        outtime = intime + np.maximum(np.rint(days * DAY), np.where(long, 2 * DAY, 0)).astype(np.int64)
        chance = np.where(long, mortality[row], SHORT_DEATHS)
        dies = (last & (rng.random(m) < chance)) | paper
        # on paper the bed is left one to five hours after death; death in a long stay comes after hour 48
        slack = np.where(long, 0.9 * (outtime - intime - 2 * DAY), 0.5 * (outtime - intime))
        delay = np.minimum(rng.uniform(0.6, 5, m) * HOUR, slack)
        death = np.where(paper, intime + rng.uniform(41, 47.9, m) * HOUR, outtime - delay)
        death = np.where(long, np.ceil(death / 60) * 60, np.floor(death / 60) * 60)
        death = np.where(long & (death <= intime + 2 * DAY), death + 60, death)
        dead[row[dies]] = death[dies]
        left[row] = outtime
        begin[row] = outtime + rng.uniform(8, 110, m) * HOUR
        unit = pick(rng, units, m).astype(str)
        moved = rng.random(m) < 0.08
        frames.append(
            pl.DataFrame(
                {
                    "row": row,
                    "number": np.full(m, number),
                    "first_careunit": unit,
                    "last_careunit": np.where(moved, pick(rng, units, m).astype(str), unit),
                    "intime": intime,
                    "outtime": outtime,
                    "deathtime": pl.Series(np.where(dies, death, 0).astype(np.int64)).set(pl.Series(~dies), None),
                    "long": long,
                    "modelled": long & last,
                    "p_icu_mortality": mortality[row],
                }
            )
        )
    return pl.concat(frames), left, dead


def _readmit_early(
    params: Synthetic, admissions: pl.DataFrame, stays: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The trap image_of_two_stays: moves the second admission of each pair to the days of the first.

    Stays get the columns `shares`, by which the second one "lends" its image and the first one "borrows" it, and, of
    the second, `shared_until`: the end of the first one's window, in seconds.
    """
    pairs = traps.early_readmissions(params, admissions, stays)
    days = pairs.select("hadm_id", "days")
    back = pl.col("days") * DAY
    year = pl.from_epoch("admittime").dt.year()
    new_year = pl.from_epoch(pl.col("admittime") - back).dt.truncate("1y")
    real = pl.col("year") + new_year.dt.year() - year
    gone = (pl.col("dischtime") - back - new_year.dt.epoch("s")) / (365.25 * DAY)
    moved = pl.col("days").is_not_null()
    admissions = (
        admissions.join(days, on="hadm_id", how="left", maintain_order="left")
        .with_columns(
            pl.when(moved).then(real).otherwise("year").alias("year"),
            pl.when(moved).then(real + gone).otherwise("year_end").alias("year_end"),
            *[
                pl.when(moved).then(pl.col(name) - back).otherwise(name).alias(name)
                for name in ("admittime", "dischtime", "deathtime", "edregtime", "edouttime")
            ],
        )
        .drop("days")
    )
    lent = pairs.select("hadm_id", "days", pl.lit("lends").alias("shares"), pl.col("until").alias("shared_until"))
    borrowed = pairs.select(
        pl.col("first").alias("hadm_id"), pl.lit(0, pl.Int64).alias("days"), pl.lit("borrows").alias("shares"),
        pl.lit(None, pl.Int64).alias("shared_until"),
    )  # fmt: skip
    stays = stays.join(pl.concat([lent, borrowed]), on="hadm_id", how="left", maintain_order="left").with_columns(
        pl.col("intime", "outtime", "deathtime") - pl.col("days").fill_null(0) * DAY
    )
    return admissions, stays.drop("days")


def _dates_of_death(seed: int, patients: pl.DataFrame) -> pl.DataFrame:
    """dod (days since 1970): of a death in hospital or within the year after the last discharge, or null."""
    rng = stream(seed, "dod")
    later = patients["last"].to_numpy() + rng.exponential(150 * DAY, patients.height)
    known = rng.random(patients.height) < 0.12
    died = patients["died"].to_numpy()
    value = np.where(
        np.isnan(died), np.where(known & (later < patients["last"].to_numpy() + 365 * DAY), later, np.nan), died
    )
    return patients.with_columns(pl.Series("dod", value // DAY).fill_nan(None).cast(pl.Int32)).drop("last", "died")


def effective_length(stays: pl.DataFrame) -> Floats:
    """Hours that a patient spends in the ICU alive: until outtime or death."""
    end = pl.min_horizontal("outtime", "deathtime")
    return stays.select((end - pl.col("intime")).cast(pl.Float64) / HOUR).to_series().to_numpy()


def shows(rng: np.random.Generator, values: Floats, name: str, noise: float, share: Floats | float = 1.0) -> Floats:
    """What a modality shows of a cause: correlated with it by `share`, as variable as it, and with noise of its own.

    The rest of the variance is another draw of the cause, so that findings look alike in size but tell less. A cause
    on two levels is replaced by another draw with chance 1 - share; one of two values has no noise.
    """
    cause = model.CAUSES[name]
    other = cause.draw(rng, len(values))
    if cause.share is None:
        mixed = share * values + np.sqrt(1 - np.square(share)) * other
    else:
        mixed = np.where(rng.random(len(values)) < share, values, other)
    return np.asarray(mixed + noise * rng.standard_normal(len(values)) if cause.spread else mixed)


def chance(rng: np.random.Generator, logit: Floats) -> NDArray[np.bool_]:
    """True with probability sigmoid(logit)."""
    return np.asarray(rng.random(len(logit)) < sigmoid(logit))
