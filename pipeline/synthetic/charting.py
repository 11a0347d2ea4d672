"""chartevents: vital signs, scores, rhythm and weights of ICU stays, as dense and with the habits of bedside charting.

Works on a block of stays at a time, so that memory stays bounded: every variable is a grid [stays, hours] on the full
hours of the clock, of which charting keeps some cells. What moves with which cause: docs/synthetic-hospital.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.synthetic.items import ITEMS
from pipeline.synthetic.people import HOUR, chance
from pipeline.synthetic.streams import Floats, Ints, pick, stream

COLUMNS = [
    "subject_id",
    "hadm_id",
    "stay_id",
    "caregiver_id",
    "charttime",
    "storetime",
    "itemid",
    "value",
    "valuenum",
    "valueuom",
    "warning",
]
DENSE_HOURS = 72  # vital signs are charted every hour until then, every second hour afterwards
EYES = {4: "Spontaneously", 3: "To Speech", 2: "To Pain", 1: "None"}
VERBAL = {5: "Oriented", 4: "Confused", 3: "Inappropriate Words", 2: "Incomprehensible sounds", 1: "No Response"}
MOTOR = {
    6: "Obeys Commands",
    5: "Localizes Pain",
    4: "Flex-withdraws",
    3: "Abnormal Flexion",
    2: "Abnormal extension",
    1: "No response",
}
INTUBATED = "No Response-ETT"
MASKS = ["Nasal cannula", "None", "Face tent", "High flow nasal cannula", "Bipap mask "]
MODES = ["CMV/ASSIST/AutoFlow", "CPAP/PSV", "PSV/SBT", "MMV/PSV/AutoFlow", "Standby"]
HAMILTON_MODES = ["APV (cmv)", "SPONT", "P-CMV"]
# Trailing blanks as in MIMIC-IV.
SINUS, FAST, SLOW = "SR (Sinus Rhythm)", "ST (Sinus Tachycardia) ", "SB (Sinus Bradycardia)"
FIBRILLATION, FLUTTER, PACED = (
    "AF (Atrial Fibrillation)",
    "A Flut (Atrial Flutter) ",
    ("V Paced", "A Paced", "AV Paced"),
)
RARE = ("1st AV (First degree AV Block) ", "JR (Junctional Rhythm)", "SA (Sinus Arrhythmia)")
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """n stays and H hours: `shown` is what the EHR shows of each cause, `there` [n, H] the hours in the ICU."""

    stays: pl.DataFrame
    shown: dict[str, Floats]
    start: Ints
    hours: Ints
    there: Mask
    ventilated: Mask

    @property
    def shape(self) -> tuple[int, int]:
        """(n, H)."""
        return len(self.start), len(self.hours)


def traits(seed: int, stays: pl.DataFrame, shown: dict[str, Floats]) -> pl.DataFrame:
    """What holds for a whole stay and several tables need: ventilated, arterial line, weight. A row a stay."""
    rng = stream(seed, "traits")
    return pl.DataFrame(
        {
            "stay_id": stays["stay_id"],
            "ventilated": chance(rng, -0.8 + 1.1 * shown["gas_exchange"]),
            "arterial": chance(rng, -0.4 + 0.7 * shown["circulation"]),
            "celsius": rng.random(stays.height) < 0.11,
            "silent": rng.random(stays.height) < 0.01,  # no heart rate and no blood pressure was ever charted
        }
    )


def chartevents(seed: int, block: int, stays: pl.DataFrame, shown: dict[str, Floats]) -> pl.DataFrame:
    """The rows of a block of stays (with the columns of `traits`), by stay, time and item; times in seconds."""
    rng = stream(seed, "chartevents", block)
    grid = _grid(stays, shown)
    rows = _Rows(grid, rng)
    level = _levels(grid, rng)
    _vital_signs(rows, level)
    _temperatures(rows, level["temperature"])
    _glucose(rows, level["glucose"])
    tube = _scores(rows)
    _rhythms(rows)
    _once_or_daily(rows)
    _breathing(rows, tube)
    return rows.frame()


def _grid(stays: pl.DataFrame, shown: dict[str, Floats]) -> Grid:
    intime = stays["intime"].to_numpy()
    end = stays.select(pl.min_horizontal("outtime", "deathtime")).to_series().to_numpy()
    start = intime // HOUR * HOUR
    hours = np.arange(int((end - start).max() // HOUR) + 2)
    clock = start[:, None] + hours[None, :] * HOUR
    return Grid(
        stays, shown, start, hours, (clock >= intime[:, None]) & (clock <= end[:, None]), stays["ventilated"].to_numpy()
    )


def _wander(rng: np.random.Generator, shape: tuple[int, int], memory: float) -> Floats:
    """Autocorrelated noise of unit variance along the hours."""
    value = rng.standard_normal((shape[1], shape[0]))
    value[1:] *= (1 - memory**2) ** 0.5
    for hour in range(1, len(value)):
        value[hour] += memory * value[hour - 1]
    return value.T


def _levels(grid: Grid, rng: np.random.Generator) -> dict[str, Floats]:
    """The physiology: a value of each variable for every stay and hour."""
    n, h = grid.shape
    z = {name: values[:, None] for name, values in grid.shown.items()}
    hour = grid.hours[None, :]
    shock = z["circulation"] * (0.75 + 0.45 * np.exp(-hour / 20.0))  # worst at first
    fever = z["inflammation"] * (
        0.75 + 0.40 * np.exp(-(((hour - 20) / 14.0) ** 2))
    )  # peaks at the end of the first day

    def own(spread: float) -> Floats:
        return spread * rng.standard_normal((n, 1))

    mean = 79 - 7.5 * shock + own(4.5) + 5 * _wander(rng, (n, h), 0.8)
    pulse = np.maximum(54 + 11 * z["overload"] + own(5) + 4 * _wander(rng, (n, h), 0.6), 12)
    return {
        "heart_rate": 85 + 6 * shock + 5 * fever + own(7) + 5 * _wander(rng, (n, h), 0.85),
        "mbp": mean,
        "sbp": mean + 0.62 * pulse,
        "dbp": mean - 0.38 * pulse,
        "resp_rate": 19.5 + 3.0 * z["gas_exchange"] + 0.8 * fever + own(1.6) + 2 * _wander(rng, (n, h), 0.5),
        "spo2": 96.4 - 1.4 * z["gas_exchange"] - 0.7 * z["overload"] + own(0.7) + 1.0 * _wander(rng, (n, h), 0.6),
        "temperature": 37.0 + 0.42 * fever + own(0.15) + 0.22 * _wander(rng, (n, h), 0.85),
        "glucose": 132 * np.exp(0.27 * z["glycaemia"] + own(0.10) + 0.13 * _wander(rng, (n, h), 0.8)),
    }


class _Rows:
    """Collects charted cells as columns and puts them together."""

    def __init__(self, grid: Grid, rng: np.random.Generator) -> None:
        self.grid, self.rng = grid, rng
        self.parts: list[dict[str, NDArray[Any]]] = []
        n, h = grid.shape
        # charted on the hour, some minutes off in one cell of twelve: together for all variables of that hour
        off = np.where(rng.random((n, h)) < 0.08, rng.integers(1, 55, (n, h)) * 60, 0)
        self.clock = grid.start[:, None] + grid.hours[None, :] * HOUR + off
        early = (rng.random(n) < 0.25)[:, None] & (grid.hours == 0)[
            None, :
        ]  # the hour in which the patient came: precedes intime
        dense = (grid.hours <= DENSE_HOURS) | (grid.hours % 2 == 0)
        self.hourly = (grid.there | early) & dense[None, :] & (rng.random((n, h)) > 0.05)

    def every(self, period: int, *, among: Mask | None = None, kept: float = 0.93) -> Mask:
        """Cells of a round every `period` hours, each stay at hours of its own."""
        n, h = self.grid.shape
        phase = self.rng.integers(0, period, n)
        cells = self.grid.there & ((self.grid.hours[None, :] + phase[:, None]) % period == 0)
        cells &= self.rng.random((n, h)) < kept
        return cells if among is None else np.asarray(cells & among[:, None])

    def number(
        self, item: int, cells: Mask, values: Floats, low: float, high: float, odd: tuple[float, ...] = ()
    ) -> None:
        """Numbers of an item in the cells, within what a monitor shows; one in 1,500 is mischarted as one of `odd`."""
        row, hour = np.nonzero(cells)
        value = np.clip(np.broadcast_to(values, cells.shape)[row, hour], low, high)
        if odd:
            wrong = self.rng.random(len(value)) < 1 / 1500
            value = np.where(wrong, self.rng.choice(odd, len(value)), value)
        else:
            wrong = np.zeros(len(value), dtype=bool)
        value = np.round(value, ITEMS[item].digits)
        self._add(item, row, self.clock[row, hour], value, None, wrong)

    def words(
        self, item: int, cells: Mask, index: NDArray[Any], vocabulary: list[str], score: Floats | None = None
    ) -> None:
        """Texts of an item in the cells, `vocabulary[index]`, with the number that belongs to a text (`score`)."""
        row, hour = np.nonzero(cells)
        chosen = np.broadcast_to(index, cells.shape)[row, hour]
        number = np.full(len(row), np.nan) if score is None else score[chosen]
        self._add(
            item, row, self.clock[row, hour], number, np.asarray(vocabulary)[chosen], np.zeros(len(row), dtype=bool)
        )

    def _add(self, item: int, row: Ints, time: Ints, number: Floats, text: NDArray[Any] | None, warning: Mask) -> None:
        self.parts.append({"row": row, "itemid": np.full(len(row), item), "time": time, "number": number,
                           "text": np.full(len(row), "") if text is None else text, "warning": warning})  # fmt: skip

    def frame(self) -> pl.DataFrame:
        """chartevents of the block, with charttime and storetime in seconds."""
        # an item's numbers have a fixed count of digits: as text without a superfluous .0, like the real files
        parts = []
        for part in self.parts:
            item = ITEMS[int(part["itemid"][0])] if len(part["itemid"]) else None
            frame = pl.DataFrame(part)
            number = pl.col("number").fill_nan(None)
            text = number.cast(pl.Int64).cast(pl.String)
            if item is not None and item.digits:
                text = pl.when(number == number.round(0)).then(text).otherwise(number.cast(pl.String))
            words = pl.when(pl.col("text") == "").then(text).otherwise(pl.col("text"))
            parts.append(frame.with_columns(text.alias("valuenum"), words.alias("value")).drop("number", "text"))
        frame = pl.concat(parts).sort("row", "time", "itemid", "value")
        keys = self.grid.stays.select("subject_id", "hadm_id", "stay_id")[frame["row"].to_numpy()]
        carers = self.rng.integers(1000, 99_999, (len(self.grid.start), 8))  # a nurse a shift
        shift = (frame["time"].to_numpy() // (12 * HOUR)) % 8
        stored = frame["time"].to_numpy() + 60 * np.floor(self.rng.exponential(16, frame.height)).astype(np.int64)
        unit = frame["itemid"].replace_strict({i: x.charted_unit for i, x in ITEMS.items()}, return_dtype=pl.String)
        return keys.hstack(
            [
                pl.Series("caregiver_id", carers[frame["row"].to_numpy(), shift]),
                frame["time"].alias("charttime"),
                pl.Series("storetime", stored),
                frame["itemid"],
                frame["value"],
                frame["valuenum"],
                unit.alias("valueuom"),
                frame["warning"].cast(pl.Int8),
            ]
        ).select(COLUMNS)


def _vital_signs(rows: _Rows, level: dict[str, Floats]) -> None:
    grid, rng = rows.grid, rows.rng
    silent, line = grid.stays["silent"].to_numpy()[:, None], grid.stays["arterial"].to_numpy()[:, None]
    older = (rng.random(len(grid.start)) < 0.12)[:, None]  # stays whose line is charted under the other three items
    hourly = rows.hourly
    rows.number(220045, hourly & ~silent, level["heart_rate"], 20, 220, (0, 999, 880))
    rows.number(220210, hourly, level["resp_rate"], 4, 60, (0, 180, 2005))
    rows.number(220277, hourly & (rng.random(hourly.shape) > 0.02), level["spo2"], 60, 100, (0, 9, 985))
    rows.number(224690, rows.every(4, among=grid.ventilated), level["resp_rate"] + 0.5, 4, 60)
    arterial = hourly & line & ~silent & (grid.hours < 96)[None, :]
    cuff = np.where(line, rows.every(4), hourly) & ~silent
    names = ("sbp", "dbp", "mbp")
    for cells, items in ((arterial & ~older, (220050, 220051, 220052)), (arterial & older, (225309, 225310, 225312)),
                         (cuff, (220179, 220180, 220181))):  # fmt: skip
        for item, name in zip(items, names, strict=True):
            noisy = level[name] + (3 * rng.standard_normal(cells.shape) if cells is cuff else 0)
            rows.number(item, cells, noisy, 15, 260, (0, 1230, -12) if name != "mbp" else (0, 611))


def _temperatures(rows: _Rows, celsius: Floats) -> None:
    warm = rows.grid.stays["celsius"].to_numpy()
    rows.number(223761, rows.every(4, among=~warm), celsius * 1.8 + 32, 80, 108, (0, 37.1, 986))
    metric = rows.every(1, among=warm, kept=0.5)
    typed = rows.rng.random(metric.shape) < 0.004  # Fahrenheit typed into the Celsius item
    rows.number(223762, metric, np.where(typed, celsius * 1.8 + 32, celsius), 27, 108)


def _glucose(rows: _Rows, level: Floats) -> None:
    rng = rows.rng
    rows.number(225664, rows.every(6, kept=0.8), level + 6 * rng.standard_normal(level.shape), 25, 900, (0, 9999))
    rows.number(220621, rows.every(12), level, 25, 900, (999_999,))
    rows.number(226537, rows.every(8, among=rows.grid.stays["arterial"].to_numpy(), kept=0.4), level, 25, 900)


def _scores(rows: _Rows) -> Mask:
    """Glasgow coma scores every four hours; a tube is charted in place of the verbal response, with the number 1.

    Returns the hours [n, H] in which the patient has the tube.
    """
    grid, rng = rows.grid, rows.rng
    stupor = grid.shown["consciousness"][:, None] + 0.35 * _wander(rng, grid.shape, 0.8)

    def cut(*thresholds: float) -> Ints:
        return np.asarray(np.searchsorted(thresholds, stupor + 0.15 * rng.standard_normal(grid.shape)))

    cells = rows.every(4)
    tube = grid.ventilated[:, None] & (grid.hours[None, :] < 24 + 60 * rng.random(len(grid.start))[:, None])
    eyes, verbal, motor = cut(0.0, 0.8, 1.5), cut(-0.2, 0.6, 1.1, 1.6), cut(0.4, 1.1, 1.6, 2.0, 2.4)
    rows.words(220739, cells, eyes, list(EYES.values()), np.asarray(list(EYES), dtype=float))
    spoken, points = [*VERBAL.values(), INTUBATED], np.asarray([*VERBAL, 1], dtype=float)
    rows.words(223900, cells, np.where(tube, 5, verbal), spoken, points)
    rows.words(
        223901,
        cells & (rng.random(cells.shape) > 0.01),
        motor,
        list(MOTOR.values()),
        np.asarray(list(MOTOR), dtype=float),
    )
    return np.asarray(tube)


def _rhythms(rows: _Rows) -> None:
    """Rhythm and ectopy, every hour or two: fibrillation and ectopy by the rhythm cause, pacing by the pacemaker."""
    grid, rng = rows.grid, rows.rng
    n = len(grid.start)
    beat = grid.shown["rhythm"]
    vocabulary = [SINUS, FAST, SLOW, FIBRILLATION, FLUTTER, *PACED, *RARE]
    irregular = rng.random(grid.shape) < (1 / (1 + np.exp(2.0 - 2.6 * beat)))[:, None]
    flutter = (rng.random(n) < 0.06)[:, None]
    plain = np.where(rng.random(grid.shape) < 0.22, 1, np.where(rng.random(grid.shape) < 0.05, 2, 0))
    plain = np.where(rng.random(grid.shape) < 0.012, rng.integers(8, 11, grid.shape), plain)
    index = np.where(irregular, np.where(flutter, 4, 3), plain)
    paced = (grid.shown["pacing"] > 0)[:, None] & (rng.random(grid.shape) < 0.6)
    index = np.where(paced, (5 + pick(rng, {0: 8, 1: 2, 2: 1}, n).astype(np.int64))[:, None], index)
    cells = rows.hourly & (rng.random(grid.shape) < 0.80)
    rows.words(220048, cells, index, vocabulary)

    types = ["None", "PVC's", "PAC's", "Vent. Bigeminy", "Vent. Trigeminy"]
    often = ["Rare", "Occasional", "Frequent", "None", "Runs Vtach"]
    extra = rng.random(grid.shape) < (0.7 / (1 + np.exp(2.2 - 1.8 * beat)))[:, None]
    kind = rng.choice(5, size=grid.shape, p=[0, 0.72, 0.24, 0.02, 0.02])
    rate = np.clip(np.floor(0.9 + 0.7 * beat[:, None] + 0.6 * rng.standard_normal(grid.shape)), 0, 2).astype(np.int64)
    rate = np.where(rng.random(grid.shape) < 0.02, 4, rate)
    seen = cells & (rng.random(grid.shape) < 0.75)
    rows.words(224650, seen, np.where(extra, kind, 0), types)
    rows.words(224651, seen & (extra | (rng.random(grid.shape) < 0.02)), np.where(extra, rate, 3), often)
    second = seen & extra & (rng.random(grid.shape) < 0.04)
    rows.words(226479, second, kind, types)
    rows.words(226480, second, rate, often)


def _once_or_daily(rows: _Rows) -> None:
    """Weights and heights, and items that the benchmark does not read."""
    grid, rng = rows.grid, rows.rng
    n, h = grid.shape
    weight = grid.stays["weight"].to_numpy()[:, None]
    first = np.cumsum(grid.there, axis=1) == 1
    first &= grid.there
    rows.number(226512, first & (rng.random((n, 1)) < 0.93), np.where(rng.random((n, 1)) < 0.004, 0, weight), 0, 400)
    rows.number(226531, first & (rng.random((n, 1)) < 0.6), weight / 0.45359237, 60, 900)
    tall = 169 + 9 * rng.standard_normal((n, 1))
    arrival = np.broadcast_to(grid.hours == 0, (n, h))  # the full hour before intime
    measured = arrival & (rng.random((n, 1)) < 0.6)
    rows.number(226730, measured, np.where(rng.random((n, 1)) < 0.01, tall / 2.54, tall), 40, 230)
    rows.number(226707, measured, tall / 2.54, 40, 90)
    drift = 0.35 * grid.shown["overload"][:, None] + 0.4 * rng.standard_normal((n, h))
    rows.number(224639, rows.every(24, among=rng.random(n) < 0.65), weight + drift, 30, 400, (0,))
    rows.words(224080, rows.every(8, kept=0.6), rng.integers(0, 2, (n, h)), ["HOB > 30", "HOB = 30"])
    rows.words(223781, rows.every(8, kept=0.6), rng.integers(0, 2, (n, h)), ["No", "Yes"])


def _breathing(rows: _Rows, tube: Mask) -> None:
    """What the patient breathes through, every four hours; with the tube the ventilator's mode and settings."""
    grid, rng = rows.grid, rows.rng
    shape = (len(grid.start), 1)
    usual = rng.choice(4, size=shape, p=[0.45, 0.35, 0.15, 0.05])
    now = np.where(rng.random(grid.shape) < 0.2, rng.integers(0, 5, grid.shape), usual)
    rows.words(226732, rows.every(4), np.where(tube, len(MASKS), now), [*MASKS, "Endotracheal tube"])
    hamilton = rng.random(shape) < 0.25
    mode = rows.every(4) & tube
    rows.words(223849, mode & ~hamilton, rng.integers(0, len(MODES), grid.shape), MODES)
    rows.words(229314, mode & hamilton, rng.integers(0, len(HAMILTON_MODES), grid.shape), HAMILTON_MODES)
    oxygen = 40 + 9 * grid.shown["gas_exchange"][:, None] + 5 * _wander(rng, grid.shape, 0.8)
    # a fraction is charted for per cent, or a flow in litres
    rows.number(223835, rows.every(4) & tube, 5 * np.round(oxygen / 5), 21, 100, (0.4, 0.6, 4))
    pressure = 5 + 2.5 * np.maximum(0, np.round(grid.shown["gas_exchange"][:, None]))
    rows.number(220339, rows.every(4) & tube, pressure, 0, 24)
    rows.number(224700, rows.every(12) & tube, pressure + rng.random(grid.shape), 0, 24)
