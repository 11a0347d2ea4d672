"""`dvc exp run -S tuning.trials=4`: what it leaves; `tune` goes on when killed; one worker leaves the bytes of two."""

import json
import os
import shutil
import signal
import subprocess
import sys

import polars as pl
import pytest
import yaml

from tests.end_to_end.project import STRATEGIES, TRAINED, TRIALS, environment
from tests.support.processes import at_work_in, wait_until

TASKS = 3


def runs(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "work/runs").glob("*/result.json")}


def untried(project, folder):
    """A copy of the experiment's folder in which nothing was ever trained, neither in DVC's memory nor in the store."""
    shutil.copytree(project, folder, symlinks=True)
    for path in ("work", "data/tuned", ".dvc/cache/runs"):
        shutil.rmtree(folder / path)
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    lock["stages"].pop("tune")
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    return folder


def same_choice(one, two):
    """What was chosen, and every trial, are the same bytes; hours are not."""
    names = {path.name for path in (one / "data/tuned").iterdir()} - {"hours.json"}
    assert names >= {"trials.csv", *(f"{strategy}.yaml" for strategy in STRATEGIES)}
    for name in names:
        assert (one / "data/tuned" / name).read_bytes() == (two / "data/tuned" / name).read_bytes(), name


@pytest.fixture(scope="module")
def killed(project, tmp_path_factory):
    """The folder in which `tune` was killed and run again, and the runs that were there in between."""
    folder = untried(project, tmp_path_factory.mktemp("tuned") / "project")
    command = ["dvc", "repro", "-s", "tune"]
    first = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(FUSION_EXECUTOR="pool:2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert wait_until(lambda: len(runs(folder)) >= 3, 120)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert wait_until(lambda: not at_work_in(folder), 20)
    there = runs(folder)
    assert not (folder / "data/tuned").exists()  # it had not ended
    done = subprocess.run(
        command, cwd=folder, env=environment(FUSION_EXECUTOR="pool:2"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, there


def test_who_was_killed_goes_on_and_chooses_the_same(project, killed):
    folder, there = killed
    after = runs(folder)
    assert 3 <= len(there) < len(after) == TRIALS * len(TRAINED) * TASKS  # of one cohort and one seed
    assert {name: after[name] for name in there} == there  # none was made twice
    same_choice(folder, project)


def test_every_strategy_was_tried_as_often_and_trained_with_what_was_chosen(project):
    trials = pl.read_csv(project / "data/tuned/trials.csv")
    assert trials.group_by("strategy", "task").len()["len"].to_list() == [TRIALS] * len(TRAINED) * TASKS
    for strategy in STRATEGIES:
        told = yaml.safe_load((project / f"data/tuned/{strategy}.yaml").read_text())
        assert told["trials"] == TRIALS
        for run in json.loads((project / f"data/runs/{strategy}/runs.json").read_text()):
            chosen = told["tasks"][run["spec"]["task"]][strategy]
            assert run["spec"]["hyper"] == chosen["hyper"]
            assert run["spec"]["encoders"]["dropout"] == chosen["dropout"]
            assert run["spec"]["training"]["weight_decay"] == chosen["weight_decay"]


def test_the_page_tells_the_budget_the_curve_and_what_was_chosen(project):
    page = (project / "reports/index.html").read_text()
    assert "Settings were tuned for no strategy" not in page
    assert f"Settings were chosen on dev alone, task by task: {TRIALS} trials a strategy and task" in page
    curve = pl.read_csv(project / "reports/tables/tuning_curve.csv")
    assert curve.group_by("strategy", "task").len()["len"].to_list() == [TRIALS] * len(TRAINED) * TASKS
    assert "tables/tuning_curve.csv" in page
    chosen = pl.read_csv(project / "data/tuned/trials.csv").filter(pl.col("chosen") & (pl.col("trial") > 1))
    told = pl.read_csv(project / "reports/tables/tuning.csv").join(chosen, on=["strategy", "task"])
    assert 0 < told.height == chosen.height
    for row in told.iter_rows(named=True):
        assert f"lr {json.loads(row['settings'])['hyper']['lr']}" in row["differs"]
        assert row["differs"] in page


def test_one_worker_leaves_the_bytes_of_two(project, killed, tmp_path):
    folder = untried(project, tmp_path / "project")
    command = [sys.executable, "-m", "stages.tune"]
    subprocess.run(command, cwd=folder, env=environment(FUSION_EXECUTOR="inline"), capture_output=True, check=True)
    same_choice(folder, killed[0])
    assert runs(folder).keys() == runs(killed[0]).keys()
    for name in runs(folder):
        one, two = (each / "work/runs" / name / "predictions.safetensors" for each in (folder, killed[0]))
        assert one.read_bytes() == two.read_bytes(), name
