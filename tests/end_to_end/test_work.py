"""`python -m pipeline.work` after the data stages; `dvc repro` then trains nothing."""

import subprocess
import sys

import pytest

from tests.end_to_end.project import TRAINED, call, commit, copy_project, environment

RUNS = 2 * 3 * len(TRAINED)


@pytest.fixture(scope="module")
def filled(root, tmp_path_factory):
    """The project with its data and every run, and what the command said."""
    folder = tmp_path_factory.mktemp("filled")
    copy_project(root, folder)
    call(folder, "git", "init", "-q", "-b", "main")
    commit(folder, "the project")
    early = subprocess.run(
        [sys.executable, "-m", "pipeline.work"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert early.stderr == "work: error: data/cohort/stays.parquet: not found; make the data first: dvc repro audit\n"
    call(folder, "dvc", "repro", "-q", "audit")
    return folder, call(folder, sys.executable, "-m", "pipeline.work", "--workers", "2")


@pytest.mark.slow
def test_dvc_repro_then_finds_every_run(filled):
    folder, words = filled
    assert f"{RUNS} runs made here (0 from a checkpoint), 0 by others, 0 were there, 0 failed; " in words
    before = {path: path.stat().st_mtime_ns for path in (folder / "work/runs").glob("*/result.json")}
    assert len(before) == RUNS
    call(folder, "dvc", "repro", "-q")
    assert {path: path.stat().st_mtime_ns for path in (folder / "work/runs").glob("*/result.json")} == before
    assert (folder / "reports/index.html").is_file()
