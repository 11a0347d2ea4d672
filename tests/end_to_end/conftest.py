"""The tiny project, made once for all tests of this folder."""

import shutil

import pytest

from tests.end_to_end.project import TRIALS, call, commit, copy_project
from tests.support.once import once


@pytest.fixture(scope="session")
def project(root, tmp_path_factory):
    """The project in a folder of its own, after one `dvc exp run` at `scale: tiny` that tunes its strategies.

    That takes minutes: one process of the suite does it, and each has a copy, which its tests change and restore.
    """

    def make(folder):
        copy_project(root, folder)
        call(folder, "git", "init", "-q", "-b", "main")
        commit(folder, "the project")
        call(folder, "dvc", "exp", "run", "-q", "-S", f"tuning.trials={TRIALS}", "-S", "scale=tiny")

    made = once(tmp_path_factory, "finished-project", make)
    return shutil.copytree(made, tmp_path_factory.mktemp("project") / "project", symlinks=True)
