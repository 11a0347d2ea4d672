"""`dvc exp run -S tuning.trials=4`: killed in the middle it goes on; one worker and two leave the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys

import polars as pl
import pytest
import yaml

from tests.end_to_end.project import STRATEGIES, TRAINED, commit, environment
from tests.support.processes import at_work_in, wait_until

TRIALS = 4
TASKS = 3


def runs(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "work/runs").glob("*/result.json")}


def copy(project, folder):
    shutil.copytree(project, folder, symlinks=True)
    return folder


@pytest.fixture(scope="module")
def killed(project, tmp_path_factory):
    """The folder after the experiment, the runs that were there when it was killed, and its second run's words."""
    folder = copy(project, tmp_path_factory.mktemp("tuned") / "project")
    if subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True).stdout:
        commit(folder, "results")
    command = ["dvc", "exp", "run", "-S", f"tuning.trials={TRIALS}", "-S", "scale=tiny"]
    before = set(runs(folder))
    first = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(FUSION_EXECUTOR="pool:2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert wait_until(lambda: len(set(runs(folder)) - before) >= 3, 120)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert wait_until(lambda: not at_work_in(folder), 20)
    there = runs(folder)
    assert not (folder / "data/tuned").exists()  # which DVC takes away when `tune` begins: it had not ended
    done = subprocess.run(
        command, cwd=folder, env=environment(FUSION_EXECUTOR="pool:2"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, before, there


def test_the_experiment_goes_on_where_it_was_killed(killed):
    folder, before, there = killed
    after = runs(folder)
    assert len(set(there) - set(before)) < len(set(after) - set(before))
    assert {name: after[name] for name in there} == there  # none was made twice


def test_every_strategy_was_tried_as_often_and_trained_with_what_was_chosen(killed):
    folder = killed[0]
    trials = pl.read_csv(folder / "data/tuned/trials.csv")
    assert trials.group_by("strategy", "task").len()["len"].to_list() == [TRIALS] * len(TRAINED) * TASKS
    for strategy in STRATEGIES:
        told = yaml.safe_load((folder / f"data/tuned/{strategy}.yaml").read_text())
        assert told["trials"] == TRIALS
        for run in json.loads((folder / f"data/runs/{strategy}/runs.json").read_text()):
            chosen = told["tasks"][run["spec"]["task"]][strategy]
            assert run["spec"]["hyper"] == chosen["hyper"]
            assert run["spec"]["encoders"]["dropout"] == chosen["dropout"]
            assert run["spec"]["training"]["weight_decay"] == chosen["weight_decay"]


def test_the_page_tells_the_budget_the_curve_and_what_was_chosen(killed):
    folder = killed[0]
    page = (folder / "reports/index.html").read_text()
    assert "Settings were tuned for no strategy" not in page
    assert f"Settings were chosen on dev alone, task by task: {TRIALS} trials a strategy and task" in page
    curve = pl.read_csv(folder / "reports/tables/tuning_curve.csv")
    assert curve.group_by("strategy", "task").len()["len"].to_list() == [TRIALS] * len(TRAINED) * TASKS
    assert "tables/tuning_curve.csv" in page
    chosen = pl.read_csv(folder / "data/tuned/trials.csv").filter(pl.col("chosen") & (pl.col("trial") > 1))
    told = pl.read_csv(folder / "reports/tables/tuning.csv").join(chosen, on=["strategy", "task"])
    assert 0 < told.height == chosen.height
    for row in told.iter_rows(named=True):
        assert f"lr {json.loads(row['settings'])['hyper']['lr']}" in row["differs"]
        assert row["differs"] in page


def test_one_worker_leaves_the_bytes_of_two(project, killed, tmp_path):
    folder = copy(project, tmp_path / "project")
    shutil.rmtree(folder / "work")
    shutil.copy2(killed[0] / "params.yaml", folder / "params.yaml")
    command = [sys.executable, "-m", "stages.tune"]
    subprocess.run(command, cwd=folder, env=environment(FUSION_EXECUTOR="inline"), capture_output=True, check=True)
    for path in (killed[0] / "data/tuned").iterdir():
        if path.name != "hours.json":
            assert path.read_bytes() == (folder / "data/tuned" / path.name).read_bytes(), path.name
    made = [path.parent.name for path in (folder / "work/runs").glob("*/result.json")]
    assert len(made) == TRIALS * len(TRAINED) * TASKS  # of one cohort and one seed
    for name in made:
        one, two = (each / "work/runs" / name / "predictions.safetensors" for each in (folder, killed[0]))
        assert one.read_bytes() == two.read_bytes(), name
