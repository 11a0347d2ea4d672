"""Raw files as bytes: decompressed in any pieces, read several at a time, and once until they change."""

import gzip
import hashlib
import io
import itertools
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.mimic import rawfile
from pipeline.mimic import scan as module
from pipeline.mimic.rawfile import Lines, text_of
from pipeline.mimic.scan import scan
from tests.support.raw_tree import put

TEXT = "a,b\n1,2\n3,4\n"
PIECES = st.one_of(st.binary(max_size=300), st.integers(0, 3000).map(lambda n: b"1,2150-01-01,88\n" * (n // 16)))


@given(
    members=st.lists(PIECES, min_size=1, max_size=4),
    level=st.integers(0, 9),
    chunk=st.sampled_from([1, 7, 100, 4096]),
    compressed=st.sampled_from([1, 3, 50, 65536]),
)
def test_text_is_whole_whatever_the_pieces_in_which_it_is_read(members, level, chunk, compressed):
    packed = b"".join(gzip.compress(member, level) for member in members)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rawfile, "CHUNK", chunk)
        patch.setattr(rawfile, "COMPRESSED", compressed)
        pieces = list(text_of(Path("a.csv.gz"), io.BytesIO(packed)))
    assert b"".join(pieces) == b"".join(members)
    assert all(0 < len(piece) <= chunk for piece in pieces)


@given(text=st.lists(st.sampled_from(["a", ",", "\n", "é", "x" * 50])).map("".join), cuts=st.sets(st.integers(0, 300)))
def test_lines_are_counted_whatever_the_pieces(text, cuts):
    whole, lines = text.encode(), Lines(Path("a.csv"))
    ends = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    for low, high in itertools.pairwise(ends):
        lines.feed(whole[low:high])
    lines.end()
    assert lines.count == text.count("\n") + bool(text.rpartition("\n")[2])


def test_half_a_sign_at_the_end_of_a_piece_is_not_forgotten():
    lines = Lines(Path("a.csv"))
    lines.feed(b"a\n" + "é".encode()[:1])
    with pytest.raises(InputError, match=r"a\.csv: line 2: not UTF-8"):
        lines.feed(b"ASCII\n")


def tree(folder: Path) -> dict[Path, bool]:
    """Four files, of which the last but one is needed by nobody."""
    needed = {}
    for i in range(4):
        put(folder / f"{i}.csv.gz", TEXT + f"{i},{i}\n" * i)
        needed[folder / f"{i}.csv.gz"] = i != 2
    return needed


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("threads", [1, 3])
def test_every_file_has_its_own_numbers_with_any_number_of_threads(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(module, "THREADS", threads)
    files = tree(tmp_path)
    found = scan(files)
    assert {path: content["sha256"] for path, content in found.items()} == {path: digest(path) for path in files}
    assert {path: content["bytes"] for path, content in found.items()} == {p: p.stat().st_size for p in files}
    assert [found[path].get("rows") for path in files] == [2, 3, None, 5]


def test_of_two_faults_the_first_is_told_whichever_is_met_first(tmp_path):
    files = tree(tmp_path)
    (tmp_path / "1.csv.gz").write_bytes(os.urandom(1 << 22))  # not gzip; the larger one is begun first
    put(tmp_path / "3.csv.gz", "a,b\n")
    for _ in range(5):
        with pytest.raises(InputError, match=r"1\.csv\.gz: not gzip"):
            scan(files)


def test_a_fault_stops_those_that_are_at_work(tmp_path, monkeypatch):
    """The second file takes ten seconds, unless the fault of the first one ends it."""
    monkeypatch.setattr(module, "THREADS", 2)
    began, stopped = threading.Event(), threading.Event()

    def read_slowly(path, needed, read):
        if path.name == "0.csv":
            began.wait(10)
            raise InputError("fault")
        began.set()
        try:
            for _ in range(10_000):
                read(1)
                time.sleep(0.001)
        except module._StoppedError:
            stopped.set()
            raise

    for name in ("0.csv", "1.csv"):
        put(tmp_path / name, TEXT)
    monkeypatch.setattr(module, "_scan", read_slowly)
    with pytest.raises(InputError, match="fault"):
        scan({tmp_path / "0.csv": True, tmp_path / "1.csv": True})
    assert stopped.is_set()
