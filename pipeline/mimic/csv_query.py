"""A CSV file as a query with the columns and types of the schema, and what DuckDB says of it in one line.

Nothing is sniffed, and what DuckDB would bend on the way to a type is refused: decimals of an id, a date for a time.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from pipeline.errors import InputError
from pipeline.mimic.rawfile import MAX_LINE
from pipeline.mimic.schema import Table, place_columns

WHOLE = {"SMALLINT": 2**15, "INTEGER": 2**31, "BIGINT": 2**53}  # types of whole numbers, and the bound below which
TRIMMED = "nullif(trim({text}), '')"
PLAIN = "%Y-%m-%d %H:%M:%S"
YEARS = "{kind} '0001-01-01' and {kind} '9999-12-31'"
NO_DATE = "is no date of the years 1 to 9999"
DAY = r"\s*\d+\D\d+\D\d+\s*"
CLOCK = r"\s*\d+\D\d+\D\d+[T ]+\d+:\d+(:\d+(\.\d+)?)?\s*(Z|UTC|\+00(:?00)?)?\s*"  # of UTC is no shift
OFFSET = r".*\d\s*[+-]\d+(:?\d+)*\s*"
# What `_refused` says
CHECKED = re.compile(
    r"Invalid Input Error: column (?P<column>.+?): (?P<text>.*) (?P<complaint>(?:is not?|has) [^\n]+)", re.DOTALL
)
MALFORMED = (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.IOException)  # what DuckDB says of a file
NAMES = {"DOUBLE": "a number", "DATE": "a date"}


def csv_query(paths: Sequence[Path], header: list[str], table: Table) -> str:
    """A query for the needed columns of a CSV file, typed; the others are text that is never looked at.

    The file may be in parts, each with the header.

    Nothing is sniffed: names come from the header, only the empty field is null, a row with another number of fields
    than the header is an error. Of a table with itemids text is as it stands: of most rows nobody reads it.
    """
    places, _ = place_columns(header, table.columns)
    names = [places.get(i, f"unused {i}") for i in range(len(header))]
    columns = ", ".join(f"{quoted(name)}: {quoted(_parsed(table.columns.get(name, 'VARCHAR')))}" for name in names)
    chosen = ", ".join(
        f'"{column}"' if table.itemids and kind == "VARCHAR" else f'{_typed(column, kind)} as "{column}"'
        for column, kind in table.columns.items()
    )
    parts = ", ".join(quoted(str(path)) for path in paths)
    times = "".join(
        f', try_strptime("{column}", {quoted(PLAIN)}) as "{column} plain"'
        for column, kind in table.columns.items()
        if kind == "TIMESTAMP"
    )
    # of other items nothing but the itemid is looked at
    needed = f" where {_typed('itemid', 'INTEGER')} in (select itemid from needed)" if table.itemids else ""
    return (
        f"select {chosen} from (select *{times} from read_csv([{parts}], columns = {{{columns}}},"
        " auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', nullstr = '',"
        f" max_line_size = {MAX_LINE}){needed})"
    )


def _parsed(kind: str) -> str:
    """The type as which DuckDB parses a column of the schema.

    On its own it would round 31.7 to the stay 32, take a date for midnight, and drop a time's offset from UTC.
    """
    return "DOUBLE" if kind in WHOLE else "VARCHAR" if kind == "TIMESTAMP" else kind


def _typed(column: str, kind: str) -> str:
    """A parsed column as what the schema says it is; what it is not ends the query in `explain`'s one line.

    Text loses the blanks around it, blank text is null; NaN and infinities are null, and there is no negative zero,
    whose place in the order would be a matter of chance.
    """
    if kind == "VARCHAR":
        return TRIMMED.format(text=f'"{column}"')
    if kind == "DOUBLE":
        return f'case when isfinite("{column}") then "{column}" + 0.0 end'
    if kind in WHOLE:
        fits = f'"{column}" = trunc("{column}") and abs("{column}") < {WHOLE[kind]}'
        return _checked(column, fits, f'"{column}"::{kind}', f"is no whole number below {WHOLE[kind]:,}")
    if kind == "TIMESTAMP":
        return _time(column)
    return _checked(column, f'"{column}" between {YEARS.format(kind=kind)}', f'"{column}"', NO_DATE)


def _time(column: str) -> str:
    """A column of times: date and clock, local, in the years 1 to 9999. Nearly all are PLAIN, told cheaply.

    What DuckDB takes for that of other length ("2150-1-1 1:00:00"), or by a name ("epoch"), is looked at like the rest.
    """
    text, plain = f'"{column}"', f'"{column} plain"'
    time = f"try_cast({text} as timestamp)"
    years = YEARS.format(kind="TIMESTAMP")
    return (
        f"case when {plain} between {years} and strlen({text}) = 19 and {text} < ':' then {plain}"
        f" when {text} is null then null"
        f" when {time} is null then {_refused(column, 'is not a time')}"
        f" when not {time} between {years} then {_refused(column, NO_DATE)}"
        f" when regexp_full_match({text}, {quoted(CLOCK)}) then {time}"
        f" when regexp_full_match({text}, {quoted(DAY)}) then {_refused(column, 'has no time of day')}"
        f" when regexp_full_match({text}, {quoted(OFFSET)})"
        f" then {_refused(column, 'has an offset from UTC; times are local, without one')}"
        f" else {_refused(column, 'is not a time')} end"
    )


def _checked(column: str, fits: str, value: str, complaint: str) -> str:
    return f'case when {fits} then {value} when "{column}" is not null then {_refused(column, complaint)} end'


def _refused(column: str, complaint: str) -> str:
    return f'error({quoted(f"column {column}: ")} || "{column}" || {quoted(f" {complaint}")})'


def empty_query(table: Table) -> str:
    """The same without a file: no rows."""
    columns = ", ".join(f'null::{kind} as "{column}"' for column, kind in table.columns.items())
    return f"select {columns} where false"


def quoted(text: str) -> str:
    """`text` as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def one_line(path: Path) -> Iterator[None]:
    """What DuckDB says in many lines, as an InputError of one line that names file, line and column."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise InputError(
            f"{path}: ingest.memory_gb is too small for it, or the disk with data/ is full (what does not fit in "
            "memory is spilled there)"
        ) from None
    except MALFORMED as error:
        if "Could not write" in str(error):  # not about `path`: files.scratch says where the disk is full
            raise
        checked = CHECKED.match(str(error))
        line = _line_of(path, checked["column"], checked["text"]) if checked else None
        raise InputError(f"{path}: {f'line {line}: ' if line else ''}{explain(str(error))}") from None


def _line_of(path: Path, column: str, text: str) -> int | None:
    """The line on which the first row begins that has `text`, or the same number, in a column.

    The file is read anew, slowly: to count lines in the good case would cost each row. None where Python's csv does not
    find it.
    """

    def number(field: str) -> float | None:
        with contextlib.suppress(ValueError):
            return float(field)
        return None

    sought = number(text)
    limit = csv.field_size_limit(MAX_LINE)
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig", newline="")
        ) as file:
            rows = csv.reader(file)
            place = [name.strip().casefold() for name in next(rows, [])].index(column.casefold())
            line = rows.line_num + 1
            for row in rows:
                field = row[place] if place < len(row) else ""
                if field.casefold() == text.casefold() or (sought is not None and number(field) == sought):
                    return line
                line = rows.line_num + 1
    except (OSError, EOFError, ValueError, csv.Error):  # ValueError: not UTF-8, no such column
        return None
    finally:
        csv.field_size_limit(limit)
    return None


def explain(message: str) -> str:
    """One line for one of DuckDB's messages on a CSV file."""
    if found := re.match(r"Invalid Input Error: (line \d+: column .*)", message):  # of a query that knows the line
        return found.group(1)
    if found := CHECKED.match(message):
        text, complaint = found["text"], found["complaint"]
        return f"column {found['column']}: {text if 'whole number' in complaint else repr(text[:80])} {complaint}"
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
