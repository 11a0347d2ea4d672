"""Kill -9, Ctrl-C, a second `dvc repro`, a full disk: the next run ends with the bytes of an undisturbed one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import files
from pipeline.strict import read_yaml
from stages import INTERRUPTED
from tests.end_to_end.project import environment
from tests.support.processes import at_work_in, wait_until

# Python imports it at its start. In the stage SABOTAGE names, it strikes when a file has been written and not yet
# renamed: the worst moment. `at` counts the files of a process, so that those before it are there.
SABOTEUR = """
import os, pathlib, signal, time
if "DVC_STAGE" not in os.environ:
    os.environ["SABOTAGE_DVC"] = str(os.getpid())  # its stages inherit it
stage, at, deed = os.environ.get("SABOTAGE", "none 0 none").split()
if os.environ.get("DVC_STAGE", "") == stage:
    rename, renamed = pathlib.Path.replace, []

    def strike(self, target):
        renamed.append(target)
        if len(renamed) == int(at):
            with open(os.environ["SABOTAGE_LOG"], "a") as log:
                log.write(f"{target}\\n")
            if deed == "kill-stage":
                os.kill(os.getpid(), signal.SIGKILL)
            if deed == "kill-dvc":
                os.kill(int(os.environ["SABOTAGE_DVC"]), signal.SIGKILL)
            time.sleep(60)
        return rename(self, target)

    pathlib.Path.replace = strike
"""
# A shell that stays between DVC and the stage, as dash does; bash becomes the stage.
LINGERING = """#!/bin/sh
/bin/sh "$@"
exit $?
"""
CELL = "train@late_fusion"
# Which file of which stage is the last that is written, and who is killed then. From the last stage to the first, so
# that each finds its inputs; in `train`, the files 2 to 5 of a worker are a run's weights, ..., result; those of the
# stage itself are the cell's outputs.
KILLS = [
    ("report", 3, "kill-dvc"),
    ("evaluate", 4, "kill-stage"),
    pytest.param(("cost", 1, "kill-stage"), marks=pytest.mark.slow),
    (CELL, 3, "kill-stage"),
    (CELL, 5, "kill-dvc"),
    ("tune", 2, "kill-stage"),
    pytest.param(("audit", 1, "kill-stage"), marks=pytest.mark.slow),
    pytest.param(("statistics", 1, "kill-dvc"), marks=pytest.mark.slow),
    pytest.param(("masks", 1, "kill-stage"), marks=pytest.mark.slow),
    ("splits", 2, "kill-dvc"),
    ("images", 2, "kill-stage"),
    pytest.param(("series", 1, "kill-dvc"), marks=pytest.mark.slow),
    pytest.param(("labels", 2, "kill-stage"), marks=pytest.mark.slow),
    pytest.param(("cohort", 2, "kill-dvc"), marks=pytest.mark.slow),
    ("ingest", 5, "kill-stage"),
    pytest.param(("manifest", 1, "kill-dvc"), marks=pytest.mark.slow),
    ("synthesize", 9, "kill-dvc"),
]


def start(folder: Path, *command: str, **more: str) -> subprocess.Popen:
    """A command in a process group of its own, as a terminal starts it; a stage works as under dvc."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(FUSION_EXECUTOR="pool:2", **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sabotage(folder: Path, stage: str, at: int, deed: str, lingering: bool = False) -> dict[str, str]:
    """The environment in which it happens, and struck.log in the folder above tells that it did."""
    (folder.parent / "saboteur").mkdir(exist_ok=True)
    (folder.parent / "saboteur/sitecustomize.py").write_text(SABOTEUR)
    shell = folder.parent / "saboteur/lingering"
    shell.write_text(LINGERING)
    shell.chmod(0o755)
    log = folder.parent / "struck.log"
    log.unlink(missing_ok=True)
    return {
        "PYTHONPATH": str(folder.parent / "saboteur"),
        "SABOTAGE": f"{stage} {at} {deed}",
        "SABOTAGE_LOG": str(log),
        "SHELL": str(shell) if lingering else "/bin/bash",
    }


def struck(folder: Path) -> list[str]:
    log = folder.parent / "struck.log"
    return log.read_text().split() if log.is_file() else []


def results(folder: Path) -> dict[str, int]:
    """The finished runs and when they ended."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "work/runs").glob("*/result.json")}


def digests(folder: Path) -> dict[str, str]:
    """All that the pipeline has left, apart from locks."""
    found = [path for part in ("data", "reports") for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in found if ".locks" not in path.parts}


def lock(folder: Path) -> dict:
    return read_yaml(folder / "dvc.lock")


def ending(process: subprocess.Popen, seconds: float = 600) -> str:
    text, _ = process.communicate(timeout=seconds)
    return text


@pytest.fixture(scope="module")
def kills(request):
    """Those of KILLS that this session asks for."""
    asked = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    return [each.params["kill"] for each in asked if each and "kill" in each.params]


@pytest.fixture(scope="module")
def again(project, kills, tmp_path_factory):
    """The finished project once more; but the stages of `kills` never ran, in DVC's memory and the run store."""
    folder = tmp_path_factory.mktemp("faults") / "project"
    shutil.copytree(project, folder, symlinks=True)
    shutil.rmtree(folder / ".dvc/cache/runs")
    memory = lock(folder)
    for stage, _, _ in kills:
        memory["stages"].pop(stage, None)
    (folder / "dvc.lock").write_text(yaml.safe_dump(memory))
    lost = {
        "strategy": "late_fusion",
        "task": "mortality",
        "train_cohort": "base",
    }  # no trial: the page tells their hours
    for path in (folder / "work/runs").glob("*/spec.json"):
        if lost.items() <= json.loads(path.read_text())["spec"].items():
            shutil.rmtree(path.parent)
    return folder


@pytest.fixture(scope="module")
def killed(kills, again):
    """What happened at each of `kills`: files struck, dvc's status and words, who was at work afterwards."""
    before = results(again)
    outcomes = {}
    for number, kill in enumerate(kills):
        process = start(again, "dvc", "repro", "-s", kill[0], **sabotage(again, *kill, lingering=number % 2 == 0))
        text = ending(process)
        left = at_work_in(again) if not wait_until(lambda: not at_work_in(again), 10) else []
        outcomes[kill] = (struck(again), process.returncode, text, left)
    text = ending(start(again, "dvc", "repro"))
    return outcomes, before, text


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill[0]}-{kill[2]}")
def test_kill_9_ends_a_stage_with_all_its_processes(killed, kill):
    found, status, text, left = killed[0][kill]
    assert found, text
    assert status == (-signal.SIGKILL if kill[2] == "kill-dvc" else 255), text
    assert left == []
    if kill[0] == CELL and kill[2] == "kill-stage":  # a worker of its
        assert "its process ended with status -9; finished runs are kept" in text


def test_after_kill_9_in_every_stage_the_next_run_ends_with_the_same_bytes(project, again, killed):
    assert digests(again) == digests(project), killed[2]
    assert lock(again) == lock(project)


def test_kill_9_lost_and_repeated_no_run(project, again, killed):
    before, after = killed[1], results(again)
    assert after.keys() == results(project).keys()
    assert len(after) == len(before) + 1
    assert {name: after[name] for name in before} == before
    assert not list((again / "work").rglob("*.part"))


def test_a_second_repro_beside_the_first_is_turned_away_and_harms_nothing(project, again, killed):
    first = start(again, "dvc", "repro", "-s", "-f", "masks", **sabotage(again, "masks", 1, "pause"))
    assert wait_until(lambda: struck(again))
    second = start(again, "dvc", "repro", "-s", "-f", "masks")
    text = ending(second)
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in text
    by_hand = start(again, sys.executable, "-m", "stages.masks")
    assert "masks: error: process" in (text := ending(by_hand))
    assert "is at the stage masks in this folder; wait for it or end it, then start again" in text
    assert by_hand.returncode == 1
    os.killpg(first.pid, signal.SIGINT)
    text = ending(first)
    assert text.count(INTERRUPTED) == 1
    assert "Traceback" not in text
    assert wait_until(lambda: not at_work_in(again))
    ending(start(again, "dvc", "repro"))
    assert digests(again) == digests(project)


# Each stage writes against a limit of 1 KiB a file (`ulimit -f`), which stands for a full disk on every machine, since
# the error arises in the same calls; tests/unit/test_files.py fills a real disk where it can mount one.
OUTPUTS = {
    "synthesize": "data/raw",
    "manifest": "data/manifest.json",
    "ingest": r"data/\.ingest\.[\w-]+\.\w+\.part",
    "cohort": "data/cohort/stays.parquet",
    "labels": "data/cohort/labels.parquet",
    "series": r"data/\.series\.[\w-]+\.\w+\.part",
    "images": "data/images/pixels.npy",
    "splits": "data/splits.parquet",
    "masks": "data/masks.parquet",
    "statistics": "data/series/statistics.json",
    "audit": "reports/audit.json",
    "train": ".*/work2/runs/.*",
    "evaluate": "reports/",
    "report": "reports/",
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", OUTPUTS)
def test_a_full_disk_ends_every_stage_in_one_line_that_names_the_file(project, tmp_path, stage):
    for part in ("data", "reports", "params.yaml"):
        (shutil.copytree if (project / part).is_dir() else shutil.copy)(project / part, tmp_path / part)
    arguments = " late_fusion" if stage == "train" else ""
    process = start(
        tmp_path,
        "bash",
        "-c",
        f"ulimit -f 1; exec {sys.executable} -m stages.{stage}{arguments}",
        PYTHONPATH=str(project),
        PYTHONDONTWRITEBYTECODE="1",
        FUSION_WORK=str(tmp_path / "work2"),
    )
    text = ending(process)
    assert process.returncode == 1, text
    line = rf"^{stage}: error: {OUTPUTS[stage]}\S*: cannot be written: File too large$"
    assert re.search(line, text, re.MULTILINE), text
    assert "Traceback" not in text
    assert not list(tmp_path.rglob(".*.part"))
    assert wait_until(lambda: not at_work_in(tmp_path))
