"""The tiny project, made once for all tests of this folder."""

import shutil

import pytest

from tests.end_to_end.project import call, commit, copy_project
from tests.support.once import once


@pytest.fixture(scope="session")
def project(root, tmp_path_factory):
    """The project at `scale: tiny` in a folder of its own, after one `dvc repro`.

    That takes minutes: one process of the suite does it, and each has a copy, which its tests change and restore.
    """

    def make(folder):
        copy_project(root, folder)
        call(folder, "git", "init", "-q", "-b", "main")
        commit(folder, "the project")
        call(folder, "dvc", "repro", "-q")

    made = once(tmp_path_factory, "finished-project", make)
    return shutil.copytree(made, tmp_path_factory.mktemp("project") / "project", symlinks=True)
