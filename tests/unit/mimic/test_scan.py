"""Raw files as bytes: decompressed in any pieces, read several at a time, and once until they change."""

import gzip
import hashlib
import io
import itertools
import json
import os
import shutil
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


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    files, memory, reads = tree(tmp_path / "raw"), tmp_path / "work/scans.json", []
    once = module._scan
    monkeypatch.setattr(module, "_scan", lambda path, *rest: (reads.append(path.name), once(path, *rest))[1])
    first = scan(files, memory)
    assert sorted(reads) == ["0.csv.gz", "1.csv.gz", "2.csv.gz", "3.csv.gz"]
    reads.clear()
    assert scan(files, memory) == first
    assert reads == []

    changed = tmp_path / "raw/1.csv.gz"
    times = (changed.stat().st_atime_ns, changed.stat().st_mtime_ns)
    changed.write_bytes(changed.read_bytes()[:-8] + gzip.compress(TEXT.encode())[-8:])  # another checksum, as long
    os.utime(changed, ns=times)  # as rsync leaves it
    with pytest.raises(InputError, match=r"1\.csv\.gz: damaged: its checksum is wrong"):
        scan(files, memory)
    assert reads == ["1.csv.gz"]

    reads.clear()
    assert scan({path: True for path in files if path != changed}, memory)[tmp_path / "raw/2.csv.gz"]["rows"] == 4
    assert reads == ["2.csv.gz"]  # it is needed now


def test_a_memory_of_other_code_or_of_no_use_is_not_believed(tmp_path, monkeypatch):
    files, memory = tree(tmp_path / "raw"), tmp_path / "scans.json"
    first = scan(files, memory)
    content = json.loads(memory.read_text())
    for entry in content["files"].values():
        entry["found"]["rows"] = 99
    memory.write_text(json.dumps(content))
    assert scan(files, memory)[tmp_path / "raw/0.csv.gz"]["rows"] == 99  # it is read at all
    monkeypatch.setattr(module, "_code", lambda: "other")
    assert scan(files, memory) == first
    for text in ("", "[]", '{"code": "other"}', '{"code": "other", "files": 3}'):
        memory.write_text(text)
        assert scan(files, memory) == first


def test_what_was_read_before_a_fault_is_remembered(tmp_path, monkeypatch):
    files, memory = tree(tmp_path / "raw"), tmp_path / "scans.json"
    put(tmp_path / "raw/3.csv.gz", "a,b\n")
    with pytest.raises(InputError, match="has no rows"):
        scan(files, memory)
    put(tmp_path / "raw/3.csv.gz", TEXT)
    reads, once = [], module._scan
    monkeypatch.setattr(module, "_scan", lambda path, *rest: (reads.append(path.name), once(path, *rest))[1])
    scan(files, memory)
    assert reads == ["3.csv.gz"]


def test_the_memory_keeps_other_files_as_long_as_they_are_there(tmp_path):
    """Experiments run in copies, which are removed."""
    one, other, memory = tree(tmp_path / "one"), tree(tmp_path / "other"), tmp_path / "scans.json"
    for files in (one, other):
        scan(files, memory)
    assert set(json.loads(memory.read_text())["files"]) == {str(path) for path in (*one, *other)}
    shutil.rmtree(tmp_path / "one")
    scan(other, memory)
    assert set(json.loads(memory.read_text())["files"]) == {str(path) for path in other}
