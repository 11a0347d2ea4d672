"""Fixtures that tests of this folder share: made once, and not to be changed (`own` is a copy that may be)."""

import shutil

import pytest

from pipeline import params
from pipeline.page.page import build, write
from pipeline.params import Evaluation, Grid
from stages.report import SHOWN
from tests.support.inprocess import run, write_params
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import MODALITIES, STRENGTH, fabricate, training
from tests.support.once import once
from tests.support.pages import AGGREGATES, plant_noise


@pytest.fixture(scope="session")
def shown(root):
    """The params as the stage reads them, at the scale `tiny`."""
    every = params.load(root / "params.yaml")
    return {key: every.get(key) for key in SHOWN} | {
        "scales": every.scales["tiny"],
        "grid": Grid(tuple(STRENGTH), ("mortality", "phenotype", "los"), ("autoprognosis_m",)),
        "evaluation": Evaluation(0.95, 10, 1),
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory, shown):
    """Fabricated artefacts, the tables that the stages make of them, and the page: once for all processes."""
    grid, scale = shown["grid"], shown["scales"].training

    def make(root):
        fabricate(root, training(scale.folds, scale.seeds), stays=500)
        add_probes(root, {name: (MODALITIES.get(name, ["cxr", "ehr"]), "complete") for name in STRENGTH}, grid.tasks)
        changes = {"grid.strategies": list(grid.strategies), "evaluation.ece_bins": 10}
        write_params(root, 150, 1, {**changes, "scales.tiny.evaluation.draws": 20})
        plant_noise(root / "data")
        run(root, *AGGREGATES)
        write(*build(root / "data", root / "reports", shown), root / "reports")

    return once(tmp_path_factory, "page", make)


@pytest.fixture(scope="session")
def page(made):
    return (made / "reports" / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def own(made, tmp_path):
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"
