"""The lease: one holder at a time, taken over from the dead and the frozen, kept by the living."""

import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path

import pytest

from pipeline import files, owners
from pipeline.errors import InputError
from pipeline.training import claim as module
from pipeline.training.claim import LEASE, LeaseLost, claimed
from pipeline.training.store import CHECKPOINT, MADE, RESULT, STEPS, Store
from tests.support.processes import wait_until
from tests.support.runs import grid

HOLD = """
import sys
from pathlib import Path
from pipeline.training.claim import claimed
with claimed(Path(sys.argv[1]), "it") as claim:
    print("held", flush=True)
    sys.stdin.read()
"""


def write_lease(folder, owner, seconds=60.0):
    """As its holder, `owner`, would have."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"token": "theirs", "owner": owner, "host": "node7", "seconds": seconds}
    (folder / LEASE).write_text(json.dumps(told))


def tried(folder) -> bool:
    """Whether the folder could be claimed at once."""
    with claimed(folder, "it", wait=False) as claim:
        return claim is not None


@pytest.fixture
def clock(monkeypatch):
    """The watcher's clock, set by hand; sleeping moves it."""
    now = types.SimpleNamespace(at=1000.0)

    def sleep(seconds):
        now.at += seconds

    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: now.at, sleep=sleep))
    return now


@pytest.fixture
def elsewhere():
    """A process of another machine that has the number of one that is alive here."""
    return "00000000-" + owners.this_process().partition("-")[2]


def test_one_at_a_time_and_what_is_over_leaves_nothing(tmp_path):
    with claimed(tmp_path / "run", "it") as claim:
        assert claim.folder == tmp_path / "run"
        assert not tried(claim.folder)
        claim.check()
    assert list(claim.folder.iterdir()) == []
    assert tried(claim.folder)


def test_of_a_killed_process_of_this_machine_a_lease_is_taken_over_at_once_also_where_nobody_collects_it(
    root, tmp_path
):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert not tried(tmp_path)
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert (tmp_path / LEASE).is_file()
        assert tried(tmp_path)


def test_of_another_machine_it_is_taken_over_where_it_was_not_touched_for_the_time_it_names(tmp_path, clock, elsewhere):
    write_lease(tmp_path, elsewhere, seconds=30.0)
    assert not tried(tmp_path)
    clock.at += 29.0
    os.utime(tmp_path / LEASE, (1, 1))  # a sign of life, whatever that machine's clock says
    assert not tried(tmp_path)
    clock.at += 30.0
    assert not tried(tmp_path)
    clock.at += 1.0
    assert tried(tmp_path)


def test_a_lease_that_its_holder_could_not_write_is_taken_over_after_a_while(tmp_path, clock):
    (tmp_path / LEASE).write_text('{"token": "ab')
    assert not tried(tmp_path)
    clock.at += module.SECONDS + 1
    assert tried(tmp_path)


def test_a_holder_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_LEASE", "0.6")
    with claimed(tmp_path, "it") as claim:
        before = (tmp_path / LEASE).stat().st_mtime_ns
        assert wait_until(lambda: (tmp_path / LEASE).stat().st_mtime_ns > before)
        claim.check()


def test_who_was_frozen_finds_its_lease_gone_before_it_goes_on_and_leaves_that_of_its_successor(
    tmp_path, clock, elsewhere
):
    frozen = module._try(tmp_path, 30.0)
    frozen.check()
    clock.at += 30.5
    frozen.check()  # it stood still for long, but nobody came
    write_lease(tmp_path, elsewhere)
    frozen.check()  # costs nothing: the file is asked by the heart-beat, every tenth second, or after a stand-still
    clock.at += 30.5
    with pytest.raises(LeaseLost, match=rf"^{tmp_path}: another process has taken the run over$"):
        frozen.check()
    frozen._release()
    assert json.loads((tmp_path / LEASE).read_text())["token"] == "theirs"


def test_a_server_that_does_not_answer_is_borne_until_another_may_have_the_run(tmp_path, clock, monkeypatch):
    held = module._try(tmp_path, 30.0)

    def refused(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(module.os, "utime", refused)
        clock.at += 20.0
        held._touch()
        held.check()
    clock.at += 9.0
    held._touch()
    held.check()
    monkeypatch.setattr(module.os, "utime", refused)
    clock.at += 31.0
    with pytest.raises(LeaseLost):
        held.check()


def test_a_lease_that_is_away_for_a_moment_is_not_lost(tmp_path, clock, monkeypatch):
    """As while somebody who was too late to take over an old one puts it back."""
    held = module._try(tmp_path, 30.0)
    (tmp_path / LEASE).rename(tmp_path / "aside")
    sleep = module.time.sleep

    def back(seconds):
        sleep(seconds)
        (tmp_path / "aside").rename(tmp_path / LEASE)

    module.time.sleep = back
    held._touch()
    held.check()


def test_of_many_that_take_over_at_a_time_one_holds_it(tmp_path):
    dead = owners.this_process().split("-")[0] + "-999999999-1"
    for number in range(40):
        folder = tmp_path / str(number)
        write_lease(folder, dead)
        found, start = [], threading.Barrier(6)

        def take(folder=folder, found=found, start=start):
            start.wait()
            found.append(module._try(folder, 30.0))

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(claim is not None and claim._ours() for claim in found) == 1
        assert [path.name for path in folder.iterdir()] == [LEASE]


def test_who_judged_a_lease_that_another_has_taken_over_since_puts_the_new_one_back(tmp_path, elsewhere):
    write_lease(tmp_path, elsewhere)
    old = module._look(tmp_path / LEASE)
    (tmp_path / LEASE).unlink()
    new = module._try(tmp_path, 30.0)
    assert not module._remove(tmp_path / LEASE, old)
    assert new._ours()


def test_an_error_that_follows_from_a_lost_lease_is_that(tmp_path, clock, elsewhere):
    def work():
        with claimed(tmp_path, "it") as claim:
            write_lease(tmp_path, elsewhere)
            clock.at += claim.seconds + 1
            raise FileNotFoundError("a part that the successor has removed")

    with pytest.raises(LeaseLost):
        work()
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "other", "it"):
        raise ZeroDivisionError


def test_what_the_holder_before_left_half_written_is_removed_from_the_folder_once_it_has_lost_it(
    tmp_path, training, elsewhere
):
    spec, store = grid(training)[0], Store(tmp_path, "data")
    folder = store.folder(spec)
    folder.mkdir(parents=True)
    old, new = (folder / f".checkpoint.safetensors.{elsewhere}.{number}.part" for number in range(2))
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (1, 1))
    with store.claimed(spec):
        assert not old.exists()
        assert new.exists()


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_time_that_is_none_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setenv("FUSION_LEASE", text)
    with pytest.raises(InputError, match=rf"^FUSION_LEASE: '{text}' is no number of seconds above 0$"):
        tried(tmp_path)


@contextlib.contextmanager
def full(runs):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def another_users(runs):
    runs.parent.chmod(0o755)
    runs.chmod(0o555)
    own = os.geteuid()
    if own == 0:  # who may write everywhere
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@contextlib.contextmanager
def read_only(runs):
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(runs)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)


REFUSED = {full: "File too large", another_users: "Permission denied", read_only: "Read-only file system"}


@pytest.mark.parametrize("how", REFUSED, ids=lambda how: how.__name__)
def test_a_store_that_cannot_be_written_to_is_one_line(how):
    with tempfile.TemporaryDirectory() as above:  # not tmp_path: another user gets there
        runs = Path(above) / "runs"
        runs.mkdir()
        with how(runs), pytest.raises(InputError) as refused:
            tried(runs / "1a2b")
        assert str(refused.value) == f"{runs}/1a2b/lease: cannot be written: {REFUSED[how]}"
        assert [path for path in runs.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("made", [MADE, (*MADE, STEPS)])
def test_a_run_is_marked_as_made_when_all_else_is_on_the_disk(tmp_path, training, monkeypatch, made):
    spec, store = grid(training)[0], Store(tmp_path, "data")
    flushed = []

    def sync(descriptor, sync=os.fsync):
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        flushed.append((name, (store.folder(spec) / RESULT).exists()))
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", sync)
    with store.claimed(spec) as claim:
        for name in (*made, CHECKPOINT):
            (claim.folder / name).write_text(name)
        store.finish(claim, {"seconds": 1.0})
    folder = store.folder(spec).name
    assert flushed == [*((name, False) for name in (*made, folder)), (RESULT, True), (folder, True)]
    assert store.finished(spec)
    assert not (store.folder(spec) / CHECKPOINT).exists()


def test_a_run_that_was_lost_is_not_marked(tmp_path, training, elsewhere, clock):
    spec, store = dataclasses.replace(grid(training)[0], seed=1), Store(tmp_path, "data")

    def work():
        with store.claimed(spec) as claim:
            write_lease(claim.folder, elsewhere)
            clock.at += claim.seconds + 1
            store.finish(claim, {})

    with pytest.raises(LeaseLost):
        work()
    assert not store.finished(spec)


def test_what_another_machine_has_made_is_waited_for_where_it_must_be_there(tmp_path, training):
    spec, store = grid(training)[0], Store(tmp_path, "data")
    assert not store.finished(spec)
    assert not store.finished(spec, grace=0.1)
    store.folder(spec).mkdir(parents=True)
    shown = threading.Timer(0.2, (store.folder(spec) / RESULT).write_text, ("{}",))
    shown.start()
    assert store.finished(spec, grace=60.0)
    shown.join()
