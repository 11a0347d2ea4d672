"""Ingest: what the interim tables hold, what is left out and counted, and one clear line for malformed rows."""

import hashlib
from datetime import date, datetime

import duckdb
import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.mimic import tables
from pipeline.mimic.csv_query import explain
from pipeline.mimic.manifest import build_manifest
from pipeline.mimic.tables import ingest
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


def test_row_groups_are_full_whatever_stood_twice_and_however_many_threads(tmp_path):
    """So many rows that DuckDB sorts them in pieces; a hundredth stands twice."""
    rows = "".join(
        f"1,11,31,,2150-01-01 12:30:00,,220045,,{1000 + i},bpm,0\n" * (1 + (i % 100 == 0)) for i in range(300_000)
    )
    sizes = set()
    for threads in (1, 2):
        _, counts = run(tmp_path / str(threads), {CHART_FILE: CHARTEVENTS + rows}, Ingest(1.0, threads))
        assert counts["chart"]["dropped"]["the same row again"] == 3_000
        path = tmp_path / str(threads) / "data/interim/chart.parquet"
        groups = duckdb.sql(
            f"select distinct row_group_id, row_group_num_rows from parquet_metadata('{path}')"
        ).fetchall()
        sizes.add(tuple(size for _, size in sorted(groups)))
    assert sizes == {(262_144, 300_004 - 262_144)}


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
