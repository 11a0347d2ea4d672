"""Fixtures that tests of this folder share: made once, and not to be changed (`own` is a copy that may be)."""

import shutil

import pytest

from pipeline.questions.fair.fairness import fairness, write
from tests.support.fair import EVALUATION, GRID, KNOBS, ONE, SCALE, SEEDS, SIZE, declare_unimodal
from tests.support.made_up_runs import fabricate


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("fair")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=1600)
    declare_unimodal(root / "data")
    return root


@pytest.fixture(scope="session")
def found(made):
    tables = fairness(made / "data", GRID, SCALE, EVALUATION, KNOBS, SIZE)
    write(tables, made / "reports/tables", 0.95)
    return tables


@pytest.fixture(scope="session")
def seeded(tmp_path_factory):
    """Mortality alone, and two seeds."""
    root = tmp_path_factory.mktemp("seeded")
    fabricate(root, SEEDS, GRID.strategies, ONE.tasks, stays=1600)
    declare_unimodal(root / "data")
    return root


@pytest.fixture
def own(seeded, tmp_path):
    """A copy, to be damaged."""
    shutil.copytree(seeded, tmp_path / "own")
    return tmp_path / "own" / "data"
