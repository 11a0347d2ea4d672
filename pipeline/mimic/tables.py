"""Raw CSV files -> typed, sorted Parquet with the needed columns and itemids only: data/interim.

DuckDB streams each file once and sorts on the way into a table that spills to a scratch folder, so that memory stays
below `ingest.memory_gb` whatever the size of the files; rows that stand twice are neighbours there. What the rows mean
is decided downstream.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
from tqdm import tqdm

from pipeline import files
from pipeline.errors import InputError
from pipeline.mimic.csv_query import MALFORMED, TRIMMED, csv_query, empty_query, one_line, quoted
from pipeline.mimic.manifest import find_table, lines_of
from pipeline.mimic.pipes import Pipes, UncertainError
from pipeline.mimic.schema import TABLES, Table
from pipeline.mimic.variables import Conversion, Wanted
from pipeline.params import Ingest

SQL_FOLDER = Path(__file__).parent
# Each turns the view `source` (the needed columns, typed) into the interim table's rows plus a column `dropped`: null,
# or the reason why the row is left out; and a column `noted`, where a kept row can have something odd about it: a list
# of words and nulls; and a column `apart`, which tells rows apart and is not kept. Beside `source` there are what
# `want` makes and, once read, `icustays`.
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
BESIDE = ("dropped", "noted", "apart", "hashed")
ROW_GROUP = 262_144

# rows_read, kept, dropped: {reason: rows}; noted: {words: rows}, of tables that note something; where there are any,
# lines_without_row: blank, or inside of quoted text
Counts = dict[str, Any]
AGAIN = "in a second stay"  # noted of a row that the table holds already, for another stay
REPEATED = "the same row again"
UNITS_SHOWN = 20  # of what is left out for its unit, the commonest are named


def ingest(manifest: dict[str, Any], itemids: Mapping[str, Mapping[int, Wanted]], params: Ingest, out: Path) -> Counts:
    """Write one Parquet file per table of the schema to `out`; return what was read, kept and left out, per table.

    The files appear in `out` when all are done. `itemids` gives the needed itemids per source (chartevents, ...), and
    what of them. An optional table that is not there becomes a file without rows. Raises InputError that names file,
    line and column where a file is malformed or a key stands twice, and params key where memory does not suffice.
    """
    counts: Counts = {}
    with _connect(out.parent, params) as (connection, scratch):
        for name, table in TABLES.items():
            found = find_table(manifest, table)
            if found is None:
                path, header = None, list(table.columns)
            else:
                path, header = found
            counts[name] = _ingest_table(
                connection, name, table, path, header, itemids, scratch / f"{name}.parquet", params.threads
            )
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
    itemids: Mapping[str, Mapping[int, Wanted]],
    out: Path,
    threads: int,
) -> Counts:
    with one_line(path or out):
        if table.itemids:
            want(connection, itemids[table.itemids])
        query = (SQL_FOLDER / QUERIES[name]).read_text(encoding="utf-8")
        if path:
            _stage_file(connection, query, table, path, header, out.parent, threads)
        else:
            _stage(connection, query, table, empty_query(table))
        read, needed = _rows_scanned(connection) if path else (0, 0)
        if table.itemids:
            _drop_repeated(connection)
        kept, dropped, noted = _tally(connection)
        if repeated := needed - kept - sum(dropped.values()):
            dropped[REPEATED] = repeated
        if unneeded := read - needed:
            dropped["itemid not needed"] = unneeded
        if table.key:
            _check_key(connection, path or out, table.key)
        if name == "icustays":
            connection.execute(
                "create or replace table icustays as select stay_id, subject_id, hadm_id, intime, outtime from staged"
            )
        # what stood twice left holes, at which row groups would end earlier or later with another number of threads
        again = " order by rowid" if repeated else ""
        with files.atomic(out) as beside:
            connection.execute(
                f"copy (select columns(lambda c: c not in {BESIDE}) from staged"
                f" where dropped is null{again}) to {quoted(str(beside))}"
                f" (format parquet, compression zstd, row_group_size {ROW_GROUP})"
            )
        connection.execute("drop table staged")
    if path and table.required and not kept:
        raise InputError(f"{path}: no usable row ({', '.join(dropped) or 'all lines are blank'})")
    return {"rows_read": read, "kept": kept, "dropped": dropped} | ({"noted": noted} if noted else {})


def _stage_file(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    table: Table,
    path: Path,
    header: list[str],
    scratch: Path,
    threads: int,
) -> None:
    """Make `staged` of a file: by way of pipes if it is compressed; where they find a fault, of the file as it is.

    Its line is named then; of the rare file that is well-formed after all, the rows are taken.
    """
    if path.suffix == ".gz":
        with (
            contextlib.suppress(InputError, UncertainError, OSError, *MALFORMED),
            Pipes(path, scratch, threads) as pipes,
        ):
            with _progress(pipes.percent, path.name):
                _stage(connection, query, table, csv_query(pipes.paths, header, table))
            pipes.check()
            return
    with _progress(connection.query_progress, path.name):
        _stage(connection, query, table, csv_query([path], header, table))


def _stage(connection: duckdb.DuckDBPyConnection, query: str, table: Table, source: str) -> None:
    """Make `staged`: the rows of `query`, in order, from those of `source`."""
    connection.execute(f"create or replace temp view source as {source}")
    connection.execute(f"create or replace table staged as {_in_order(connection, query, table)}")


def want(connection: duckdb.DuckDBPyConnection, itemids: Mapping[int, Wanted]) -> None:
    """Make what the queries ask about itemids: `needed` (itemid, has_text, unit), a row each; `units` (itemid, unit,
    subtract, multiply, divide, converted), a row for each unit, `spelled`, that a row may name; and five macros."""
    connection.execute(f"create or replace temp macro trimmed(text) as {TRIMMED.format(text='text')}")
    connection.execute("create or replace temp macro spelled(unit) as translate(lower(unit), 'µμ ', 'uu')")
    connection.execute(
        "create or replace temp macro unit_of(unit, itemid) as 'unit ' || left(unit, 20) || ' of itemid ' || itemid"
    )
    connection.execute(  # nearly all rows name the expected one to the letter
        "create or replace temp macro other_unit(named, expected) as"
        " case when named <> expected and trimmed(named) <> expected then spelled(trimmed(named)) end"
    )
    connection.execute(  # with or without separators of thousands
        "create or replace temp macro number_in(text) as try_cast(case when"
        " regexp_full_match(text, '\\d{1,3}(,\\d{3})+(\\.\\d+)?') then replace(text, ',', '') else text end as double)"
    )
    _fill(
        connection,
        "needed",
        {"itemid": "integer", "has_text": "boolean", "unit": "varchar"},
        [(itemid, each.has_text, each.unit) for itemid, each in itemids.items()],
    )
    _fill(
        connection,
        "units",
        {"itemid": "integer", "unit": "varchar"}
        | dict.fromkeys(("subtract", "multiply", "divide"), "double")
        | {"converted": "boolean"},
        [
            (itemid, unit, to.subtract, to.multiply, to.divide, to != Conversion())
            for itemid, each in itemids.items()
            for unit, to in each.units
        ],
    )


def _fill(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str], rows: list[tuple[Any, ...]]
) -> None:
    """A small table with these columns and types."""
    described = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    connection.execute(f"create or replace temp table {name} ({described})")
    chosen = ", ".join(f"unnest(${column}::{kind}[])" for column, kind in columns.items())
    connection.execute(
        f"insert into {name} select {chosen}", {column: [row[i] for row in rows] for i, column in enumerate(columns)}
    )


def _tally(connection: duckdb.DuckDBPyConnection) -> tuple[int, dict[str, int], dict[str, int]]:
    """Of `staged`: the rows kept, those dropped by reason, and how many kept ones have which words in `noted`."""
    groups = connection.execute("select dropped, count(*) from staged group by dropped").fetchall()
    noted: dict[str, int] = {}
    if connection.execute("select 1 from (describe staged) where column_name = 'noted'").fetchone():
        noted = dict(
            connection.execute(
                "select words, count(*) from"
                " (select unnest(noted) as words from staged where dropped is null and noted is not null)"
                " where words is not null group by words order by words"
            ).fetchall()
        )
    kept = sum(rows for reason, rows in groups if reason is None) - noted.get(AGAIN, 0)
    dropped = {reason: rows for reason, rows in sorted(groups, key=str) if reason is not None}
    of_units = sorted((reason for reason in dropped if reason.startswith("unit ")), key=lambda each: -dropped[each])
    if of_units[UNITS_SHOWN:]:
        dropped["other units"] = sum(dropped.pop(reason) for reason in of_units[UNITS_SHOWN:])
    return kept, dropped, noted


def _in_order(connection: duckdb.DuckDBPyConnection, query: str, table: Table) -> str:
    """`query`'s rows sorted, those that are dropped last; events by all columns, of which `hashed` is a hash."""
    rows = f"select * from ({query}) order by dropped nulls first, {', '.join(table.order)}"
    if not table.itemids:
        return rows
    columns = [row[0] for row in connection.execute(f"describe {query}").fetchall()]
    others = (column for column in columns if column not in (*table.order, "dropped"))
    rows += "".join(f", {column}" for column in others)  # or alike ones might not be neighbours
    return f"select *, hash({', '.join(columns)}) as hashed from ({rows})"


def _drop_repeated(connection: duckdb.DuckDBPyConnection) -> None:
    """Of `staged`, delete each row that is kept and alike in all columns to the one before it.

    Neighbours are looked at on one thread, so only their hashes are; where those agree, the columns are compared.
    """
    columns = [row[0] for row in connection.execute("describe staged").fetchall()]
    alike = " and ".join(f"later.{column} is not distinct from earlier.{column}" for column in columns)
    connection.execute(
        "create or replace temp table suspected as select rowid as place, * from staged where rowid in"
        " (select unnest([place - 1, place]) from"
        " (select rowid as place, dropped, hashed, lag(hashed) over () as before from staged)"
        " where dropped is null and hashed = before)"
    )
    if not connection.execute("select 1 from suspected limit 1").fetchone():
        return  # as a rule: deleting nothing would read the table once more
    connection.execute(
        "delete from staged where rowid in (select later.place from suspected as later"
        f" join suspected as earlier on earlier.place = later.place - 1 where {alike})"
    )


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


def _rows_scanned(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Rows that the last query parsed from CSV files, and how many of them `csv_query` let through for their itemid.

    From DuckDB's profile: counting must not take a second pass.
    """
    todo = json.loads(connection.get_profiling_information(format="json"))["operator"]
    read, needed = 0, None
    while todo:
        operator = todo.pop()
        about = operator.get("extra_info", {})
        if about.get("Function") == "READ_CSV":
            read += operator["rows_scanned"]
        elif about.get("Join Type") == "SEMI":
            needed = operator["intermediate_rows"]
        todo.extend(operator.get("children", ()))
    return int(read), int(read if needed is None else needed)


@contextlib.contextmanager
def _connect(parent: Path, params: Ingest) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A connection whose tables, where they outgrow memory, spill to a scratch folder in `parent`; and the folder.

    Both are gone at the end.
    """
    with files.scratch(parent / "ingest") as scratch, duckdb.connect() as connection:
        connection.execute(f"set memory_limit = '{params.memory_gb} GB'")
        connection.execute(f"set threads = {params.threads}")
        connection.execute(f"set temp_directory = {quoted(str(scratch / 'spilled'))}")
        connection.execute("set enable_progress_bar = true")  # reckoned, but shown by tqdm
        connection.execute("set enable_progress_bar_print = false")
        connection.execute("set enable_profiling = 'no_output'")
        # joins as they are written, the small table last: of a CSV's rows DuckDB guesses far too few
        connection.execute("set disabled_optimizers = 'join_order,build_side_probe_side'")
        yield connection, scratch


@contextlib.contextmanager
def _progress(percent: Callable[[], float], name: str) -> Iterator[None]:
    """Show how much of a file was read while the block runs; what takes under two seconds is not shown."""
    done = threading.Event()

    def show() -> None:
        with tqdm(total=100, desc=f"reading {name}", delay=2, bar_format="{l_bar}{bar}| {elapsed}") as bar:
            while not done.wait(1.0):
                bar.update(max(0.0, percent() - bar.n))
            bar.update(100 - bar.n)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
