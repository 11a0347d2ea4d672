"""Hourly series: chart, output and lab rows of the cohort's stays -> one value per stay, hour and variable.

Observed values only: filling, scaling and the `observed` channel belong to pipeline.data. DuckDB aggregates one batch
of stays after another (series.sql), so that memory follows the batch; derived variables come from derived.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
from tqdm import tqdm

from pipeline import files
from pipeline.disclosure import FEW, part_of, told
from pipeline.errors import InputError
from pipeline.mimic.derived import derive, without_jumps
from pipeline.mimic.variables import Variable, with_helpers
from pipeline.params import Ingest, Series

HOURS = 48
BATCH_STAYS = 2048
COUNTS = ("rows", "used", "dropped", "unknown", "empty", "out_of_range", "hours_that_jump")
COUNTED = COUNTS[:-1]  # by series.sql
SQL = Path(__file__).with_name("series.sql")
# How each source's rows become those of the relation `events` of series.sql; a table has the name of its interim file.
EVENTS = {
    "chartevents": "select stay_id, charttime, itemid, value as text, valuenum as number from chart",
    "outputevents": "select stay_id, charttime, itemid, null as text, value as number from output",
    "labevents": "select stay_id, {lab_time} as charttime, itemid, null as text, valuenum as number from lab",
}
log = logging.getLogger(__name__)

Values = np.ndarray[Any, np.dtype[np.float64]]  # [N, 48, V]
Counts = np.ndarray[Any, np.dtype[np.int64]]  # [V, len(COUNTS)]


@dataclass(frozen=True)
class Events:
    """A DuckDB connection on the rows of the interim tables, with `variables` (helpers included) known to it."""

    connection: duckdb.DuckDBPyConnection
    variables: tuple[Variable, ...]
    max_jump: float
    scratch: Path

    def create(self, name: str, frame: pl.DataFrame) -> None:
        """A DuckDB table with the rows of `frame`, by way of a file: the direct way would need pyarrow."""
        path = self.scratch / f"{name}.parquet"
        frame.write_parquet(path, compression="uncompressed")
        self.connection.execute(
            f"create or replace table {name} as select * from read_parquet($path)", {"path": str(path)}
        )


@contextmanager
def open_events(interim: Path, variables: Sequence[Variable], series: Series, ingest: Ingest) -> Iterator[Events]:
    """The rows of {chart,output,lab}.parquet in `interim` (docs/artefacts.md), ready to be asked for hours.

    Tables from which no variable comes are not opened. Labs count from the time that `series.lab_time` says. Closed at
    the end. Raises InputError where a file is not there or `ingest.memory_gb` does not suffice.
    """
    everything = with_helpers(tuple(variables))
    sources = [source for source in EVENTS if source in {variable.source for variable in everything}]
    paths = [interim / f"{source.removesuffix('events')}.parquet" for source in sources]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: not found; the stage ingest writes it")
    with files.scratch(interim.parent / "series") as scratch, duckdb.connect() as connection:
        connection.execute(f"set memory_limit = '{ingest.memory_gb} GB'")
        connection.execute(f"set threads = {ingest.threads}")
        connection.execute(f"set temp_directory = '{scratch}'")
        connection.execute("set enable_progress_bar = false")
        for path in paths:
            connection.from_parquet(str(path)).create_view(path.stem)
        rows = " union all ".join(EVENTS[source] for source in sources).format(lab_time=series.lab_time)
        connection.execute(f"create view events as {rows}")
        events = Events(connection, everything, series.max_jump, scratch)
        try:
            events.create("items", item_table(everything))
            events.create("texts", text_table(everything, _charted_texts(events)))
            yield events
        except duckdb.OutOfMemoryException as error:
            raise InputError(f"ingest.memory_gb: {ingest.memory_gb} GB do not suffice: {error}") from None


def item_table(variables: Sequence[Variable]) -> pl.DataFrame:
    """The relation `items` of series.sql: a row per variable (its index) and itemid."""
    rows = [
        {
            "variable": index,
            "itemid": item.itemid,
            "subtract": item.conversion.subtract,
            "multiply": item.conversion.multiply,
            "divide": item.conversion.divide,
            "absolute": item.conversion.absolute,
            "up_to": item.conversion.up_to,
            "coded": bool(variable.vocabulary),
            "low": variable.low,
            "high": variable.high,
            "hours_before": variable.hours_before,
            "aggregate": variable.aggregate,
            "sum_at_least": variable.sum_at_least,
        }
        for index, variable in enumerate(variables)
        for item in variable.items
    ]
    return pl.DataFrame(rows, schema_overrides={"variable": pl.Int32, "itemid": pl.Int32})


def _charted_texts(events: Events) -> list[tuple[int, str]]:
    """Every (itemid, text) charted under the variables whose texts matter."""
    itemids = [item.itemid for variable in events.variables if variable.reads_text for item in variable.items]
    return events.connection.execute(
        "select distinct itemid, text from events where itemid in $itemids and text is not null order by all",
        {"itemids": itemids},
    ).fetchall()


def text_table(variables: Sequence[Variable], charted: Sequence[tuple[int, str]]) -> pl.DataFrame:
    """The relation `texts` of series.sql: what each (itemid, text) stands for."""
    rows = [
        {
            "variable": index,
            "itemid": itemid,
            "text": text,
            "code": variable.code(text),
            "known": variable.knows(text) or variable.drops(text) or not variable.vocabulary,
            "dropped": variable.drops(text),
        }
        for index, variable in enumerate(variables)
        if variable.reads_text
        for itemid, text in charted
        if itemid in {item.itemid for item in variable.items}
    ]
    schema = {"variable": pl.Int32, "itemid": pl.Int32, "text": pl.String, "code": pl.Float64}
    return pl.DataFrame(rows, schema={**schema, "known": pl.Boolean, "dropped": pl.Boolean})


def extract(events: Events, stays: pl.DataFrame) -> tuple[Values, Counts]:
    """Hourly values [N, 48, V] of `stays` (stay_id, intime; N rows) and what happened to their rows [V, COUNTS].

    V are `events.variables`; NaN where nothing was charted; an ordinal or a category is its index in the vocabulary.
    """
    variables = events.variables
    batch = stays.select("stay_id", "intime").with_row_index("row")
    events.create("batch", batch)
    bounds = {"first": batch["stay_id"].min(), "last": batch["stay_id"].max()}
    cells: dict[str, Any] = events.connection.execute(SQL.read_text(encoding="utf-8"), bounds).fetchnumpy()
    counted = np.ma.getmaskarray(cells["row"])
    values = np.full((len(variables), stays.height, HOURS), np.nan)
    place, row, hour, value = (np.ma.getdata(cells[name])[~counted] for name in ("variable", "row", "hour", "value"))
    values[place, row, hour] = value
    counts = np.zeros((len(variables), len(COUNTS)), np.int64)
    for column, name in enumerate(COUNTED):
        counts[cells["variable"][counted], column] = cells[name][counted]
    for index, variable in enumerate(variables):
        if variable.steady:
            steady = without_jumps(values[index], events.max_jump)
            counts[index, -1] = np.count_nonzero(~np.isnan(values[index]) & np.isnan(steady))
            values[index] = steady
    by_name = {variable.name: values[index] for index, variable in enumerate(variables)}
    derived = derive(by_name, variables)
    for index, variable in enumerate(variables):
        if variable.name in derived:
            result = derived[variable.name]
            inside = (result >= variable.low) & (result <= variable.high)
            values[index] = np.where(inside, result, np.nan)
            made = np.count_nonzero(~np.isnan(result))
            counts[index] = (made, np.count_nonzero(inside), 0, 0, 0, made - np.count_nonzero(inside), 0)
    return np.ascontiguousarray(np.moveaxis(values, 0, 2)), counts


def hourly_frame(stay_ids: pl.Series, values: Values, variables: Sequence[Variable]) -> pl.DataFrame:
    """Rows of hourly.parquet: stay_id, hour and the variables; hours without any value are left out.

    `values` [N, 48, V] in the order of `stay_ids` and `variables`; categories become their texts.
    """
    row, hour = np.nonzero(~np.isnan(values).all(axis=2))
    columns = [stay_ids.gather(row).alias("stay_id"), pl.Series("hour", hour.astype(np.int8))]
    for index, variable in enumerate(variables):
        column = pl.Series(variable.name, values[row, hour, index], nan_to_null=True)
        if variable.kind == "category":
            texts = pl.Series(variable.vocabulary, dtype=pl.String)
            column = texts.gather(column.cast(pl.UInt32)).alias(variable.name)
        columns.append(column)
    return pl.DataFrame(columns)


def write_series(
    interim: Path, stays_file: Path, variables: Sequence[Variable], series: Series, ingest: Ingest, folder: Path
) -> dict[str, Any]:
    """Write `folder`/hourly.parquet and values.npy (docs/artefacts.md); returns the counts for the stage's report."""
    if not stays_file.is_file():
        raise InputError(f"{stays_file}: not found; the stage cohort writes it")
    stays = pl.read_parquet(stays_file, columns=["stay_id", "intime"])
    if stays.is_empty():
        raise InputError(f"{stays_file}: holds no stay, so there is no series")
    if not stays["stay_id"].is_sorted():
        raise InputError(f"{stays_file}: stay_id is not sorted")
    frames = []
    with (
        open_events(interim, variables, series, ingest) as events,
        files.atomic(folder / "values.npy") as beside,
        tqdm(total=stays.height, unit="stay", desc="series") as progress,
    ):
        counts = np.zeros((len(events.variables), len(COUNTS)), np.int64)
        seen = np.zeros((2, len(variables)), np.int64)  # hours and stays with a value
        placed = np.zeros(3, np.int64)
        packed = files.create_array(beside, (stays.height, HOURS, len(variables)), np.float32)
        for start in range(0, stays.height, BATCH_STAYS):
            batch = stays.slice(start, BATCH_STAYS)
            values, tally = extract(events, batch)
            values = values[:, :, : len(variables)]  # the helpers stand behind
            packed[start : start + batch.height] = values
            frames.append(hourly_frame(batch["stay_id"], values, variables))
            observed = ~np.isnan(values)
            counts += tally
            seen += np.stack([observed.sum(axis=(0, 1)), observed.any(axis=1).sum(axis=0)])
            placed += _rows_by_place(events, batch)
            progress.update(batch.height)
        packed.flush()
        unknown = _unknown_texts(events)
    for variable, row in zip(events.variables, counts.tolist(), strict=True):
        odd = [f"{rows} {name.replace('_', ' ')}" for name, rows in zip(COUNTS[2:], row[2:], strict=True) if rows]
        if odd:
            log.info("%s: of %d rows %s", variable.name, row[0], ", ".join(odd))
    hourly = pl.concat(frames)
    files.write_parquet(hourly, folder / "hourly.parquet")
    return {
        "stays": told(stays.height),
        "stays_without_a_value": part_of(stays.height, stays.height - hourly["stay_id"].n_unique()),
        "hours_with_a_value": hourly.height,
        "rows_of_these_stays": dict(zip(("before_intime", "in_48_hours", "later"), placed.tolist(), strict=True)),
        "variables": {
            variable.name: dict(zip(COUNTS, counts[index].tolist(), strict=True))
            | (_coverage(seen[:, index], stays.height) if index < len(variables) else {})
            for index, variable in enumerate(events.variables)
        },
        "unknown_texts": unknown,
    }


def _coverage(seen: np.ndarray[Any, np.dtype[np.int64]], stays: int) -> dict[str, float | None]:
    """Shares of all hours and stays; of stays none where their number could not be told."""
    hours, some = seen.tolist()
    share = None if isinstance(part_of(stays, some), str) else some / stays
    return {"share_of_hours": hours / (stays * HOURS), "share_of_stays": share}


def _rows_by_place(events: Events, batch: pl.DataFrame) -> list[int]:
    """Rows of the batch last asked for: before intime, in its 48 hours, later."""
    row = events.connection.execute(
        "select count(*) filter (charttime < intime),"
        " count(*) filter (charttime >= intime and charttime < intime + interval 48 hour),"
        " count(*) filter (charttime >= intime + interval 48 hour)"
        " from events join batch using (stay_id) where itemid in (select itemid from items)"
        " and stay_id between $first and $last",  # as in series.sql: each batch would scan the whole file
        {"first": batch["stay_id"].min(), "last": batch["stay_id"].max()},
    ).fetchall()
    return list(row[0])


def _unknown_texts(events: Events) -> dict[str, list[str]]:
    """Per variable the texts that its vocabulary lacks, of those charted in FEW stays or more; at most 20.

    A rare text may have been typed for one patient, and the report is in git; how many rows have one is counted.
    """
    rows = events.connection.execute(
        "select variable, trim(text) as text, count(distinct stay_id) as stays from events join texts"
        " using (itemid, text) where not known group by all order by variable, stays desc, text"
    ).fetchall()
    every: dict[str, list[str]] = {}
    shown: dict[str, list[str]] = {}
    for index, text, stays in rows:
        name = events.variables[index].name
        every.setdefault(name, []).append(text)
        if stays >= FEW:
            shown.setdefault(name, []).append(text)
    for name, texts in every.items():
        log.warning("%s: %d texts outside of the vocabulary: %s", name, len(texts), "; ".join(map(repr, texts[:5])))
    return {name: texts[:20] for name, texts in shown.items()}
