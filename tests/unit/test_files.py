"""Writing beside and renaming; equal bytes; full disks; what killed processes left."""

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from pipeline import files, owners
from pipeline.errors import InputError
from pipeline.processes import alone


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text("old", path)
    with pytest.raises(ZeroDivisionError), files.atomic(path) as beside:
        beside.write_text(f"half, then {1 / 0}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_sorted_rounded_and_never_nan(tmp_path):
    files.write_json({"b": 1 / 3, "a": [-1e-9, 2]}, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    0.0,\n    2\n  ],\n  "b": 0.333333\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json({"a": float("nan")}, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_the_same_content_is_the_same_bytes(tmp_path):
    frame = pl.DataFrame({"a": range(1000), "b": np.linspace(0, 1, 1000), "c": ["x", None] * 500})
    for i in range(3):
        files.write_parquet(frame, tmp_path / f"{i}.parquet")
        files.write_csv(frame, tmp_path / f"{i}.csv")
    assert len({files.sha256(path) for path in tmp_path.glob("*.parquet")}) == 1
    assert len({files.sha256(path) for path in tmp_path.glob("*.csv")}) == 1


def test_no_text_in_a_csv_is_a_formula(tmp_path):
    texts = ["=1+1", "-x", "@b", "+c", "\t=d", "plain", None, "a=b"]
    files.write_csv(pl.DataFrame({"a": texts, "n": [-1, 2, 3, 4, 5, 6, 7, 8]}), tmp_path / "a.csv")
    read = pl.read_csv(tmp_path / "a.csv")
    assert read["a"].to_list() == ["'=1+1", "'-x", "'@b", "'+c", "'\t=d", "plain", None, "a=b"]
    assert read["n"].to_list() == [-1, 2, 3, 4, 5, 6, 7, 8]


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory):
    """A file system of 1 MiB of its own where this machine lets us mount one (as root), else None."""
    folder = tmp_path_factory.mktemp("disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    yield folder if done.returncode == 0 else None
    if done.returncode == 0:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


NOISE = np.random.default_rng(0).random(200_000)  # 1.6 MB that does not compress


def _write(kind, folder):
    if kind == "text":
        files.write_text("x" * (2 << 20), folder / "a")
    elif kind == "parquet":
        files.write_parquet(pl.DataFrame({"a": NOISE}), folder / "a")
    elif kind == "csv":
        files.write_csv(pl.DataFrame({"a": NOISE}), folder / "a", digits=15)
    elif kind == "array":
        files.write_array(NOISE, folder / "a")
    elif kind == "mapped array":
        with files.atomic(folder / "a") as beside:
            files.create_array(beside, NOISE.shape, np.float64)[:] = NOISE
    elif kind == "safetensors":
        with files.atomic(folder / "a") as beside:
            save_file({"a": NOISE}, beside)
    elif kind == "duckdb":
        with files.scratch(folder / "a") as beside, duckdb.connect(str(beside / "x.duckdb")) as connection:
            connection.execute("create table a as select hash(range) as h from range(1_000_000); checkpoint")
    elif kind == "folder":
        with files.scratch(folder / "a") as beside:
            files.write_array(NOISE, beside / "b")


KINDS = ("text", "parquet", "csv", "array", "mapped array", "safetensors", "duckdb", "folder")


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_one_line_that_names_the_file_and_leaves_nothing_behind(full_disk, kind):
    if full_disk is None:
        pytest.skip("no file system can be mounted here; the next test writes against a limit instead")
    with pytest.raises(InputError, match=rf"^{full_disk}/\S*a\S*: cannot be written: No space left on device$"):
        _write(kind, full_disk)
    assert list(full_disk.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_on_the_size_of_a_file_is_one_line_too(tmp_path, kind):
    """What stands for a full disk on every machine: the error arises in the same calls."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))
    try:
        with pytest.raises(InputError, match=rf"^{tmp_path}/\S*a\S*: cannot be written: File too large$"):
            _write(kind, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_full_disk_does_not_hide_which_file_the_stage_could_not_write(tmp_path):
    """The number of the process does not fit either: closing the lock would say so in the place of the stage."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with (
            pytest.raises(InputError, match=rf"^{tmp_path}/labels\.parquet: cannot be written: File too large$"),
            alone(tmp_path / "lock", "the stage labels"),
        ):
            files.write_parquet(pl.DataFrame({"a": [1]}), tmp_path / "labels.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "lock").read_text() == ""


def test_an_error_on_a_disk_with_room_stays_what_it_is(tmp_path):
    with pytest.raises(KeyError), files.scratch(tmp_path / "a"):
        raise KeyError
    with pytest.raises(OSError, match="cable"), files.atomic(tmp_path / "a"):
        raise OSError("cable")
    assert list(tmp_path.iterdir()) == []


def part(name, owner):
    """What `owner` calls `name` while it writes it."""
    return f".{name}.{owner}.0a1b2c3d.part"


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    machine, own, start = owners.this_process().split("-")
    dead, reused = f"{machine}-999999999-{start}", f"{machine}-{own}-{int(start) - 1}"
    living, other_machine = owners.this_process(), f"00000000-999999999-{start}"
    for owner in (dead, reused, living, other_machine):
        (tmp_path / part("a.txt", owner)).write_text("half")
        (tmp_path / part("b", owner)).mkdir()
        (tmp_path / part("b", owner) / "staged").write_text("half")
    (tmp_path / part("c", dead)).write_text("half")
    files.write_text("whole", tmp_path / "a.txt")
    with files.scratch(tmp_path / "b") as folder:
        assert list(folder.iterdir()) == []
    kept = {part(name, owner) for name in ("a.txt", "b") for owner in (living, other_machine)}
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", part("c", dead), *kept}
    files.remove_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", *kept}


def test_what_another_machine_writes_is_left_of_a_dead_process_where_nobody_has_written_to_it_for_a_day(tmp_path):
    for name, hours in {"a": 25, "b": 23}.items():
        (tmp_path / part(name, "00000000-1-1")).write_text("half")
        then = time.time() - 3600 * hours
        os.utime(tmp_path / part(name, "00000000-1-1"), (then, then))
    files.remove_left(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [part("b", "00000000-1-1")]


def test_what_was_left_under_the_names_of_an_earlier_version_goes_after_a_day_too(tmp_path):
    for pid, hours in {1: 25, 2: 23}.items():
        (tmp_path / f".a.txt.{pid}.part").write_text("half")
        os.utime(tmp_path / f".a.txt.{pid}.part", (time.time() - 3600 * hours,) * 2)
    files.remove_left(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".a.txt.2.part"]


def test_a_process_that_has_ended_and_waits_to_be_collected_writes_no_more(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        start = Path(f"/proc/{ended.pid}/stat").read_text().split()[21]
        owner = f"{owners.this_process().split('-')[0]}-{ended.pid}-{start}"
        (tmp_path / part("a.txt", owner)).write_text("half")
        files.write_text("whole", tmp_path / "a.txt")
        assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_several_writers_of_one_name_do_not_meet_and_the_last_one_stays(tmp_path):
    """Two threads are two writers of one process; of two processes the owner differs too."""
    with files.atomic(tmp_path / "a.txt") as one, files.atomic(tmp_path / "a.txt") as other:
        assert one != other
        one.write_text("same")
        other.write_text("same")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "same")]


def test_a_disk_that_turns_out_to_be_full_when_it_is_flushed_is_one_line(tmp_path, monkeypatch):
    """As of a network file system, which takes what it has no room for until then."""
    files.write_text("whole", tmp_path / "a.txt")

    def full(descriptor):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match=rf"^{tmp_path}/a.txt: cannot be written: Disk quota exceeded$"):
        files.flush(tmp_path / "a.txt")
