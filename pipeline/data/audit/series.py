"""Leaks by time: values that the raw rows of their hour do not give, packed values, statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from pipeline.data.audit.artefacts import HOURS, Array, Artefacts, Events, Leak, leak_of, since_intime
from pipeline.mimic.variables import Derivation, Variable, with_helpers

BATCH_STAYS = 2048  # at a time: memory follows it, not the cohort
HOUR = 3_600_000_000  # microseconds
CLOSE = 1e-9  # sums of floats in another order

Bounds = tuple[Array, Array]  # float64 [n, 48] each: smallest and largest; NaN where nothing was charted


def events_outside_window(a: Artefacts) -> Leak | None:
    """A value of hourly.parquet that the raw rows of that very hour, stay and variable do not give: no row was charted
    in it, or the value is smaller or larger than all of them; a charted hour that has no value; or an hour outside
    0-47. Recounted from interim/icustays (intime) and the event tables: units and ranges as in variables.yaml; a mean
    or a last value must lie among its rows, a sum must be theirs; derived variables follow from recounted ones. What
    comes from before intime (or, in hour 0, from before a variable's hours_before), from hour 48 or later, from another
    hour or another stay is found so."""
    late = leak_of("hours outside 0-47", a.hourly.filter(~pl.col("hour").is_between(0, HOURS - 1).fill_null(False)))
    if late:
        return late
    every = with_helpers(tuple(a.variables))
    cohort = a.icustays.join(a.stays, on="stay_id", how="semi").select("stay_id", "subject_id", "intime")
    found = {"never charted": 0, "outside of what was charted": 0, "charted but absent": 0}
    names: set[str] = set()
    first = ""
    for batch in cohort.sort("stay_id").iter_slices(BATCH_STAYS):
        charted = _charted(a.events, every, batch, a.max_jump)
        for variable, made in _made(a, batch):
            low, high = charted[variable.name]
            certain = (low >= variable.low) & (high <= variable.high) if variable.derive else ~np.isnan(low)
            if variable.steady:
                certain &= ~_may_jump((low, high), a.max_jump)
            possible = (high >= variable.low) & (low <= variable.high) if variable.derive else ~np.isnan(low)
            room = CLOSE * np.maximum(1, np.abs(high))
            wrong = {
                "never charted": ~np.isnan(made) & ~possible,
                "outside of what was charted": possible & ((made < low - room) | (made > high + room)),
                "charted but absent": np.isnan(made) & certain,
            }
            for what, where in wrong.items():
                if where.any():
                    found[what] += int(where.sum())
                    names.add(variable.name)
                    first = first or f"stay_id {batch['stay_id'][int(np.nonzero(where)[0][0])]}"
    if not names:
        return None
    counts = ", ".join(f"{count} {what}" for what, count in found.items() if count)
    return Leak(f"values of hours: {counts} ({', '.join(sorted(names))})", first)


def _made(a: Artefacts, batch: pl.DataFrame) -> Iterator[tuple[Variable, Array]]:
    """The tier's variables with their values [n, 48] in hourly.parquet, in the order of `batch`."""
    stays = batch.select("stay_id").with_row_index("row")
    rows = a.hourly.join(stays, on="stay_id")
    place = rows["row"].to_numpy(), rows["hour"].to_numpy()
    for variable in a.variables:
        made = np.full((batch.height, HOURS), np.nan)
        made[place] = _numbers(rows[variable.name], variable).to_numpy()
        yield variable, made


def _numbers(column: pl.Series, variable: Variable) -> pl.Series:
    """Float64; a category as its index in the vocabulary, a text that it lacks as -1."""
    if variable.kind == "category":
        codes = {text: float(code) for code, text in enumerate(variable.vocabulary)}
        return column.replace_strict(codes, default=-1.0, return_dtype=pl.Float64).set(column.is_null(), None)
    return column.cast(pl.Float64)


def _charted(
    events: Mapping[str, Events], variables: Sequence[Variable], batch: pl.DataFrame, max_jump: float
) -> dict[str, Bounds]:
    """What the raw rows say of every stay of the batch and hour, by variable."""
    bounds: dict[str, Bounds] = {}
    for source, rows in events.items():
        own = [variable for variable in variables if variable.source == source]
        if own:
            bounds |= _of_source(rows, own, batch)
    used = bounds | {v.name: _steadied(bounds[v.name], max_jump) for v in variables if v.steady}
    for variable in variables:  # what a derived one needs stands in the files
        if variable.derive:
            bounds[variable.name] = _derived(variable.derive, used)
    return bounds


def _may_jump(bounds: Bounds, ratio: float) -> Array:
    """[n, 48]: whether an hour of a steady variable may be left out: beyond `ratio` from some hour before, among which
    their median lies."""
    low, high = bounds
    jumps = np.zeros(low.shape, dtype=bool)
    for hour in range(1, HOURS):
        least, most = np.fmin.reduce(low[:, :hour], axis=1), np.fmax.reduce(high[:, :hour], axis=1)
        jumps[:, hour] = (high[:, hour] > ratio * least) | (low[:, hour] < most / ratio)
    return jumps


def _steadied(bounds: Bounds, ratio: float) -> Bounds:
    """Bounds of a steady variable as derived ones use it: where it may be left out, the one before may stand for it."""
    low, high = (edge.copy() for edge in bounds)
    least, most = np.full((2, len(low)), np.nan)
    for hour, jumps in enumerate(_may_jump(bounds, ratio).T):
        low[jumps, hour] = np.fmin(low[:, hour], least)[jumps]
        high[jumps, hour] = np.fmax(high[:, hour], most)[jumps]
        charted = ~np.isnan(low[:, hour])
        least, most = np.where(charted, low[:, hour], least), np.where(charted, high[:, hour], most)
    return low, high


def _of_source(events: Events, variables: Sequence[Variable], batch: pl.DataFrame) -> dict[str, Bounds]:
    items = _items(variables)
    stays = batch.select("stay_id", pl.col(events.key).alias("key"), "intime").with_row_index("row")
    since = since_intime("time")
    rows = (
        events.rows.rename({events.key: "key"})
        # lets the scan skip row groups: the files are sorted by the key
        .filter(pl.col("key").is_between(stays["key"].min(), stays["key"].max()))
        .join(stays.lazy(), on="key")
        .join(items.lazy(), on="itemid")
        .filter((since >= -HOUR * pl.col("hours_before")) & (since < HOURS * HOUR))
        .select("row", (since // HOUR).clip(0).cast(pl.Int8).alias("hour"), "text", "number", *items.columns)
        .collect(engine="streaming")
    )
    number = pl.when("absolute").then(pl.col("number").abs()).otherwise("number")
    converted = (number - pl.col("subtract")) * pl.col("multiply") / pl.col("divide")
    value = (
        pl.when("dropped")
        .then(None)
        .when("coded")
        .then("code")
        .when(pl.col("number") > pl.col("up_to"))
        .then("number")
        .otherwise(converted)
    )
    cells = (
        rows.join(_texts(rows, variables), on=["variable", "text"], how="left")
        .with_columns(value=value)
        .filter(pl.col("value").is_between("low", "high"))
        .group_by("variable", "row", "hour")
        .agg(low=pl.col("value").min(), high=pl.col("value").max(), sum=pl.col("value").sum())
    )
    bounds: dict[str, Bounds] = {}
    for index, variable in enumerate(variables):
        of_it = cells.filter(pl.col("variable") == index)
        low, high = np.full((batch.height, HOURS), np.nan), np.full((batch.height, HOURS), np.nan)
        place = of_it["row"].to_numpy(), of_it["hour"].to_numpy()
        summed = variable.aggregate == "sum"
        low[place] = of_it["sum"].clip(variable.sum_at_least).to_numpy() if summed else of_it["low"].to_numpy()
        high[place] = low[place] if summed else of_it["high"].to_numpy()
        bounds[variable.name] = low, high
    return bounds


def _items(variables: Sequence[Variable]) -> pl.DataFrame:
    """A row a variable (its index) and itemid: how its numbers become the variable's, and their range."""
    rows = [
        {
            "variable": index,
            "itemid": item.itemid,
            "subtract": item.conversion.subtract,
            "multiply": item.conversion.multiply,
            "divide": item.conversion.divide,
            "hours_before": variable.hours_before,
            "absolute": item.conversion.absolute,
            "up_to": item.conversion.up_to,
            "coded": bool(variable.vocabulary),
            "low": variable.low,
            "high": variable.high,
        }
        for index, variable in enumerate(variables)
        for item in variable.items
    ]
    schema: dict[str, Any] = {"variable": pl.Int32, "itemid": pl.Int32, "subtract": pl.Float64, "multiply": pl.Float64}
    schema |= {"divide": pl.Float64, "hours_before": pl.Int64, "absolute": pl.Boolean, "up_to": pl.Float64}
    schema |= {"coded": pl.Boolean, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def _texts(rows: pl.DataFrame, variables: Sequence[Variable]) -> pl.DataFrame:
    """What the charted texts of variables that read them stand for: variable, text, code, dropped."""
    reading = [i for i, variable in enumerate(variables) if variable.vocabulary or variable.drop_texts]
    charted = rows.filter(pl.col("variable").is_in(reading)).select("variable", "text").drop_nulls().unique()
    coded = [
        (index, text, variables[index].code(text), variables[index].drops(text)) for index, text in charted.iter_rows()
    ]
    schema = {"variable": pl.Int32, "text": pl.String, "code": pl.Float64, "dropped": pl.Boolean}
    return pl.DataFrame(coded, schema=schema, orient="row")


def _derived(rule: Derivation, bounds: dict[str, Bounds]) -> Bounds:
    """Bounds of a derived variable, in hours where what it is made of was charted: nothing looks ahead of its hour."""
    if rule.sum_of:
        parts = [bounds[name] for name in rule.sum_of]
        return np.sum([low for low, _ in parts], axis=0), np.sum([high for _, high in parts], axis=0)
    low, high = bounds[rule.lookback]
    there = ~np.isnan(low)
    first = np.where(there.any(axis=1), there.argmax(axis=1), HOURS)[:, None]
    covered = np.clip(np.arange(HOURS) - first + 1, 0, rule.hours).astype(np.float64)
    if rule.statistic == "hours":
        low, high = covered, covered
    else:
        low, high = _lookback(low, rule.hours), _lookback(high, rule.hours)
    if rule.statistic == "rate":
        light, heavy = (_carried(edge) for edge in bounds[rule.per])
        full = np.where(covered == rule.hours, 1.0, np.nan)
        low, high = full * low / rule.hours / heavy, full * high / rule.hours / light
    return np.where(there, low, np.nan), np.where(there, high, np.nan)


def _lookback(hourly: Array, hours: int) -> Array:
    """[n, 48]: the sum of hours h-hours+1 ... h."""
    padded = np.pad(np.nan_to_num(hourly), ((0, 0), (hours - 1, 0)))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, hours, axis=1).sum(axis=2))


def _carried(hourly: Array) -> Array:
    """[n, 48]: the last value up to and with the hour; NaN before the first."""
    frame = pl.DataFrame(hourly.T).fill_nan(None).fill_null(strategy="forward")
    return frame.fill_null(float("nan")).to_numpy().T


def packed_values_differ(a: Artefacts) -> Leak | None:
    """values.npy, which models see, is not hourly.parquet: another shape, an hour of no stay or there twice, or a value
    of another stay (row of stays.parquet), hour or variable (column of variables.yaml)."""
    if a.values.shape != (a.stays.height, HOURS, len(a.variables)):
        return Leak(f"values.npy has the shape {a.values.shape}")
    twice = leak_of("hours twice", a.hourly.filter(pl.struct("stay_id", "hour").is_duplicated()))
    foreign = leak_of("hourly values of no stay of the cohort", a.hourly.join(a.stays, on="stay_id", how="anti"))
    if twice or foreign:
        return twice or foreign
    stays = a.stays.select("stay_id").unique("stay_id", maintain_order=True).with_row_index("row")
    placed = a.hourly.filter(pl.col("hour").is_between(0, HOURS - 1)).join(stays, on="stay_id")
    place = placed["row"].to_numpy(), placed["hour"].to_numpy()
    for column, variable in enumerate(a.variables):
        expected = np.full(a.values.shape[:2], np.nan, np.float32)
        expected[place] = _numbers(placed[variable.name], variable).cast(pl.Float32).to_numpy()
        packed = np.asarray(a.values[:, :, column])
        surplus = int(((packed != expected) & ~(np.isnan(packed) & np.isnan(expected))).sum())
        if surplus:
            return Leak(f"{variable.name}: {surplus} packed value(s) are not those of hourly.parquet")
    return None


def stays_without_series(a: Artefacts) -> Leak | None:
    """A stay of the cohort without a single row in hourly.parquet, or without labels; labels that stand twice or are
    of no stay of the cohort."""
    return (
        leak_of("without a row in hourly.parquet", a.stays.join(a.hourly, on="stay_id", how="anti"))
        or leak_of("without a row in labels.parquet", a.stays.join(a.labels, on="stay_id", how="anti"))
        or leak_of("twice in labels.parquet", a.labels.filter(pl.col("stay_id").is_duplicated()))
        or leak_of("labels of no stay of the cohort", a.labels.join(a.stays, on="stay_id", how="anti"))
    )


def statistics_beyond_training(a: Artefacts) -> Leak | None:
    """A fold's statistics (count, median, spread) that are not those of its training rows, recounted from
    hourly.parquet and splits.parquet; a fold or a numeric variable without any."""
    folds = [str(fold) for fold in a.splits["fold"].unique().sort()]
    if sorted(a.statistics) != sorted(folds):
        return Leak(f"statistics of the folds {', '.join(sorted(a.statistics))}, the splits have {', '.join(folds)}")
    numeric = {variable.name for variable in a.variables if variable.kind != "category"}
    for fold, known in a.statistics.items():
        if set(known) != numeric:
            return Leak(f"fold {fold}: statistics of {len(known)} variables, {len(numeric)} are numeric")
        train = a.splits.filter((pl.col("fold") == int(fold)) & (pl.col("part") == "train"))
        rows = a.hourly.select("stay_id", *known).join(train.select("stay_id").unique(), on="stay_id")
        for name, entry in known.items():
            column = rows[name].drop_nulls().cast(pl.Float32).cast(pl.Float64)
            if entry["count"] != column.len():
                return Leak(f"fold {fold}, {name}: from {entry['count']} values, training rows have {column.len()}")
            low, median, high, spread = (
                column.quantile(0.25, "linear") or 0.0,
                column.median() or 0.0,
                column.quantile(0.75, "linear") or 0.0,
                column.std(ddof=0) or 0.0,
            )
            truth = {"median": median, "iqr": high - low, "scale": (high - low) or spread or 1.0}
            for what, value in truth.items():
                if not np.isclose(entry[what], float(str(value)), rtol=1e-4, atol=1e-4):
                    return Leak(f"fold {fold}, {name}: the {what} is not that of the training rows")
    return None
