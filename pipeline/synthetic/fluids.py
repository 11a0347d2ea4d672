"""outputevents, inputevents and procedureevents: urine and drains, a few infusions, lines, ventilation, imaging orders.

Urine comes from a catheter every hour or two, from voids and condom catheters at longer gaps, rarely from other routes
or with irrigation, whose inflow (227488) is charted as a volume of its own. Drains and the operating room's urine are
no urine output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.synthetic.people import HOUR
from pipeline.synthetic.streams import Floats, Ints, pick, stream

OUTPUT = ["subject_id", "hadm_id", "stay_id", "caregiver_id", "charttime", "storetime", "itemid", "value", "valueuom"]
INPUT = [
    "subject_id",
    "hadm_id",
    "stay_id",
    "caregiver_id",
    "starttime",
    "endtime",
    "storetime",
    "itemid",
    "amount",
    "amountuom",
    "rate",
    "rateuom",
    "orderid",
    "linkorderid",
    "ordercategoryname",
    "secondaryordercategoryname",
    "ordercomponenttypedescription",
    "ordercategorydescription",
    "patientweight",
    "totalamount",
    "totalamountuom",
    "isopenbag",
    "continueinnextdept",
    "statusdescription",
    "originalamount",
    "originalrate",
]
PROCEDURE = [
    "subject_id",
    "hadm_id",
    "stay_id",
    "caregiver_id",
    "starttime",
    "endtime",
    "storetime",
    "itemid",
    "value",
    "valueuom",
    "location",
    "locationcategory",
    "orderid",
    "linkorderid",
    "ordercategoryname",
    "ordercategorydescription",
    "patientweight",
    "isopenbag",
    "continueinnextdept",
    "statusdescription",
    "ORIGINALAMOUNT",
    "ORIGINALRATE",
]
ROUTES = {"foley": 0.70, "void": 0.20, "condom": 0.05, "other": 0.05}
STATUS = {"FinishedRunning": 8, "ChangeDose/Rate": 2, "Stopped": 1}
OTHER_ROUTES = {226563: 2, 226564: 2, 226584: 2, 226557: 1, 226567: 3}


def outputevents(seed: int, stays: pl.DataFrame, shown: dict[str, Floats]) -> pl.DataFrame:
    """outputevents of the stays (with `weight`), in order of stay, time and item; times in seconds."""
    rng = stream(seed, "outputevents")
    n = stays.height
    begin, hours = stays["intime"].to_numpy() // HOUR * HOUR, _hours(stays)
    route = pick(rng, ROUTES, n).astype(str)
    gap = np.select([route == "foley", route == "condom"], [np.where(rng.random(n) < 0.45, 1, 2), 4], 5)
    rate = stays["weight"].to_numpy() * 1.05 * np.exp(-0.55 * shown["kidney"] + 0.18 * rng.standard_normal(n))
    rate = np.clip(rate, 1, 420)
    item = np.select([route == "foley", route == "void", route == "condom"], [226559, 226560, 226561],
                     pick(rng, OTHER_ROUTES, n).astype(np.int64))  # fmt: skip
    row, hour = _rounds(rng, hours, gap, np.where(route == "foley", 0.96, 0.80))
    value = rate[row] * gap[row] * np.exp(0.30 * rng.standard_normal(len(row)))
    value = 5 * np.round(value / 5)
    value = np.where(rng.random(len(row)) < 1 / 3000, 11_000, value)  # mischarted
    parts = [(row, hour, item[row], value)]
    # a catheter that is flushed: inflow and outflow are charted, urine is the difference
    flushed = np.flatnonzero(rng.random(n) < 0.025)
    row, hour = _rounds(rng, hours[flushed], np.full(len(flushed), 6), np.full(len(flushed), 0.7))
    row = flushed[row]
    inflow = rng.choice([1500.0, 2000.0, 3000.0], len(row))
    outflow = inflow + 5 * np.round(rate[row] * rng.uniform(0.2, 1.2, len(row)) / 5)
    parts += [(row, hour, np.full(len(row), 227488), inflow), (row, hour, np.full(len(row), 227489), outflow)]
    for code, share, every, low, high in ((226588, 0.10, 4, 0, 120), (227510, 0.08, 6, 0, 80)):
        some = np.flatnonzero(rng.random(n) < share)
        row, hour = _rounds(rng, hours[some], np.full(len(some), every), np.full(len(some), 0.8))
        parts.append((some[row], hour, np.full(len(row), code), np.round(rng.uniform(low, high, len(row)))))
    some = np.flatnonzero(rng.random(n) < 0.05)
    parts.append(
        (
            some,
            np.zeros(len(some), dtype=np.int64),
            np.full(len(some), 226627),
            50 * np.round(rng.uniform(2, 24, len(some))),
        )
    )

    row, hour, codes, volume = (np.concatenate([part[i] for part in parts]) for i in range(4))
    time = begin[row] + hour * HOUR + np.where(rng.random(len(row)) < 0.10, rng.integers(1, 55, len(row)) * 60, 0)
    stored = time + 60 * np.floor(rng.exponential(20, len(row))).astype(np.int64) - 600
    return _keyed(stays, row, rng).with_columns(
        pl.Series("charttime", time), pl.Series("storetime", stored), pl.Series("itemid", codes),
        pl.Series("value", volume).cast(pl.Int64), pl.lit("ml").alias("valueuom"),
    ).sort("subject_id", "stay_id", "charttime", "itemid", "value").select(OUTPUT)  # fmt: skip


def _hours(stays: pl.DataFrame) -> Ints:
    """Whole hours of the clock from arrival to departure or death."""
    end = stays.select(pl.min_horizontal("outtime", "deathtime")).to_series().to_numpy()
    return np.asarray((end - stays["intime"].to_numpy() // HOUR * HOUR) // HOUR)


def _rounds(rng: np.random.Generator, hours: Ints, gap: Ints, kept: Floats) -> tuple[Ints, Ints]:
    """(row, hour) of rounds every gap[i] hours after arrival, of which a share is charted."""
    count = hours // gap
    row = np.repeat(np.arange(len(hours)), count)
    index = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + 1
    keep = rng.random(len(row)) < kept[row]
    return row[keep], (index * gap[row])[keep]


def _keyed(stays: pl.DataFrame, row: Ints, rng: np.random.Generator) -> pl.DataFrame:
    return stays.select("subject_id", "hadm_id", "stay_id")[row].with_columns(
        pl.Series("caregiver_id", rng.integers(1000, 99_999, len(row)))
    )


def inputevents(seed: int, stays: pl.DataFrame, shown: dict[str, Floats]) -> pl.DataFrame:
    """A few infusions and boluses a stay: saline, dextrose, antibiotics, vasopressor and sedation; times in seconds."""
    rng = stream(seed, "inputevents")
    n = stays.height
    begin, hours = stays["intime"].to_numpy(), _hours(stays)
    drip, fluid, drug = (
        ("01-Drips", "Continuous Med"),
        ("02-Fluids (Crystalloids)", "Continuous IV"),
        ("08-Antibiotics (IV)", "Drug Push"),
    )
    pressor = rng.random(n) < 1 / (1 + np.exp(1.8 - 1.6 * shown["circulation"]))
    plan: list[tuple[int, Any, tuple[str, str], str, float, str | None, int]] = [
        (225158, rng.random(n) < 0.8, fluid, "ml", 100.0, "mL/hour", 12),
        (220949, rng.random(n) < 0.4, fluid, "ml", 50.0, "mL/hour", 16),
        (225798, rng.random(n) < 0.3, drug, "dose", 1.0, None, 12),
        (221906, pressor, drip, "mg", 0.1, "mcg/kg/min", 6),
        (222168, stays["ventilated"].to_numpy(), drip, "mg", 30.0, "mcg/kg/min", 8),
    ]
    frames = []
    for item, gets, (category, description), unit, level, rate_unit, every in plan:
        who = np.flatnonzero(gets)
        row, hour = _rounds(rng, np.minimum(hours[who], 72), np.full(len(who), every), np.full(len(who), 0.6))
        row = who[row]
        m = len(row)
        start = (begin[row] + hour * HOUR) // 60 * 60
        lasts = np.where(rate_unit is None, 1, rng.integers(30, 300, m))
        rate = np.round(level * np.exp(0.4 * rng.standard_normal(m)), 4)
        amount = np.ones(m) if rate_unit is None else np.round(rate * lasts / 60, 4)
        order = rng.integers(10_000, 9_999_999, m)
        frames.append(
            _keyed(stays, row, rng).with_columns(
                pl.Series("starttime", start), pl.Series("endtime", start + lasts * 60),
                pl.Series("storetime", start + rng.integers(-5, 40, m) * 60), pl.Series("itemid", np.full(m, item)),
                pl.Series("amount", amount), pl.lit(unit).alias("amountuom"),
                pl.Series("rate", rate if rate_unit else [None] * m, dtype=pl.Float64),
                pl.lit(rate_unit, dtype=pl.String).alias("rateuom"),
                pl.Series("orderid", order), pl.Series("linkorderid", order),
                pl.lit(category).alias("ordercategoryname"),
                pl.lit(None if category == "02-Fluids (Crystalloids)" else "02-Fluids (Crystalloids)", dtype=pl.String)
                .alias("secondaryordercategoryname"),
                pl.lit("Main order parameter").alias("ordercomponenttypedescription"),
                pl.lit(description).alias("ordercategorydescription"),
                pl.Series("patientweight", stays["weight"].to_numpy()[row].round(1)),
                pl.Series("totalamount", rng.choice([50, 100, 250, 500, 1000], m)),
                pl.lit("ml").alias("totalamountuom"),
                pl.lit(0).alias("isopenbag"), pl.lit(0).alias("continueinnextdept"),
                pl.Series("statusdescription", pick(rng, STATUS, m).astype(str)),
                pl.Series("originalamount", amount), pl.Series("originalrate", rate),
            )
        )  # fmt: skip
    return pl.concat(frames).sort("subject_id", "stay_id", "starttime", "itemid", "orderid").select(INPUT)


def procedureevents(seed: int, stays: pl.DataFrame, radiographs: pl.DataFrame) -> pl.DataFrame:
    """Lines, ventilation, cultures, and an order for each of the `radiographs` (stay_id, time); times in seconds."""
    rng = stream(seed, "procedureevents")
    n = stays.height
    begin, hours = stays["intime"].to_numpy(), _hours(stays)
    line, tube = stays["arterial"].to_numpy(), stays["ventilated"].to_numpy()
    where = {"Right Radial": 3, "Left Radial": 3, "Right Femoral": 1, "Right IJ": 1}
    frames = []
    for item, gets, category, place in (
        (224275, rng.random(n) < 0.7, "Peripheral Lines", ("Right Antecubital", "Peripheral")),
        (225752, line, "Invasive Lines", (None, "Invasive Arterial")),
        (225792, tube, "Ventilation", (None, None)),
        (225401, rng.random(n) < 0.3, "Procedures", (None, None)),
    ):
        row = np.flatnonzero(gets)
        start = (begin[row] + rng.uniform(0, 3, len(row)) * HOUR).astype(np.int64) // 60 * 60
        task = item == 225401
        minutes = (
            np.full(len(row), 1)
            if task
            else np.maximum((hours[row] * 60 * rng.uniform(0.3, 0.9, len(row))).astype(np.int64), 5)
        )
        spot = pick(rng, where, len(row)).astype(str).tolist() if item == 225752 else [place[0]] * len(row)
        frames.append(_procedure(stays, row, rng, item, category, start, minutes, task, spot, place[1]))
    index = pl.DataFrame({"stay_id": stays["stay_id"], "row": np.arange(n)})
    ordered = radiographs.join(index, on="stay_id", how="inner").sort("row", "time")
    row, start = ordered["row"].to_numpy(), ordered["time"].to_numpy() // 60 * 60
    one = np.ones(len(row), dtype=np.int64)
    frames.append(_procedure(stays, row, rng, 225459, "Imaging", start, one, True, [None] * len(row), None))
    return pl.concat(frames).sort("subject_id", "stay_id", "starttime", "itemid", "orderid").select(PROCEDURE)


def _procedure(
    stays: pl.DataFrame, row: Ints, rng: np.random.Generator, item: int, category: str, start: Ints, minutes: Ints,
    task: bool, location: list[str | None], location_category: str | None,
) -> pl.DataFrame:  # fmt: skip
    order = rng.integers(10_000, 9_999_999, len(row))
    return _keyed(stays, row, rng).with_columns(
        pl.Series("starttime", start), pl.Series("endtime", start + minutes * 60),
        pl.Series("storetime", start + minutes * 60), pl.Series("itemid", np.full(len(row), item)),
        pl.Series("value", minutes), pl.lit("None" if task else "min").alias("valueuom"),
        pl.Series("location", location, dtype=pl.String),
        pl.lit(location_category, dtype=pl.String).alias("locationcategory"),
        pl.Series("orderid", order), pl.Series("linkorderid", order), pl.lit(category).alias("ordercategoryname"),
        pl.lit("Task" if task else "ContinuousProcess").alias("ordercategorydescription"),
        pl.Series("patientweight", stays["weight"].to_numpy()[row].round(1)),
        pl.lit(0 if task else 1).alias("isopenbag"), pl.lit(0).alias("continueinnextdept"),
        pl.lit("FinishedRunning").alias("statusdescription"),
        pl.Series("ORIGINALAMOUNT", minutes), pl.lit(0 if task else 1).alias("ORIGINALRATE"),
    )  # fmt: skip
