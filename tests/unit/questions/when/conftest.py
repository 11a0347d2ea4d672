"""Fixtures that tests of this folder share: made once, and not to be changed (`own` is a copy that may be)."""

import shutil

import pytest

from pipeline.questions.when.gain import gain
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import MODALITIES, fabricate
from tests.support.when import GRID, SCALE, known

BOTH = ["cxr", "ehr"]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("gain")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=900)
    add_probes(root, {name: (MODALITIES.get(name, BOTH), "complete") for name in GRID.strategies}, GRID.tasks)
    return root / "data"


@pytest.fixture(scope="session")
def found(made):
    return gain(known(made))


@pytest.fixture
def own(made, tmp_path):
    """A copy of the artefacts, to be damaged."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"
