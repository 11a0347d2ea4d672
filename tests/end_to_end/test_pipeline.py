"""The whole pipeline, tiny, as a user runs it: `dvc repro` in a copy of the project, in a temporary folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml

STRATEGIES = ["lstm", "resnet", "late_fusion"]


def call(folder: Path, *command: str) -> str:
    """Runs a command of the environment that the tests run in; returns what it prints."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for name in ("FUSION_WORK", "FUSION_EXECUTOR", "DVC_ROOT"):
        environment.pop(name, None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def commit(folder: Path, message: str) -> None:
    call(folder, "git", "add", "-A")
    call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", message)


@pytest.fixture(scope="session")
def project(root, tmp_path_factory):
    """The project's files (tracked, and new ones that git does not ignore) at `scale: tiny`, after one `dvc repro`."""
    folder = tmp_path_factory.mktemp("project")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (root / name).is_file() and not name.startswith("reports/") and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["scale"] = "tiny"
    params["grid"]["strategies"] = STRATEGIES
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    call(folder, "git", "init", "-q", "-b", "main")
    commit(folder, "the project")
    call(folder, "dvc", "repro", "-q")
    return folder


def test_the_report_is_made_and_says_that_it_is_synthetic(project):
    page = (project / "reports/index.html").read_text()
    assert "SYNTHETIC" in page
    for name in STRATEGIES:
        assert name in page
    for family in ("dev", "test"):
        for task in ("mortality", "phenotype", "los"):
            found = json.loads((project / f"reports/metrics/{family}/{task}.json").read_text())
            assert set(found) == set(STRATEGIES)


def test_the_audit_passed_and_the_cohort_is_not_empty(project):
    checks = json.loads((project / "reports/audit.json").read_text())["checks"]
    assert checks
    assert all(check["passed"] for check in checks)
    stays = pl.read_parquet(project / "data/cohort/stays.parquet")
    assert stays.height > 50
    assert 0.2 < stays["has_cxr"].mean() < 0.7


def test_a_second_repro_runs_nothing_and_git_and_dvc_are_clean(project):
    commit(project, "results")
    assert "Data and pipelines are up to date." in call(project, "dvc", "repro")
    assert call(project, "git", "status", "--porcelain") == ""
    assert "up to date" in call(project, "dvc", "status")


def test_a_fresh_clone_is_clean_apart_from_outputs_that_are_not_made(project, tmp_path):
    if call(project, "git", "status", "--porcelain"):
        commit(project, "results")
    call(tmp_path, "git", "clone", "-q", str(project), "clone")
    clone = tmp_path / "clone"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-c", "import pipeline.params"], cwd=clone, env=environment, check=True)
    assert list(clone.rglob("__pycache__"))  # what a directory dependency must not hash
    status = json.loads(call(clone, "dvc", "status", "--json"))
    for stage, changes in status.items():
        for change in changes:
            assert change != "changed command", stage
            for state in (change.get("changed outs") or change.get("changed deps")).values():
                assert state in ("deleted", "not in cache"), f"{stage}: {change}"


def test_touching_one_strategy_concerns_its_cells_alone(project):
    path = project / "pipeline/strategies/lstm.py"
    before = path.read_text()
    path.write_text(before + "\n# touched\n")
    try:
        status = json.loads(call(project, "dvc", "status", "--json"))
    finally:
        path.write_text(before)
    assert sorted(status) == ["train@lstm-los", "train@lstm-mortality", "train@lstm-phenotype"]


def test_the_same_runs_come_from_the_run_store_and_are_the_same_bytes(project):
    path = project / "data/runs/mortality/late_fusion/predictions.parquet"
    before = path.read_bytes()
    results = {p: p.stat().st_mtime_ns for p in (project / "work/runs").glob("*/result.json")}
    assert len(results) == 2 * 3 * len(STRATEGIES)
    call(project, sys.executable, "-m", "stages.train", "late_fusion", "mortality")
    assert path.read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in (project / "work/runs").glob("*/result.json")} == results


def test_the_plan_finds_all_runs_made(project):
    text = call(project, sys.executable, "-m", "pipeline.plan")
    assert f"in the run store: {2 * 3 * len(STRATEGIES)} runs; to be made: 0" in text


def test_a_broken_param_stops_dvc_in_one_line_that_names_it(project):
    path = project / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("val_share: 0.125", "val_share: 1.5"))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "stages.splits"], cwd=project, capture_output=True, text=True, check=False
        )
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert done.stderr == "splits: error: params.yaml: splits.val_share: must be in [0, 1), is 1.5\n"


@pytest.mark.parametrize("seconds", [0.3, 1.2])
def test_ctrl_c_ends_in_one_line_and_leaves_nobody_behind(project, tmp_path, seconds):
    environment = {**os.environ, "FUSION_WORK": str(tmp_path), "FUSION_EXECUTOR": "pool:2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train", "late_fusion", "phenotype"],
        cwd=project,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "interrupted; the same command goes on" in text
    assert "Traceback" not in text
    time.sleep(0.5)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_an_edit_of_the_library_is_seen_by_exp_run_temp(project):
    """The copy that DVC makes imports its own library, not the workspace's."""
    if call(project, "git", "status", "--porcelain"):
        commit(project, "results")
    path = project / "pipeline/data/splits.py"
    before = path.read_text()
    path.write_text(before.replace('"dev", subject_id', '"edited", subject_id'))
    try:
        call(project, "dvc", "exp", "run", "--temp", "-n", "edited", "splits")
    finally:
        path.write_text(before)
    refs = call(project, "git", "for-each-ref", "refs/exps", "--format=%(refname)").split()
    (ref,) = [ref for ref in refs if ref.endswith("/edited")]
    locks = [
        yaml.safe_load(text)
        for text in (call(project, "git", "show", f"{ref}:dvc.lock"), (project / "dvc.lock").read_text())
    ]
    edited, own = (lock["stages"]["splits"]["outs"][0]["md5"] for lock in locks)
    assert edited != own
