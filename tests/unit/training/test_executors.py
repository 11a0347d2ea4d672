"""The executors: nothing is lost, whoever works the grid off and whatever kills it."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys

import pytest

from pipeline import files
from pipeline.errors import InputError
from pipeline.training import executors
from pipeline.training.cell import train_cell
from pipeline.training.machine import gpus
from pipeline.training.packing import Crew
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from pipeline.training.worklist import Worklist
from tests.support.processes import at_work_in, wait_until
from tests.support.runs import grid, silent

CELL = """
import sys
from pathlib import Path
from pipeline.params import load
from pipeline.training.cell import train_cell
from pipeline.training.store import Store, data_fingerprint
from tests.support.runs import grid
import dataclasses
if __name__ == "__main__":
    data, work, out = map(Path, sys.argv[1:])
    training = dataclasses.replace(load().training, device="cpu", checkpoint_seconds=0.0)
    specs = grid(training, "late_fusion", "mortality", seeds=(0, 1))
    train_cell(specs, Store(work, data_fingerprint(data)), data, out)
"""


def cell(root, folder, data, work, out, executor):
    script = folder / "cell.py"
    script.write_text(CELL)
    environment = {**os.environ, "PYTHONPATH": str(root), "FUSION_EXECUTOR": executor, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), str(data), str(work), str(out)],
        cwd=root,
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_kill_9_in_a_pool_loses_nothing_and_leaves_no_orphan(root, data, tmp_path):
    assert cell(root, tmp_path, data, tmp_path / "whole", tmp_path / "a", "inline").wait() == 0
    process = cell(root, tmp_path, data, tmp_path / "killed", tmp_path / "b", "pool:2")
    assert wait_until(lambda: list((tmp_path / "killed").glob("runs/*/result.json")), 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: not at_work_in(tmp_path / "killed"))
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob("runs/*/result.json")}
    assert 1 <= len(finished) < 4
    assert not (tmp_path / "b").exists()
    assert cell(root, tmp_path, data, tmp_path / "killed", tmp_path / "b", "pool:2").wait() == 0
    for name in ("mortality/predictions.parquet", "mortality/history.csv"):
        assert files.sha256(tmp_path / "a" / name) == files.sha256(tmp_path / "b" / name)
    assert {p: p.stat().st_mtime_ns for p in finished} == finished


def test_a_worker_of_a_pool_imports_next_to_nothing_of_torch_of_its_own(root, data, tmp_path):
    """The server that it is forked from has it all; and that does without torch's compiler: two seconds a cell."""
    code = """
import importlib, sys
from pathlib import Path
from pipeline.params import load
from pipeline.training.executors import PRELOAD
from pipeline.training.store import Store
from tests.support.runs import grid
import safetensors.numpy
(spec, _) = grid(load().training, "transformer", max_epochs=1)
for name in PRELOAD:
    importlib.import_module(name)
before = set(sys.modules)
from pipeline.training.run import make_run
make_run(spec, Store(Path(sys.argv[2]), "any"), Path(sys.argv[1]), lambda *_: None)
late = {name for name in set(sys.modules) - before if name.split(".")[0] in ("torch", "sympy", "mpmath")}
late |= {"torch._dynamo"} & set(sys.modules)
print(sorted(late))
sys.exit(len(late) > 8 or "torch._dynamo" in late)
"""
    command = [sys.executable, "-c", code, str(data), str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_that_another_process_has_claimed_is_waited_for(data, tmp_path, training):
    import threading

    spec, store = grid(training, "transformer", max_epochs=1)[0], Store(tmp_path, data_fingerprint(data))
    done = threading.Event()

    def second():
        make_run(spec, store, data, silent)
        done.set()

    with store.claimed(spec):
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.5)
    assert done.wait(30)
    thread.join()
    assert store.finished(spec)


@pytest.mark.parametrize("executor", ["inline", "pool:2"])
def test_a_run_that_fails_is_told_also_where_it_is_the_last(executor, data, tmp_path, training, monkeypatch):
    monkeypatch.setenv("FUSION_EXECUTOR", executor)
    spec = dataclasses.replace(grid(training, "transformer", max_epochs=1)[0], hyper={"misspelt": 1})
    with pytest.raises(InputError, match="misspelt"):
        executors.execute([spec], Store(tmp_path, data_fingerprint(data)), data)


def test_an_unknown_executor_is_named(data, tmp_path, training, monkeypatch):
    monkeypatch.setenv("FUSION_EXECUTOR", "cluster")
    with pytest.raises(InputError, match="FUSION_EXECUTOR: 'cluster'"):
        train_cell(grid(training), Store(tmp_path, data_fingerprint(data)), data, tmp_path / "out")


def test_gpus_are_those_that_the_environment_names_and_none_for_runs_on_the_cpu(monkeypatch):
    monkeypatch.delenv("FUSION_EXECUTOR", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, MIG-7f")
    assert gpus("auto") == ["2", "MIG-7f"]
    monkeypatch.setattr(executors.os, "sched_getaffinity", lambda _: range(7))
    assert executors.choice("auto") == Crew(7, ("2", "MIG-7f"), cores=7)
    assert executors.choice("cpu") == Crew(7, cores=7)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert executors.choice("auto") == Crew(7, cores=7)


def test_no_more_processes_than_runs_and_none_for_a_single_one(monkeypatch):
    monkeypatch.delenv("FUSION_EXECUTOR", raising=False)
    monkeypatch.setattr(executors.os, "sched_getaffinity", lambda _: range(7))
    assert executors.choice("cpu", 3) == Crew(3, cores=7)
    assert executors.choice("cpu", 1) == Crew(1, cores=7, inline=True)
    monkeypatch.setenv("FUSION_EXECUTOR", "pool:2")
    assert executors.choice("cpu", 1) == Crew(1, cores=7)
    monkeypatch.setenv("FUSION_EXECUTOR", "inline")
    assert executors.choice("cpu") == Crew(1, cores=7, inline=True)


@pytest.mark.parametrize("wanted", ["cluster", "pool:0", "pool:", "pool:two", "inline:2", ""])
def test_an_executor_that_there_is_not_is_named(monkeypatch, wanted):
    monkeypatch.setenv("FUSION_EXECUTOR", wanted)
    with pytest.raises(InputError, match=f"FUSION_EXECUTOR: '{wanted}' is not auto, inline, pool or pool:N"):
        executors.choice("cpu")


def test_who_finds_no_run_looks_again_ever_more_seldom(monkeypatch):
    now = 0.0
    monkeypatch.setattr(executors.time, "monotonic", lambda: now)
    looks, at = executors._Looks(), []
    while now < 400:
        if looks.due():
            at.append(now)
            looks.vain()
        now += 0.5
    pauses = [later - before for before, later in itertools.pairwise(at)]
    assert (at[0], pauses[0], pauses[-1]) == (0.0, 1.0, 20.0)
    assert pauses == sorted(pauses)
    looks.anew()
    assert looks.due()


def test_the_bar_counts_epochs_and_runs_and_ends_full(data, tmp_path, training):
    """Also where a run was resumed, stopped early, or made by somebody else."""
    worklist = Worklist(grid(training), Store(tmp_path, data_fingerprint(data)))
    first, second = worklist.open.values()
    bar = executors._Bar(worklist)
    row = {"monitor": "none", "train_loss": 1.0}
    for epoch in (3, 4):  # resumed after epoch 2, ends with its last
        bar.epoch(first, epoch, row)
    assert bar.bar.postfix == "0/2 runs; late_fusion mortality base fold 0 seed 0 epoch 4/4 loss 1.000 train_loss 1.000"
    worklist.done(first)
    bar.epoch(second, 1, row)  # stops after its first
    assert bar.bar.postfix.startswith("1/2 runs; late_fusion mortality matched")
    assert (bar.bar.n, bar.bar.total) == (5, 8)
    worklist.done(second)
    bar.follow()
    assert (bar.bar.n, bar.bar.total) == (8, 8)
    bar.bar.close()
