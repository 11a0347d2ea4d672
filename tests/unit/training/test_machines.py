"""One run store and several machines: here, processes that see no lock of each other, and have equal numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from pipeline import files
from pipeline.training.claim import LEASE
from pipeline.training.run import make_run
from pipeline.training.store import MADE, Store, data_fingerprint
from tests.support.processes import wait_until
from tests.support.runs import grid, silent

pytestmark = pytest.mark.cluster

# What flock is where each machine sees its own locks alone (NFS with local_lock, Lustre with localflock), and where the
# file system refuses them (Lustre without flock).
FLOCK = {
    "noop": "int flock(int file, int how) { return 0; }",
    "refused": "#include <errno.h>\nint flock(int file, int how) { errno = ENOSYS; return -1; }",
}
NODE = ["unshare", "--pid", "--uts", "--fork", "--kill-child"]
WORKER = """
import dataclasses, logging, os, sys, time
from pathlib import Path
from pipeline.params import load
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.runs import grid

data, work, told, forks, seconds = sys.argv[1:]
data, work, forks, seconds = Path(data), Path(work), int(forks), float(seconds)
logging.basicConfig(filename=told + ".log", level=logging.INFO)
training = dataclasses.replace(load().training, device="cpu", checkpoint_seconds=0.0)
specs, store = grid(training, seeds=(0, 1))[:3], Store(work, data_fingerprint(data))
children = []
for _ in range(forks):
    child = os.fork()
    if not child:
        break
    children.append(child)
else:
    sys.exit(max(os.waitpid(child, 0)[1] for child in children))
status = 1
try:
    for spec in specs:
        def report(epoch, row):
            with open(told, "a") as file:
                file.write(f"{store.name(spec)} {epoch} {os.getpid()}\\n")
            time.sleep(seconds)
        make_run(spec, store, data, report)
    status = 0
finally:
    os._exit(status)
"""


def start(root, data, work, told, forks=1, seconds=0.0, node=(), **environment):
    """A process that makes the three runs, `forks` times; it tells `told` of its epochs, and rests after each."""
    arguments = [str(data), str(work), str(told), str(forks), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(root), **environment}
    return subprocess.Popen([*node, sys.executable, "-c", WORKER, *arguments], cwd=root, env=environment)


def epochs(told) -> list[tuple[str, int]]:
    """(run, epoch) as the workers went through them."""
    lines = told.read_text().splitlines() if told.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


@pytest.fixture(scope="module")
def inline(data, training, tmp_path_factory):
    """The three runs as one process makes them."""
    specs = grid(training, seeds=(0, 1))[:3]
    store = Store(tmp_path_factory.mktemp("inline"), data_fingerprint(data))
    for spec in specs:
        make_run(spec, store, data, silent)
    return specs, store


@pytest.fixture
def node():
    """What runs a command with processes of its own, numbered from 1."""
    if subprocess.run([*NODE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespace can be made here")
    return NODE


def the_same_files(inline, work):
    """Every file of the runs' folders, to the byte; of result.json all but the time that it took."""
    specs, whole = inline
    made = Store(work, whole.data)
    for spec in specs:
        assert sorted(path.name for path in made.folder(spec).iterdir()) == sorted((*MADE, "result.json", "spec.json"))
        for name in (*MADE, "spec.json"):
            assert files.sha256(made.folder(spec) / name) == files.sha256(whole.folder(spec) / name), name
        told = [json.loads((store.folder(spec) / "result.json").read_text()) for store in (made, whole)]
        assert told[0] | {"seconds": 0} == told[1] | {"seconds": 0}


def each_epoch_once(inline, told):
    specs, store = inline
    assert sorted(epochs(told)) == sorted((store.name(spec), n + 1) for spec in specs for n in range(spec.max_epochs))


@pytest.mark.parametrize("flock", FLOCK)
def test_without_locks_of_the_system_each_run_is_made_once(root, data, tmp_path, inline, flock):
    if not (compiler := shutil.which("cc")):
        pytest.skip("no C compiler")
    (tmp_path / "flock.c").write_text(FLOCK[flock])
    library = tmp_path / "flock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "flock.c"], check=True)
    worker = start(root, data, tmp_path / "work", tmp_path / "told", forks=3, LD_PRELOAD=str(library))
    assert worker.wait() == 0
    each_epoch_once(inline, tmp_path / "told")
    the_same_files(inline, tmp_path / "work")


def test_machines_with_equal_process_numbers_make_each_run_once(root, data, tmp_path, inline, node):
    workers = [start(root, data, tmp_path / "work", tmp_path / "told", forks=2, node=node) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert all(
        int(line.split()[2]) < 50 for line in (tmp_path / "told").read_text().splitlines()
    )  # a machine of its own
    each_epoch_once(inline, tmp_path / "told")
    the_same_files(inline, tmp_path / "work")


def test_a_killed_machines_run_is_gone_on_with_where_its_checkpoint_is(root, data, tmp_path, inline, node):
    told, first = tmp_path / "told", inline[1].name(inline[0][0])
    killed = start(root, data, tmp_path / "work", told, seconds=1.0, node=node, FUSION_LEASE="2")
    assert wait_until(lambda: (first, 2) in epochs(told), 60)
    killed.kill()  # and the kernel all of its machine
    killed.wait()
    assert (tmp_path / "work/runs" / first / LEASE).is_file()
    assert start(root, data, tmp_path / "work", told, node=node, FUSION_LEASE="2").wait() == 0
    assert [epoch for run, epoch in epochs(told) if run == first] in ([1, 2, 2, 3, 4], [1, 2, 3, 4])
    the_same_files(inline, tmp_path / "work")


def test_who_is_frozen_for_longer_than_its_lease_and_wakes_does_no_harm(root, data, tmp_path, inline):
    told, first = tmp_path / "told", inline[1].name(inline[0][0])
    frozen = start(root, data, tmp_path / "work", told, seconds=1.0, FUSION_LEASE="2")
    assert wait_until(lambda: (first, 2) in epochs(told), 60)
    frozen_child = next(int(line.split()[2]) for line in told.read_text().splitlines())
    os.kill(frozen_child, signal.SIGSTOP)
    other = start(root, data, tmp_path / "work", told, seconds=0.5, FUSION_LEASE="2")
    assert wait_until(lambda: (first, 3) in epochs(told) or other.poll() is not None, 60)
    os.kill(frozen_child, signal.SIGCONT)
    assert [frozen.wait(), other.wait()] == [0, 0]
    assert f"{first}: another process has taken the run over" in (tmp_path / "told.log").read_text()
    the_same_files(inline, tmp_path / "work")
