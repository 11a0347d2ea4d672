"""labevents: panels before the ICU, on arrival and every morning, and blood gases; results come an hour after the draw.

Habits of the real table: a quarter of the rows has no hadm_id (drawn in the emergency department, or never linked),
results that were blotted out ("___"), comments, results without a number, those below the method's limit, which stands
in the comment alone ("<0.01."), a few without a storetime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.synthetic.items import LABS_TABLE
from pipeline.synthetic.people import DAY, HOUR
from pipeline.synthetic.streams import Floats, Ints, identifiers, stream

COLUMNS = [
    "labevent_id",
    "subject_id",
    "hadm_id",
    "specimen_id",
    "itemid",
    "order_provider_id",
    "charttime",
    "storetime",
    "value",
    "valuenum",
    "valueuom",
    "ref_range_lower",
    "ref_range_upper",
    "flag",
    "priority",
    "comments",
]
# Chance of a panel at a draw: (first draw of an admission, later draws).
PANELS = {
    "chemistry": (1.0, 0.97),
    "count": (1.0, 0.9),
    "clotting": (0.7, 0.35),
    "liver": (0.5, 0.12),
    "rare": (0.2, 0.02),
}
PROVIDERS = [f"P{a}{b}{c}" for a in "123456789" for b in "ABKTXZ" for c in ("0Q7", "4RM", "88C", "N1E")]
FASTING = "IF FASTING, 70-100 NORMAL, >125 PROVISIONAL DIABETES."


def labevents(seed: int, admissions: pl.DataFrame, stays: pl.DataFrame, shown: dict[str, Floats]) -> pl.DataFrame:
    """All rows, by labevent_id, times in seconds; `shown`: what the EHR shows of each cause, by row of `admissions`."""
    draws = _draws(stream(seed, "labevents", "draws"), admissions, stays)
    adm = draws["adm"].to_numpy()
    frames = []
    for item, lab in LABS_TABLE.items():
        rng = stream(seed, "labevents", item)
        mask = draws["gas"].to_numpy() if lab.panel == "gas" else draws[lab.panel].to_numpy()
        who = np.flatnonzero(mask)
        lift = sum((slope * shown[name][adm[who]] for name, slope in lab.causes), np.zeros(len(who)))
        spread = lab.spread * rng.standard_normal(len(who))
        value = lab.median * np.exp(lift + spread) if lab.log else lab.median + lift + spread
        limit = 10.0**-lab.digits if lab.median > 0 else -np.inf  # a base excess may be negative
        below = value < limit
        value = np.round(np.maximum(value, limit), lab.digits)
        frames.append(
            pl.DataFrame(
                {
                    "draw": who,
                    "itemid": np.full(len(who), item),
                    "valuenum": value,
                    "below": below,
                    "blot": rng.random(len(who)),
                }
            )
        )
    return _finish(stream(seed, "labevents", "rows"), pl.concat(frames), draws, admissions)


def _draws(rng: np.random.Generator, admissions: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    """A row a draw of blood: adm (row of admissions), time, linked (has a hadm_id), and which panels were run."""
    n = admissions.height
    start = admissions["admittime"].to_numpy()
    adm: list[Ints] = []
    time: list[Ints] = []
    gas: list[Any] = []
    linked: list[Any] = []
    first: list[Any] = []

    def add(rows: Ints, when: Ints, is_gas: bool, chance: float, opening: bool) -> None:
        adm.append(rows)
        time.append(when // 60 * 60)
        gas.append(np.full(len(rows), is_gas))
        linked.append(rng.random(len(rows)) < chance)
        first.append(np.full(len(rows), opening))

    early = np.flatnonzero(rng.random(n) < 0.75)
    add(early, (start[early] - rng.uniform(0.5, 6, len(early)) * HOUR).astype(np.int64), False, 0.15, True)
    add(np.arange(n), (start + rng.uniform(0.5, 4, n) * HOUR).astype(np.int64), False, 0.93, True)
    place = {key: i for i, key in enumerate(admissions["hadm_id"].to_list())}
    rows = np.array([place[key] for key in stays["hadm_id"].to_list()], dtype=np.int64)
    begin, end = (
        stays["intime"].to_numpy(),
        stays.select(pl.min_horizontal("outtime", "deathtime")).to_series().to_numpy(),
    )
    add(rows, (begin + rng.uniform(0.2, 1.5, len(rows)) * HOUR).astype(np.int64), False, 0.93, False)
    for day in range(int(((end - begin) // DAY).max()) + 2):  # mornings
        when = (begin // DAY + day) * DAY + (rng.normal(4.5, 0.7, len(rows)) * HOUR).astype(np.int64)
        here = (when > begin) & (when < end) & (rng.random(len(rows)) < 0.97)
        add(rows[here], when[here], False, 0.90, False)
    line = stays["arterial"].to_numpy() | stays["ventilated"].to_numpy()
    for k in range(8):
        when = (begin + (6 * k + rng.uniform(0, 5, len(rows))) * HOUR).astype(np.int64)
        here = line & (when < end) & (rng.random(len(rows)) < 0.8 / (1 + 0.2 * k))
        add(rows[here], when[here], True, 0.90, False)

    opening = np.concatenate(first)
    columns: dict[str, Any] = {
        "adm": np.concatenate(adm),
        "time": np.concatenate(time),
        "gas": np.concatenate(gas),
        "linked": np.concatenate(linked),
    }
    for panel, (at_first, later) in PANELS.items():
        columns[panel] = ~columns["gas"] & (rng.random(len(opening)) < np.where(opening, at_first, later))
    frame = pl.DataFrame(columns)
    # the result comes an hour after the draw (median), gases sooner; a few are never stamped
    delay = np.exp(rng.normal(np.log(66), 0.65, frame.height)) * np.where(frame["gas"].to_numpy(), 0.1, 1.0)
    stored = frame["time"].to_numpy() + (np.ceil(delay) * 60).astype(np.int64)
    return frame.with_columns(
        pl.Series("stored", stored).set(pl.Series(rng.random(frame.height) < 0.008), None),
        pl.Series("specimen_id", identifiers(rng, 1_000_000, 100_000_000, frame.height)),
        pl.Series("priority", np.where(rng.random(frame.height) < 0.55, "STAT", "ROUTINE")).set(frame["gas"], None),
        pl.Series("provider", rng.integers(0, 6 * len(PROVIDERS), frame.height)),
    )  # fmt: skip


def _finish(
    rng: np.random.Generator, rows: pl.DataFrame, draws: pl.DataFrame, admissions: pl.DataFrame
) -> pl.DataFrame:
    draw = draws[rows["draw"].to_numpy()]
    adm = draw["adm"].to_numpy()
    labs = pl.DataFrame(
        [(i, x.unit, x.low, x.high, x.digits) for i, x in LABS_TABLE.items()],
        schema={
            "itemid": pl.Int64,
            "valueuom": pl.String,
            "ref_range_lower": pl.Float64,
            "ref_range_upper": pl.Float64,
            "digits": pl.Int64,
        },
        orient="row",
    )
    frame = rows.with_columns(
        admissions["subject_id"][adm].alias("subject_id"),
        pl.when(draw["linked"]).then(admissions["hadm_id"][adm]).alias("hadm_id"),
        draw["specimen_id"],
        draw["time"].alias("charttime"),
        draw["stored"].alias("storetime"),
        draw["priority"],
        pl.Series(
            "order_provider_id", [PROVIDERS[i] if i < len(PROVIDERS) else None for i in draw["provider"].to_list()]
        ),
    ).join(labs, on="itemid", how="left", maintain_order="left")
    gone = pl.col("below") | (pl.col("blot") < 0.002)  # a result without a number
    number = pl.col("valuenum")
    text = pl.when(pl.col("digits") == 0).then(number.cast(pl.Int64).cast(pl.String)).otherwise(number.cast(pl.String))
    frame = frame.with_columns(
        pl.when(gone).then(None).otherwise(text).alias("number"),
        pl.when("below").then(None).when(pl.col("blot") < 0.015).then(pl.lit("___")).otherwise(text).alias("value"),
        pl.when((number < pl.col("ref_range_lower")) | (number > pl.col("ref_range_upper")))
        .then(pl.lit("abnormal"))
        .alias("flag"),
        pl.when("below")
        .then(pl.format("<{}.", text))
        .when(gone)
        .then(pl.lit("HEMOLYZED, MODERATELY."))
        .when((pl.col("itemid") == 50931) & (pl.col("blot") > 0.3))
        .then(pl.lit(FASTING))
        .when(pl.col("blot") > 0.99)
        .then(pl.lit("___"))
        .alias("comments"),
        _plain(pl.col("ref_range_lower")),
        _plain(pl.col("ref_range_upper")),
    )
    frame = (
        frame.sort("subject_id", "charttime", "specimen_id", "itemid")
        .drop("valuenum", "below")
        .rename({"number": "valuenum"})
    )
    return frame.with_columns(pl.Series("labevent_id", 1 + np.cumsum(rng.integers(1, 4, frame.height)))).select(COLUMNS)


def _plain(column: pl.Expr) -> pl.Expr:
    """A number as text without a superfluous .0."""
    return (
        pl.when(column == column.round(0)).then(column.cast(pl.Int64).cast(pl.String)).otherwise(column.cast(pl.String))
    )
