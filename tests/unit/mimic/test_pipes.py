"""Compressed CSV files by way of pipes: the rows of the file, or none; nobody is left waiting."""

import csv
import hashlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.mimic import pipes, rawfile, tables
from pipeline.mimic.pipes import Pipes, UncertainError, pieces
from pipeline.params import Ingest
from tests.support.raw_tree import CHART_FILE, CHARTEVENTS, put
from tests.support.raw_tree import ingested as run

HEADER, *ROWS = CHARTEVENTS.splitlines(keepends=True)
MANY = HEADER + "".join(
    f"1,11,31,,2150-01-01 {12 + i % 12}:{i % 60:02d}:00,,220045,{i},{i},bpm,0\n" for i in range(60_000)
)
FIELDS = st.text(st.sampled_from('a",\n'), max_size=6)


@given(rows=st.lists(st.tuples(FIELDS, FIELDS), max_size=20), chunk=st.sampled_from([1, 7, 100]), end=st.booleans())
def test_pieces_hold_whole_rows_of_any_text_in_quotes(rows, chunk, end):
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([("a", "b"), *rows])
    text = written.getvalue() if end else written.getvalue().removesuffix("\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rawfile, "CHUNK", chunk)
        header, *rest = (bytes(piece) for piece in pieces(Path("a.csv"), io.BytesIO(text.encode())))
    assert header == b"a,b\n"
    assert "".join(piece.decode() for piece in rest) == written.getvalue()[4:]
    assert [tuple(row) for piece in rest for row in csv.reader(io.StringIO(piece.decode(), newline=""))] == rows


@pytest.mark.parametrize(
    "text",
    [
        b"a,b\n1,2\r\n",
        b'a,b\n5" tube,2\n',
        b'a,b\n1,"2\n',
        b"a,b\n" + b"x" * 300,
    ],
    ids=["carriage-return", "quote-in-a-plain-field", "quote-that-is-not-closed", "row-without-an-end"],
)
def test_rows_in_doubt_are_not_cut(text, monkeypatch):
    monkeypatch.setattr(pipes, "HELD", 100)
    monkeypatch.setattr(rawfile, "CHUNK", 101)
    with pytest.raises(UncertainError):
        list(pieces(Path("a.csv"), io.BytesIO(text + b"\n1,2")))


def test_who_reads_gets_the_rows_and_a_pipe_that_comes_late_the_header(tmp_path):
    put(tmp_path / "a.csv.gz", MANY)
    with Pipes(tmp_path / "a.csv.gz", tmp_path, 2) as dealt:
        assert [path.read_text() for path in dealt.paths] == [MANY, HEADER]
        dealt.check()
        assert dealt.percent() == 100.0
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv.gz"]


def test_who_waits_for_a_reader_or_writes_without_one_is_let_go(tmp_path):
    put(tmp_path / "a.csv.gz", MANY)
    with Pipes(tmp_path / "a.csv.gz", tmp_path, 3) as dealt:
        unread = dealt.paths[0].open("rb")
        assert unread.read(len(HEADER)) == HEADER.encode()
        gone = dealt.paths[1].open("rb")
        gone.close()
    unread.close()
    assert not [thread for thread in dealt.threads if thread.is_alive()]
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv.gz"]


def test_of_a_damaged_file_it_is_told_that_the_pipes_do_not_hold_all_of_it(tmp_path):
    put(tmp_path / "a.csv.gz", MANY)
    (tmp_path / "a.csv.gz").write_bytes((tmp_path / "a.csv.gz").read_bytes()[:-20])
    with Pipes(tmp_path / "a.csv.gz", tmp_path, 1) as dealt:
        assert MANY.startswith(dealt.paths[0].read_text())
        with pytest.raises(InputError, match="truncated"):
            dealt.check()


@pytest.fixture
def asked(monkeypatch):
    """The files that DuckDB is asked to read of chartevents, query by query."""
    every = []

    def query(paths, header, table):
        if table.source == "icu/chartevents":
            every.append([path.suffix for path in paths])
        return original(paths, header, table)

    original = tables.csv_query
    monkeypatch.setattr(tables, "csv_query", query)
    return every


@pytest.mark.parametrize("threads", [1, 2, 20])
def test_duckdb_reads_pipes_to_the_same_bytes_as_the_file(tmp_path, monkeypatch, asked, threads):
    digests = []
    for way in ("pipes", "file"):
        frames, counts = run(tmp_path / way, {CHART_FILE: MANY}, Ingest(1.0, threads))
        assert counts["chart"] == {"rows_read": 60_000, "kept": 60_000, "dropped": {}}
        assert frames["chart"]["valuenum"].sum() == sum(range(60_000))
        digests.append(hashlib.sha256((tmp_path / way / "data/interim/chart.parquet").read_bytes()).hexdigest())
        monkeypatch.delattr(os, "mkfifo")  # as on a disk that has no pipes
        monkeypatch.setattr(os, "mkfifo", refuse, raising=False)
    assert asked == [[f".{i}" for i in range(min(threads, 8))], [".gz"]]
    assert digests[0] == digests[1]


def refuse(path):
    raise PermissionError(f"{path}: no pipes here")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (MANY.replace("\n", "\r\n"), 60_000),
        (MANY.replace("bpm", 'b"pm', 1), 60_000),
        (MANY.replace(",0\n", ',"\n"\n', 1), 60_000),
    ],
    ids=["carriage-returns", "quote-in-a-plain-field", "line-end-in-quotes"],
)
def test_what_cannot_be_dealt_is_read_from_the_file(tmp_path, asked, text, rows):
    _, counts = run(tmp_path, {CHART_FILE: text})
    assert counts["chart"]["rows_read"] == rows
    assert asked[0] == [".0"]


def test_line_ends_that_change_far_behind_are_refused_as_ever(tmp_path, asked):
    half = len(MANY) // 2
    with pytest.raises(InputError, match="its lines end in different ways"):
        run(tmp_path, {CHART_FILE: MANY[:half] + MANY[half:].replace("\n", "\r\n")})
    assert asked == [[".0"], [".gz"]]
