"""Raw CSV files -> typed, sorted Parquet with the needed columns and itemids only: data/interim.

DuckDB streams each file once; what is kept is staged in a table that spills to a scratch folder, and sorted from there,
so that memory stays below `ingest.memory_gb` whatever the size of the files. What the rows mean is decided downstream.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
from tqdm import tqdm

from pipeline import files
from pipeline.errors import InputError
from pipeline.mimic.manifest import find_table, lines_of
from pipeline.mimic.rawfile import MAX_LINE
from pipeline.mimic.schema import TABLES, Table, place_columns
from pipeline.params import Ingest

SQL_FOLDER = Path(__file__).parent
# Each turns the view `source` (the needed columns, typed) into the interim table's rows plus a column `dropped`: null,
# or the reason why the row is left out; and a column `noted`, where a kept row can have something odd about it: a list
# of words and nulls. Beside `source` there are `needed` (itemids) and, once read, `icustays`.
QUERIES = {
    "patients": "patients.sql",
    "admissions": "admissions.sql",
    "icustays": "icustays.sql",
    "diagnoses": "diagnoses.sql",
    "chart": "chart.sql",
    "output": "output.sql",
    "lab": "lab.sql",
    "cxr_metadata": "cxr_metadata.sql",
    "cxr_findings": "cxr_findings.sql",
}
ROW_GROUP = 262_144
WHOLE = {"SMALLINT": 2**15, "INTEGER": 2**31, "BIGINT": 2**53}  # types of whole numbers, and the bound below which

# rows_read, kept, dropped: {reason: rows}; noted: {words: rows}, of tables that note something; where there are any,
# lines_without_row: blank, or inside of quoted text
Counts = dict[str, Any]
AGAIN = "in a second stay"  # noted of a row that the table holds already, for another stay


def ingest(manifest: dict[str, Any], itemids: Mapping[str, Mapping[int, bool]], params: Ingest, out: Path) -> Counts:
    """Write one Parquet file per table of the schema to `out`; return what was read, kept and left out, per table.

    The files appear in `out` when all are done. `itemids` gives the needed itemids per source (chartevents, ...), and
    whether their text is kept. An optional table that is not there becomes a file without rows. Raises InputError that
    names file, line and column where a file is malformed or a key stands twice, and params key where memory does not
    suffice.
    """
    counts: Counts = {}
    with _connect(out.parent, params) as (connection, scratch):
        for name, table in TABLES.items():
            found = find_table(manifest, table)
            if found is None:
                path, header = None, list(table.columns)
            else:
                path, header = found
            counts[name] = _ingest_table(connection, name, table, path, header, itemids, scratch / f"{name}.parquet")
            if more := lines_of(manifest, table) - counts[name]["rows_read"]:
                counts[name]["lines_without_row"] = more
        out.mkdir(exist_ok=True)
        for name in TABLES:
            (scratch / f"{name}.parquet").replace(out / f"{name}.parquet")
    return counts


def _ingest_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: Table,
    path: Path | None,
    header: list[str],
    itemids: Mapping[str, Mapping[int, bool]],
    out: Path,
) -> Counts:
    with _one_line(path or out):
        if table.itemids:
            needed = itemids[table.itemids]
            connection.execute("create or replace temp table needed (itemid integer, has_text boolean)")
            connection.execute(
                "insert into needed select unnest($ids), unnest($texts)",
                {"ids": list(needed), "texts": list(needed.values())},
            )
        source = _csv(path, header, table) if path else _empty(table)
        connection.execute(f"create or replace temp view source as {source}")
        query = (SQL_FOLDER / QUERIES[name]).read_text(encoding="utf-8")
        with _progress(connection, f"reading {path.name}" if path else ""):
            connection.execute(f"create or replace table staged as {query}")
        read = _rows_scanned(connection) if path else 0
        groups = connection.execute("select dropped, count(*) from staged group by dropped").fetchall()
        noted = _noted(connection)
        kept = sum(rows for reason, rows in groups if reason is None) - (noted or {}).get(AGAIN, 0)
        dropped = {reason: rows for reason, rows in sorted(groups, key=str) if reason is not None}
        unneeded = read - kept - sum(dropped.values())
        if unneeded:
            dropped["itemid not needed"] = unneeded
        if table.key:
            _check_key(connection, path or out, table.key)
        if name == "icustays":
            connection.execute(
                "create or replace table icustays as select stay_id, subject_id, hadm_id, intime, outtime from staged"
            )
        order = ", ".join(f'"{column}"' for column in table.order)
        with files.atomic(out) as beside:
            connection.execute(
                "copy (select columns(lambda c: c not in ('dropped', 'noted')) from staged"
                f" where dropped is null order by {order})"
                f" to {_quote(str(beside))} (format parquet, compression zstd, row_group_size {ROW_GROUP})"
            )
        connection.execute("drop table staged")
    if path and table.required and not kept:
        raise InputError(f"{path}: no usable row ({', '.join(dropped) or 'all lines are blank'})")
    return {"rows_read": read, "kept": kept, "dropped": dropped} | ({} if noted is None else {"noted": noted})


def _noted(connection: duckdb.DuckDBPyConnection) -> dict[str, int] | None:
    """How many kept rows of `staged` have which words in the column `noted`; None where there is no such column."""
    if not connection.execute("select 1 from (describe staged) where column_name = 'noted'").fetchone():
        return None
    return dict(
        connection.execute(
            "select words, count(*) from (select unnest(noted) as words from staged where dropped is null)"
            " where words is not null group by words order by words"
        ).fetchall()
    )


def _csv(path: Path, header: list[str], table: Table) -> str:
    """A query for the needed columns of a CSV file, typed; the others are text that is never looked at.

    Nothing is sniffed: names come from the header, only the empty field is null, a row with another number of fields
    than the header is an error.
    """
    places, _ = place_columns(header, table.columns)
    names = [places.get(i, f"unused {i}") for i in range(len(header))]
    columns = ", ".join(f"{_quote(name)}: {_quote(_parsed(table.columns.get(name, 'VARCHAR')))}" for name in names)
    chosen = ", ".join(f'{_typed(column, kind)} as "{column}"' for column, kind in table.columns.items())
    return (
        f"select {chosen} from read_csv({_quote(str(path))}, columns = {{{columns}}}, auto_detect = false,"
        f" header = true, delim = ',', quote = '\"', escape = '\"', nullstr = '', max_line_size = {MAX_LINE})"
    )


def _parsed(kind: str) -> str:
    """The type as which DuckDB parses a column of the schema: it would round 31.7 to the stay 32 on its own."""
    return "DOUBLE" if kind in WHOLE else kind


def _typed(column: str, kind: str) -> str:
    """A parsed column as what the schema says it is; what it is not ends the query in `explain`'s one line.

    Text loses the blanks around it, blank text is null; NaN and infinities are null, and there is no negative zero,
    whose place in the order would be a matter of chance.
    """
    if kind == "VARCHAR":
        return f"nullif(trim(\"{column}\"), '')"
    if kind == "DOUBLE":
        return f'case when isfinite("{column}") then "{column}" + 0.0 end'
    if kind in WHOLE:
        fits = f'"{column}" = trunc("{column}") and abs("{column}") < {WHOLE[kind]}'
        return _checked(column, fits, f'"{column}"::{kind}', f"no whole number below {WHOLE[kind]:,}")
    fits = f"\"{column}\" between {kind} '0001-01-01' and {kind} '9999-12-31'"
    return _checked(column, fits, f'"{column}"', "no date of the years 1 to 9999")


def _checked(column: str, fits: str, value: str, complaint: str) -> str:
    refuse = f'error({_quote(f"column {column}: ")} || "{column}" || {_quote(f" is {complaint}")})'
    return f'case when {fits} then {value} when "{column}" is not null then {refuse} end'


def _empty(table: Table) -> str:
    columns = ", ".join(f'null::{kind} as "{column}"' for column, kind in table.columns.items())
    return f"select {columns} where false"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _check_key(connection: duckdb.DuckDBPyConnection, path: Path, key: tuple[str, ...]) -> None:
    columns = ", ".join(key)
    for column in key:
        if connection.execute(f"select 1 from staged where {column} is null limit 1").fetchone():
            raise InputError(f"{path}: a row has no {column}")
    twice = connection.execute(
        f"select {columns} from staged group by all having count(*) > 1 order by all limit 1"
    ).fetchone()
    if twice:
        raise InputError(f"{path}: {columns} {', '.join(map(repr, twice))} stands twice")


def _rows_scanned(connection: duckdb.DuckDBPyConnection) -> int:
    """Rows that the last query parsed from CSV files, from DuckDB's profile: counting must not take a second pass."""
    todo = json.loads(connection.get_profiling_information(format="json"))["operator"]
    rows = 0
    while todo:
        operator = todo.pop()
        if operator.get("extra_info", {}).get("Function") == "READ_CSV":
            rows += operator["rows_scanned"]
        todo.extend(operator.get("children", ()))
    return int(rows)


@contextlib.contextmanager
def _connect(parent: Path, params: Ingest) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A connection whose tables, where they outgrow memory, spill to a scratch folder in `parent`; and the folder.

    Both are gone at the end.
    """
    with files.scratch(parent / "ingest") as scratch, duckdb.connect() as connection:
        connection.execute(f"set memory_limit = '{params.memory_gb} GB'")
        connection.execute(f"set threads = {params.threads}")
        connection.execute(f"set temp_directory = {_quote(str(scratch / 'spilled'))}")
        connection.execute("set enable_progress_bar = true")  # reckoned, but shown by tqdm
        connection.execute("set enable_progress_bar_print = false")
        connection.execute("set enable_profiling = 'no_output'")
        yield connection, scratch


@contextlib.contextmanager
def _progress(connection: duckdb.DuckDBPyConnection, text: str) -> Iterator[None]:
    """Show DuckDB's own estimate (per cent) while the block runs; queries that take under two seconds show nothing."""
    done = threading.Event()

    def show() -> None:
        with tqdm(total=100, desc=text, delay=2, bar_format="{l_bar}{bar}| {elapsed}", disable=not text) as bar:
            while not done.wait(1.0):
                bar.update(max(0.0, connection.query_progress() - bar.n))
            bar.update(100 - bar.n)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """What DuckDB says in many lines, as an InputError of one line that names file, line and column."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise InputError(
            f"{path}: ingest.memory_gb is too small for it, or the disk with data/ is full (what does not fit in "
            "memory is spilled there)"
        ) from None
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.IOException) as error:
        if "Could not write" in str(error):  # not about `path`: files.scratch says where the disk is full
            raise
        raise InputError(f"{path}: {explain(str(error))}") from None


NAMES = {"DOUBLE": "a number", "TIMESTAMP": "a time", "DATE": "a date"}


def explain(message: str) -> str:
    """One line for one of DuckDB's messages on a CSV file."""
    if found := re.match(r"Invalid Input Error: ((?:line \d+: )?column .*)", message):  # of `_checked`, and of a query
        return found.group(1)
    line = re.search(r"CSV Error on Line: (\d+)", message)
    where = f"line {line.group(1)}: " if line else ""
    said = message.partition("\nPossible ")[0]
    if found := re.search(
        r'Error when converting column "(.*)"\. Could not convert string "(.*)" to \'(\w+)\'', said, re.DOTALL
    ):
        column, text, kind = found.groups()
        return f"{where}column {column}: {text[:80]!r} is not {NAMES.get(kind, kind)}"
    if found := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", said):
        expected, fields = int(found.group(1)), int(found.group(2))
        # DuckDB stops counting at the first field too many
        return f"{where}{fields if fields < expected else f'more than {expected}'} fields, the header has {expected}"
    if "unterminated quote" in said:
        return f"{where}a quote that is never closed, or text behind a closed one"
    if "Maximum line size" in said:  # of one line, the manifest would have said so
        return f"{where}a quote that is never closed, or text of more than {MAX_LINE:,} bytes in quotes"
    if "invalid state" in said:
        return "its lines end in different ways (line feed, carriage return, both)"
    if "not utf-8" in said:
        return f"{where}not UTF-8"
    if "end of GZIP stream" in said:
        return "truncated: the compressed data end too early"
    if "GZIP" in said:
        return "damaged: something else follows the compressed data"
    reasons = [row for row in said.splitlines() if row.strip()]
    return where + " ".join((reasons[-1] if line else reasons[0]).split())
