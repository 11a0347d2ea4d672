"""Times of raw rows: with a clock, without an offset; and on which line what is no time or no whole number stands."""

from datetime import datetime

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.mimic.csv_query import csv_query, one_line
from pipeline.mimic.schema import Table
from tests.support.raw_tree import CHART_FILE, CHARTEVENTS, put
from tests.support.raw_tree import ingested as run


def read_times(folder, *texts, suffix=".csv.gz"):
    """Times as ingest reads them, from a file that has each in a row of its own."""
    table = Table("mimiciv", "times", {"charttime": "TIMESTAMP"}, order=())
    header = ["x", "charttime"]
    rows = "".join(f"1,{text}\n" for text in texts)
    path = folder / f"times{suffix}"
    put(path, ",".join(header) + "\n" + rows)
    with duckdb.connect() as connection, one_line(path):
        return [
            row[0]
            for row in connection.execute(f"select charttime from ({csv_query([path], header, table)})").fetchall()
        ]


MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 30))


@given(MOMENTS, st.sampled_from(["", " UTC", "Z", "+00", "+00:00"]), st.sampled_from([" ", "T"]), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_time_with_a_clock_is_read_to_the_microsecond(tmp_path, moment, zone, between, fraction):
    moment = moment if fraction else moment.replace(microsecond=0)
    assert read_times(tmp_path, "2150-01-01 13:00:00", moment.isoformat(between) + zone) == [
        datetime(2150, 1, 1, 13),
        moment,
    ]


@given(
    MOMENTS,
    st.sampled_from([" ", "T"]),
    st.sampled_from(["seconds", "minutes", "microseconds"]),
    st.sampled_from(["-05:00", "+05:30", "-05", "+0100", "-00:30", " +02"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_offset_from_utc_is_refused(tmp_path, moment, between, clock, offset):
    text = moment.isoformat(between, clock) + offset
    with pytest.raises(InputError) as caught:
        read_times(tmp_path, text)
    assert f"line 2: column charttime: {text!r} has an offset" in str(caught.value) or "is not a time" in str(
        caught.value
    )


@given(MOMENTS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_date_is_no_time(tmp_path, moment):
    with pytest.raises(InputError, match=f"line 3: column charttime: '{moment.date()}' has no time of day"):
        read_times(tmp_path, "2150-01-01 13:00:00", moment.date())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("2150-01-01 1:00-05:00", "has an offset from UTC; times are local, without one"),
        (
            "2150-1-1 1:00-05:00",
            "has an offset from UTC; times are local, without one",
        ),  # 19 signs, a colon in the 17th
        ("2150-01-01 13:00-05", "has an offset from UTC; times are local, without one"),
        ("2150-01-01 24:00:01", "is not a time"),
        ("2150-02-30 13:00:00", "is not a time"),
        ("13:00:00", "is not a time"),
        ("noon", "is not a time"),
        (" ", "is not a time"),
        ("epoch".ljust(19), "is not a time"),  # as long as a plain time
        ("infinity", "is no date of the years 1 to 9999"),
        ("0000-12-31 23:59:59", "is no date of the years 1 to 9999"),
        ("10000-01-01 00:00:00", "is no date of the years 1 to 9999"),
    ],
)
def test_what_is_no_time_is_refused(tmp_path, text, complaint):
    with pytest.raises(InputError) as caught:
        read_times(tmp_path, text)
    assert str(caught.value) == f"{tmp_path}/times.csv.gz: line 2: column charttime: {text!r} {complaint}"


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv"])
def test_the_line_is_that_on_which_the_first_such_row_begins(tmp_path, suffix):
    """Blank lines and line ends in quotes count, as an editor counts them."""
    rows = CHARTEVENTS.replace("31,7,", '31,"7\n\n",').splitlines(keepends=True)
    text = "".join([*rows[:4], "\n", *rows[4:], rows[-1].replace(",220045,", ',"220045.50",'), "\n"] * 1)
    file = CHART_FILE.replace(".csv.gz", suffix)
    with pytest.raises(InputError, match=r"line 14: column itemid: 220045\.5 is no whole number below 2,147,483,648$"):
        run(tmp_path, {CHART_FILE: None, file: text})


def test_rows_of_items_that_nobody_needs_are_not_looked_at(tmp_path):
    """Beyond their itemid: of most rows nothing else is turned into a time or a whole number."""
    old = "1,11,31,,2150-01-01 12:40:00,,999999"
    assert old in CHARTEVENTS
    _, counts = run(tmp_path, {CHART_FILE: CHARTEVENTS.replace(old, "1,11,31.5,,noon,,999999")})
    assert counts["chart"]["dropped"]["itemid not needed"] == 1
    with pytest.raises(InputError, match=r"line 6: column itemid: 999999\.5 is no whole number"):
        run(tmp_path, {CHART_FILE: CHARTEVENTS.replace("999999", "999999.5")})


def test_without_python_s_help_the_line_is_left_out(tmp_path):
    path = tmp_path / "a.csv"
    for content in ("other\n1.5\n", "", 'id\n"' + "x" * 500_000 + '"\n1.5\n'):
        path.write_text(content)
        with (
            pytest.raises(InputError, match=r"a\.csv: column id: 1\.5 is no whole number below 32,768$"),
            one_line(path),
        ):
            raise duckdb.InvalidInputException("Invalid Input Error: column id: 1.5 is no whole number below 32,768")
