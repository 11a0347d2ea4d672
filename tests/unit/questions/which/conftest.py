"""Fixtures that tests of this folder share: made once, and not to be changed (`own` is a copy that may be)."""

import shutil

import pytest

from tests.support.made_up_runs import fabricate
from tests.support.which import GRID, SCALE, run


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("fabricated")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=800)
    return root


@pytest.fixture(scope="session")
def tables(made):
    return run(made / "data")


@pytest.fixture
def own(made, tmp_path):
    """A copy of the artefacts, to be damaged."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own" / "data"
