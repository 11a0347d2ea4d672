"""Ingest: what the interim tables hold, what is left out and counted, and one clear line for malformed rows."""

import hashlib
from datetime import date, datetime

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.mimic import tables
from pipeline.mimic.csv_query import explain
from pipeline.mimic.manifest import build_manifest
from pipeline.mimic.tables import SQL_FOLDER, ingest
from pipeline.params import Ingest
from tests.support.raw_tree import (
    ADMISSIONS,
    BOUNDS,
    CHART_FILE,
    CHARTEVENTS,
    DIAGNOSES,
    FILES,
    ICUSTAYS,
    LABEVENTS,
    METADATA,
    NEEDED,
    OUTPUTEVENTS,
    PATIENTS,
    PATIENTS_FILE,
    STAYS_FILE,
    raw_tree,
)
from tests.support.raw_tree import ingested as run


@pytest.fixture(scope="module")
def interim(tmp_path_factory):
    return run(tmp_path_factory.mktemp("raw"))


def test_small_tables_are_typed_and_sorted(interim):
    frames, counts = interim
    assert frames["patients"].row(1) == (2, "M", 17, 2160, "2014 - 2016", date(2161, 2, 3))
    assert frames["icustays"]["stay_id"].to_list() == [31, 32]
    assert frames["icustays"]["first_careunit"][1] == "Unit, B"
    assert frames["admissions"].schema["deathtime"] == pl.Datetime("us")
    assert frames["admissions"].row(1, named=True) == {
        "subject_id": 2,
        "hadm_id": 12,
        "admittime": datetime(2160, 1, 1, 10),
        "dischtime": datetime(2160, 1, 9, 10),
        "deathtime": datetime(2160, 1, 9, 9),
        "admission_type": "URGENT",
        "admission_location": None,
        "insurance": "Other",
        "language": "ENGLISH",
        "race": "None",
        "hospital_expire_flag": 1,
    }
    assert counts["patients"] == {"rows_read": 2, "kept": 2, "dropped": {}}


def test_codes_stay_text_without_blanks_and_without_the_same_row_twice(interim):
    frames, counts = interim
    assert frames["diagnoses"].select("hadm_id", "seq_num", "icd_version", "icd_code").rows() == [
        (11, 1, 9, "0389"),
        (11, 2, 9, "4019"),
        (12, 1, 10, "J9601"),
    ]
    assert counts["diagnoses"] == {"rows_read": 4, "kept": 3, "dropped": {"the same row again": 1}}


def test_chart_rows_of_needed_items_are_kept_and_the_others_counted(interim):
    frames, counts = interim
    at = datetime(2150, 1, 1, 12, 30)
    assert frames["chart"].rows() == [
        (31, at, 220045, None, 90.0),
        (31, at, 223900, "NA", None),
        (31, at, 224650, "None", None),
        (31, datetime(2150, 1, 1, 13), 220045, None, 88.0),
    ]
    assert counts["chart"] == {
        "rows_read": 9,
        "kept": 4,
        "dropped": {
            "itemid not needed": 1,
            "no charttime": 1,
            "no stay_id": 1,
            "no value": 1,
            "stay not in icustays": 1,
        },
    }


def test_output_has_no_negative_zero(interim):
    frames, _ = interim
    assert frames["output"]["value"].to_list() == [0.0, 120.5]
    assert str(frames["output"]["value"][0]) == "0.0"


def test_labs_have_their_stay_two_times_and_a_number_and_the_rest_is_counted(interim):
    frames, counts = interim
    noon = datetime(2150, 1, 1, 12)
    assert frames["lab"].columns == ["stay_id", "charttime", "available", "itemid", "valuenum"]
    assert frames["lab"].rows() == [
        (31, datetime(2150, 1, 1, 11, 30), noon, 50912, 1.1),
        (31, noon.replace(hour=13), datetime(2150, 1, 1, 14, 10), 50912, 1.2),
        (31, noon.replace(hour=15), noon.replace(hour=15), 51003, 0.01),
        (31, noon.replace(hour=17), noon.replace(hour=17), 50912, 0.0),
    ]
    assert str(frames["lab"]["valuenum"][3]) == "0.0"
    assert counts["lab"] == {
        "rows_read": 8,
        "kept": 4,
        "dropped": {"in no ICU stay": 1, "itemid not needed": 1, "no charttime": 1, "no number": 1},
        "noted": {
            "a bound for a number": 1,
            "stored before drawn": 1,
            "without hadm_id": 1,
            "without storetime": 1,
        },
    }


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


def shuffled(text):
    """The same table: columns reversed, one more in front, rows reversed, another case, BOM, CRLF, a quoted field."""
    head, *rows = text.splitlines()
    names = head.split(",")
    lines = [",".join(["extra", *(f'"{name.upper()}"' for name in reversed(names))])]
    for row in reversed(rows):
        fields = row.split(",")
        lines.append(",".join(["x y", *reversed(fields)]))
    return "\ufeff" + "\r\n".join(lines)


def test_order_of_columns_and_rows_case_and_line_ends_do_not_matter(tmp_path, interim):
    changes = {
        name: shuffled(text)
        for name, text in FILES.items()
        if '"' not in text  # a comma inside of quotes is beyond `shuffled`
    }
    assert len(changes) == 10
    frames, counts = run(tmp_path, changes)
    for name, frame in interim[0].items():
        assert frames[name].equals(frame), name
    assert counts == interim[1]


def test_plain_csv_gives_the_same(tmp_path, interim):
    changes = dict.fromkeys(FILES) | {name.removesuffix(".gz"): text for name, text in FILES.items()}
    frames, counts = run(tmp_path, changes, cxr_tables="csv")
    assert all(frames[name].equals(frame) for name, frame in interim[0].items())
    assert counts == interim[1]


def test_bytes_do_not_depend_on_threads_and_memory(tmp_path):
    rows = "".join(
        f"1,11,31,,2150-01-01 {12 + i % 12}:{i % 60:02d}:{i * 7 % 60:02d},,220045,{n},{n},bpm,0\n"
        for i, n in enumerate(range(0, 60_000 * 13, 13))
    )
    changes = {"iv/icu/chartevents.csv.gz": CHARTEVENTS + rows}
    digests = set()
    for i, bounds in enumerate([Ingest(1.0, 1), Ingest(1.0, 4), Ingest(0.5, 2)]):
        frames, counts = run(tmp_path / str(i), changes, bounds)
        assert counts["chart"]["rows_read"] == 60_009
        assert frames["chart"].height == 60_004
        content = (tmp_path / str(i) / "data/interim/chart.parquet").read_bytes()
        digests.add(hashlib.sha256(content).hexdigest())
    assert len(digests) == 1


def test_missing_findings_become_an_empty_table(tmp_path):
    frames, counts = run(tmp_path, {"cxr/mimic-cxr-2.0.0-chexpert.csv.gz": None})
    assert frames["cxr_findings"].is_empty()
    assert frames["cxr_findings"].schema["Pleural Effusion"] == pl.Float64
    assert counts["cxr_findings"]["rows_read"] == 0


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (CHART_FILE, CHARTEVENTS + "1,11,31\n", ["line 11", "3 fields, the header has 11"]),
        (
            CHART_FILE,
            CHARTEVENTS + CHARTEVENTS.splitlines()[1] + ",0,0\n",
            ["line 11", "more than 11 fields, the header has 11"],
        ),
        (CHART_FILE, CHARTEVENTS.replace("999999", "itm"), ["line 6", "column itemid", "'itm' is not a number"]),
        (CHART_FILE, CHARTEVENTS.replace(":30:00", ":99:00"), ["line 3", "column charttime", "is not a time"]),
        (CHART_FILE, CHARTEVENTS + '1,11,31,,2150-01-01 12:50:00,,220045,"1,1,bpm,0\n', ["line 11", "never closed"]),
        (CHART_FILE, CHARTEVENTS.encode().replace(b"None", b"\xff\xfe"), ["line 4", "not UTF-8"]),
        (CHART_FILE, CHARTEVENTS.replace(",31,", ",33,"), ["no usable row", "stay not in icustays"]),
        (STAYS_FILE, ICUSTAYS.replace(",32,", ",31,"), ["stay_id 31 stands twice"]),
        (STAYS_FILE, ICUSTAYS.replace(",32,", ",,"), ["a row has no stay_id"]),
        (PATIENTS_FILE, PATIENTS + PATIENTS.splitlines()[1] + "\n", ["subject_id 1 stands twice"]),
        ("iv/hosp/admissions.csv.gz", ADMISSIONS.replace("2,12,", "2,11,"), ["hadm_id 11 stands twice"]),
        ("iv/hosp/diagnoses_icd.csv.gz", DIAGNOSES.replace(",10\n", ",X\n"), ["line 2", "column icd_version", "'X'"]),
        ("iv/hosp/labevents.csv.gz", LABEVENTS.replace(",50999,", ",5O999,"), ["line 8", "column itemid", "'5O999'"]),
        ("iv/hosp/labevents.csv.gz", LABEVENTS.replace(",11,", ",13,").replace(",,6,", ",13,6,"), ["no usable row"]),
        ("iv/icu/outputevents.csv.gz", OUTPUTEVENTS.replace("120.5", "much"), ["line 2", "column value", "'much'"]),
        ("cxr/mimic-cxr-2.0.0-metadata.csv.gz", METADATA.replace("a-1", "b-1"), ["dicom_id 'b-1' stands twice"]),
    ],
)
def test_malformed_rows_give_one_line(tmp_path, file, content, words):
    with pytest.raises(InputError) as caught:
        run(tmp_path, {file: content})
    message = str(caught.value)
    assert "\n" not in message
    for word in [file, *words]:
        assert word in message
    assert not [path for path in (tmp_path / "data").rglob("*") if ".part" in path.name or ".ingest" in path.name]


def test_diagnoses_without_admission_or_code_are_counted(tmp_path):
    frames, counts = run(
        tmp_path, {"iv/hosp/diagnoses_icd.csv.gz": DIAGNOSES + "1,,1,4019,9\n1,11,5,  ,9\n1,11,6,4019,\n"}
    )
    assert frames["diagnoses"].height == 3
    assert counts["diagnoses"]["dropped"] == {
        "no code": 1,
        "no hadm_id": 1,
        "no version": 1,
        "the same row again": 1,
    }


def test_truncation_after_the_manifest_was_made(tmp_path):
    manifest = build_manifest(raw_tree(tmp_path))
    path = tmp_path / CHART_FILE
    path.write_bytes(path.read_bytes()[:-20])
    manifest["mimiciv"]["files"]["icu/chartevents.csv.gz"]["bytes"] -= 20
    with pytest.raises(InputError, match=r"chartevents\.csv\.gz: truncated"):
        ingest(manifest, NEEDED, BOUNDS, tmp_path / "data/interim")


def test_memory_that_does_not_suffice_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise duckdb.OutOfMemoryException("Out of Memory Error: failed")

    monkeypatch.setattr(tables, "csv_query", refuse)
    with pytest.raises(InputError, match=r"ingest\.memory_gb"):
        run(tmp_path)


def test_an_unknown_message_is_cut_to_its_first_line():
    assert explain("IO Error: no such thing\n\nstack") == "IO Error: no such thing"
    assert (
        explain("X: CSV Error on Line: 7\nOriginal Line: secret\nof data\nSome reason\n\nPossible fixes:\n* more")
        == "line 7: Some reason"
    )


def many(**edits):
    """60,000 rows of chartevents; a keyword like r500 replaces `bpm` in row 500."""
    rows = [f"1,11,31,,2150-01-01 {12 + i % 12}:{i % 60:02d}:00,,220045,88,88,bpm,0\n" for i in range(60_000)]
    for row, text in edits.items():
        number = int(row[1:])
        rows[number] = rows[number].replace("bpm", text)
    return {CHART_FILE: CHARTEVENTS.splitlines(keepends=True)[0] + "".join(rows)}


def test_a_quote_that_swallows_many_rows(tmp_path):
    """Within DuckDB's limit two stray quotes may make one well-formed field: the lines are counted then."""
    with pytest.raises(InputError, match="line 502: a quote that is never closed, or text of more than 400,000 bytes"):
        run(tmp_path / "a", many(r500='"bpm', r50000='bpm"'))
    with pytest.raises(InputError, match="line 502: a quote that is never closed, or text behind a closed one"):
        run(tmp_path / "b", many(r500='"bpm', r600='"bpm"'))
    _, counts = run(tmp_path / "c", many(r500='"bpm', r600='bpm"'))
    assert counts["chart"]["rows_read"] == 60_000 - 100
    assert counts["chart"]["lines_without_row"] == 100


def test_a_failing_ingest_leaves_the_tables_of_the_run_before(tmp_path):
    run(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="column itemid"):
        run(tmp_path, {PATIENTS_FILE: PATIENTS.replace("F,50", "F,60"), CHART_FILE: CHARTEVENTS.replace("999999", "x")})
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == before


def test_an_error_quotes_text_on_one_line(tmp_path):
    for file, old, text in [
        (CHART_FILE, "999999", '"9\n\x1b[2J' + "9" * 500 + '"'),
        ("cxr/mimic-cxr-2.0.0-metadata.csv.gz", "a-1", '"b-1\x1b[2J"'),
    ]:
        original = FILES[file].replace("b-1,1", "b-1\x1b[2J,1")
        with pytest.raises(InputError) as caught:
            run(tmp_path, {file: original.replace(old, text)})
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300 + len(str(tmp_path))
