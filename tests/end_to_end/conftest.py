"""The tiny project, made once for all tests of this folder."""

import pytest

from tests.end_to_end.project import call, commit, copy_project


@pytest.fixture(scope="session")
def project(root, tmp_path_factory):
    """The project at `scale: tiny` in a folder of its own, after one `dvc repro`."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(root, folder)
    call(folder, "git", "init", "-q", "-b", "main")
    commit(folder, "the project")
    call(folder, "dvc", "repro", "-q")
    return folder
