"""Ingest of MIMIC-CXR's metadata: study times and image ids."""

from datetime import datetime

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.mimic.tables import SQL_FOLDER
from pipeline.params import Ingest
from tests.support.raw_tree import (
    FILES,
    METADATA,
)
from tests.support.raw_tree import ingested as run


def test_image_times_get_their_zeros_back(interim):
    frames, _ = interim
    assert frames["cxr_metadata"].rows() == [
        ("a-1", 1, 52, "CHEST (PA AND LAT)", None, 400, 300, datetime(2150, 1, 2, 0, 0, 5, 250_000)),
        ("b-1", 1, 51, "CHEST (PORTABLE AP)", "AP", 400, 300, datetime(2150, 1, 1, 13, 30, 0, 500_000)),
    ]
    assert frames["cxr_findings"].row(0)[:6] == (51, 1, 1.0, None, -1.0, 0.0)


def study_times(pairs, good=None):
    """study_time as cxr_metadata.sql reads it, of (StudyDate, StudyTime) texts.

    Behind them stand `good` rows (as many, where it is not given): a table whose times are mostly none is refused.
    """
    rows = [*pairs, *[("21500101", "120000")] * (len(pairs) if good is None else good)]
    with duckdb.connect() as connection:
        connection.execute(
            "create table source (dicom_id varchar, subject_id int, study_id int, ViewPosition varchar,"
            " PerformedProcedureStepDescription varchar, Rows int, Columns int, StudyDate varchar, StudyTime varchar)"
        )
        connection.executemany(
            "insert into source (dicom_id, StudyDate, StudyTime) values (?, ?, ?)",
            [(f"{i:06d}", *pair) for i, pair in enumerate(rows)],
        )
        query = (SQL_FOLDER / "cxr_metadata.sql").read_text()
        found = connection.execute(f"select study_time from ({query}) order by dicom_id").fetchall()
    return [row[0] for row in found[: len(pairs)]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.datetimes(datetime(2100, 1, 1), datetime(2220, 12, 31)), min_size=1, max_size=30))
def test_any_time_survives_the_loss_of_its_zeros(moments):
    pairs = []
    for moment in moments:
        millis = moment.microsecond // 1000
        number = moment.hour * 10_000 + moment.minute * 100 + moment.second + millis / 1000
        pairs.append((moment.strftime("%Y%m%d"), str(round(number, 3))))
    expected = [moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in moments]
    assert study_times(pairs) == expected


@pytest.mark.parametrize(
    ("day", "clock", "expected"),
    [
        ("21500101", "0.0", datetime(2150, 1, 1)),
        ("21500101", "0", datetime(2150, 1, 1)),
        ("21500101", "000159", datetime(2150, 1, 1, 0, 1, 59)),
        ("21500101.0", " 158.812", datetime(2150, 1, 1, 0, 1, 58, 812_000)),
        ("21500101", "235959.9999999", datetime(2150, 1, 1, 23, 59, 59, 999_999)),
        ("21500101", "240000", None),
        ("21500101", "126000", None),
        ("21501301", "120000", None),
        ("21500230", "120000", None),
        ("2150", "120000", None),
        ("21500101", "1200000", None),
        ("21500101", "-5", None),
        ("21500101", "1e5", None),
        ("21500101", "noon", None),
        ("21500101", None, None),
        (None, "120000", None),
    ],
)
def test_odd_study_times(day, clock, expected):
    assert study_times([(day, clock)]) == [expected]


def test_a_time_that_is_none_is_null_not_fatal(tmp_path):
    frames, counts = run(tmp_path, {"cxr/mimic-cxr-2.0.0-metadata.csv.gz": METADATA.replace("133000.5", "x")})
    assert frames["cxr_metadata"]["study_time"].null_count() == 1
    assert counts["cxr_metadata"]["kept"] == 2


METADATA_FILE = "cxr/mimic-cxr-2.0.0-metadata.csv.gz"


def metadata_of(rows):
    """The metadata with these (dicom_id, StudyDate, StudyTime) as its rows."""
    lines = [f"{dicom},1,51,CHEST (PORTABLE AP),AP,400,300,{day},{clock},,,\n" for dicom, day, clock in rows]
    return METADATA.splitlines(keepends=True)[0] + "".join(lines)


@pytest.mark.parametrize(
    ("dicom", "shown"),
    [
        ("../../../secret", "'../../../secret'"),
        ("..", "'..'"),
        ("/etc/passwd", "'/etc/passwd'"),
        (" ", "''"),
        ("a/b", "'a/b'"),
        (".hidden", "'.hidden'"),
        ('"a\nb"', r"'a\nb'"),
        ("a\x1b[1m", r"'a\u001B[1m'"),
        ("a" * 201, f"'{'a' * 80}'"),
    ],
)
def test_an_image_id_that_is_no_file_name_is_refused_with_its_line(tmp_path, dicom, shown):
    rows = [(f"ok-{i}", "21500101", "120000") for i in range(3)]
    changes = {METADATA_FILE: metadata_of([*rows, (dicom, "21500101", "120000"), ("../later", "21500101", "1")])}
    with pytest.raises(InputError) as caught:
        run(tmp_path, changes)
    assert str(caught.value) == f"{tmp_path / METADATA_FILE}: line 5: column dicom_id: {shown} is no file name"


@pytest.mark.parametrize("suffix", ["csv.gz", "csv"])
def test_the_line_is_right_in_a_large_table_read_by_several_threads(tmp_path, suffix):
    rows = [(f"{i:09d}", "21500101", "120000") for i in range(60_000)]
    rows[41_234], rows[50_000] = ("..", "", ""), ("../x", "", "")
    file = METADATA_FILE.replace("csv.gz", suffix)
    others = dict.fromkeys(FILES) | {name.replace("csv.gz", suffix): text for name, text in FILES.items()}
    with pytest.raises(InputError, match=r"line 41236: column dicom_id: '\.\.' is no file name"):
        run(tmp_path, others | {file: metadata_of(rows)}, Ingest(1.0, 4), cxr_tables=suffix)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_times_are_refused_exactly_where_fewer_than_half_can_be_read(readable):
    """With the first that cannot, and the column that loses most of them: the date before the time of day."""
    pairs = [("21500101" if day else "1 Jan", "120000" if clock else "noon") for day, clock in readable]
    dated, timed = sum(day for day, _ in readable), sum(map(all, readable))
    if 2 * timed >= len(readable):
        assert [time is not None for time in study_times(pairs, good=0)] == [day and clock for day, clock in readable]
        return
    with pytest.raises(duckdb.InvalidInputException) as caught:
        study_times(pairs, good=0)
    if 2 * dated < len(readable):
        first = next(i for i, (day, _) in enumerate(readable) if not day)
        words = f"line {first + 2}: column StudyDate: '1 Jan' is no date YYYYMMDD; "
    else:
        first = next(i for i, (day, clock) in enumerate(readable) if day and not clock)
        words = f"line {first + 2}: column StudyTime: 'noon' is no time HHMMSS; "
    words += f"{len(readable) - timed} of {len(readable)} images have no usable time"
    assert words in str(caught.value)
