"""Workers on two nodes of a cluster fill a run store; a node dies on the way; nothing is lost, and nothing differs."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import psutil
import pytest

from pipeline.training.claim import LEASE
from tests.support.clusters import processes_with, ray_nodes, slurm_nodes
from tests.support.made_up_data import fabricate
from tests.support.processes import wait_until

pytestmark = pytest.mark.cluster
CHANGES = (
    "scale=tiny",
    "grid.strategies=[late_fusion,lstm]",
    "grid.tasks=[mortality]",
    "training.device=cpu",
    "training.checkpoint_seconds=0",
    "scales.tiny.training.max_epochs=40",
)
RUNS = 8


def work(root, store, data, *options, changes=CHANGES, **environment):
    each = [part for change in changes for part in ("-S", change)]
    command = [sys.executable, "-m", "pipeline.work", *each, "--data", str(data), *options]
    more = {"FUSION_WORK": str(store), "FUSION_LEASE": "10", **environment}
    return subprocess.Popen(command, cwd=root, env={**os.environ, **more}, stdout=-1, stderr=-1, text=True)


def finished(store):
    return list(store.glob("runs/*/result.json"))


def contents(store):
    """All files of the runs, without what a run's process took."""
    found = {path.relative_to(store): path.read_bytes() for path in (store / "runs").rglob("*") if path.is_file()}
    for path in finished(store):
        told = json.loads(path.read_text())
        del told["seconds"]
        found[path.relative_to(store)] = json.dumps(told).encode()
    return found


def held_by(processes, store):
    """Runs with a checkpoint at which one of these processes is."""
    pids = {str(process.pid) for process in processes}
    found = set()
    for lease in store.glob(f"runs/*/{LEASE}"):
        try:
            owner = json.loads(lease.read_text())["owner"]
        except (OSError, ValueError):  # given back meanwhile
            continue
        if owner.split("-")[1] in pids and (lease.parent / "checkpoint.safetensors").is_file():
            found.add(lease.parent.name)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = fabricate(tmp_path_factory.mktemp("cluster"), n=120)
    (folder / "audit.ok").touch()
    return folder


@pytest.fixture(scope="module")
def alone(root, data, tmp_path_factory):
    """What one process makes of the runs."""
    store = tmp_path_factory.mktemp("alone")
    process = work(root, store, data, FUSION_EXECUTOR="inline")
    assert process.wait(300) == 0
    assert len(finished(store)) == RUNS
    return contents(store)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with slurm_nodes(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def logs(store):
    return "\n".join(path.read_text() for path in store.glob("launches/*/slurm-*.log"))


def resumed(words):
    """How many runs were gone on with from a checkpoint, over all workers that came to their last line."""
    counts = [line.split("made here (")[1].split()[0] for line in words.splitlines() if "made here (" in line]
    return sum(map(int, counts))


def test_slurm_loses_a_node_and_no_run(slurm, root, data, alone, tmp_path):
    process = work(root, tmp_path, data, "--slurm", "4", "--", "--signal=B:TERM@60", **slurm)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "its workers write to" in out
    node = []

    def at_work():
        node[:] = processes_with(FUSION_WORK=str(tmp_path), SLURMD_NODENAME="n2")
        return held_by(node, tmp_path)

    assert wait_until(at_work, 120), logs(tmp_path)
    before = len(finished(tmp_path))
    for each in node:
        each.kill()
    assert wait_until(lambda: len(finished(tmp_path)) == RUNS, 240), logs(tmp_path)
    assert before < RUNS
    assert wait_until(lambda: not processes_with(FUSION_WORK=str(tmp_path)), 60)
    words = logs(tmp_path)
    assert resumed(words) >= 1, words
    assert words.count(" 0 failed; ") == 2, words  # the two workers of the node that is left
    assert contents(tmp_path) == alone


def test_a_slurm_job_that_is_told_to_end_leaves_its_checkpoints_to_the_next(slurm, root, data, tmp_path):
    def submit():
        out, err = work(root, tmp_path, data, "--slurm", "2", "--", "--signal=B:TERM@60", **slurm).communicate(
            timeout=60
        )
        assert "job " in out, err
        return out.splitlines()[-1].split()[1].rstrip(";")

    number = submit()
    assert wait_until(lambda: list(tmp_path.glob("runs/*/checkpoint.safetensors")), 120), logs(tmp_path)
    tell = ["scancel", "--batch", "--signal=TERM", number]  # what Slurm itself does before the time is over
    subprocess.run(tell, env={**os.environ, **slurm}, check=True)
    assert wait_until(lambda: logs(tmp_path).count("ended before all runs were made") == 2, 60), logs(tmp_path)
    left = list(tmp_path.glob("runs/*/checkpoint.safetensors"))
    assert left
    assert not list(tmp_path.glob(f"runs/*/{LEASE}"))
    submit()
    assert wait_until(lambda: len(finished(tmp_path)) == RUNS, 240), logs(tmp_path)
    assert wait_until(lambda: logs(tmp_path).count(" 0 failed; ") == 2, 60)
    assert resumed(logs(tmp_path)) >= 1


@pytest.fixture(scope="module")
def ray():
    with ray_nodes() as nodes:
        yield nodes


def raylet_of(process):
    """The command of the Ray node that the process stands under."""
    with contextlib.suppress(psutil.Error):  # it has ended meanwhile
        return next((" ".join(above.cmdline()) for above in process.parents() if "raylet" in above.name()), "")
    return ""


def test_ray_loses_a_node_and_no_run(ray, root, data, alone, tmp_path):
    cluster, second, environment = ray
    process = work(root, tmp_path, data, "--ray", "4", **environment)
    node = []

    def at_work():
        workers = [
            each
            for launch in tmp_path.glob("launches/*")
            for each in processes_with(FUSION_WORK=str(tmp_path), FUSION_LAUNCH=launch.name)
        ]
        node[:] = [each for each in workers if second.node_id in raylet_of(each)]
        return held_by(node, tmp_path)

    assert wait_until(at_work, 120)
    cluster.remove_node(second, allow_graceful=False)
    assert wait_until(lambda: not any(each.is_running() for each in node), 30)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert len(finished(tmp_path)) == RUNS
    assert resumed(out) >= 1, out
    assert contents(tmp_path) == alone


@pytest.fixture
def checkout(root, tmp_path):
    """Another checkout of the project."""
    folder = tmp_path / "checkout"
    shutil.copytree(root / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def launched(root, data, tmp_path):
    """The worker's command as a launcher writes it."""
    out, err = work(root, tmp_path / "store", data, "--slurm", "1", "--dry-run").communicate(timeout=60)
    assert err == ""
    return next(line for line in out.splitlines() if line.startswith("exec")).split()[1:]


def refusal(command, folder, store, **environment):
    more = {"FUSION_WORK": str(store), "PYTHONPATH": "", **environment}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert not finished(store)
    return done.stderr


def test_a_worker_with_an_edited_strategy_refuses(launched, checkout, tmp_path):
    path = checkout / "pipeline/strategies/lstm.py"
    path.write_text(path.read_text() + "\n# edited\n")
    assert refusal(launched, checkout, tmp_path / "store") == (
        "work: error: not the runs that this worker was started for: pipeline/strategies/lstm.py differs\n"
    )


def test_a_worker_with_another_version_of_a_package_refuses(launched, checkout, tmp_path):
    told = tmp_path / "packages" / "numpy-1.0.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0.0\n")
    text = refusal(launched, checkout, tmp_path / "store", PYTHONPATH=str(told.parent))
    assert text.startswith("work: error: not the runs that this worker was started for: numpy is 1.0.0 here, ")
    assert text.count("\n") == 1
