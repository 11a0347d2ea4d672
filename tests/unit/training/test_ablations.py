"""Strategies once more with knobs otherwise: cells of one cohort, their teachers' mean answers, their parameters."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from pipeline import files
from pipeline.errors import InputError
from pipeline.modelling.sizes import sized
from pipeline.params import Grid
from pipeline.training.ablations import ablate
from pipeline.training.cell import read_runs
from pipeline.training.grid import ablation_scale
from pipeline.training.settings import Common, Settings, ablation_runs
from pipeline.training.store import Store, data_fingerprint
from pipeline.training.tuning import Tuned
from tests.support.runs import SCALE
from tests.support.small import ENCODERS

HYPER = {"lr": 0.003, "size": 1.0, "teachers": "base", "sizes": [0.5, 1.0]}
ABLATIONS = {"mind": {"untaught": {"teachers": "none"}, "half": {"size": 0.5}}, "climd": {"other": {"measure": "none"}}}


@pytest.fixture(scope="module")
def made(data, training, tmp_path_factory):
    """(folder with the cells, store): MIND taught by the base cohort; CLIMD is not in the grid."""
    root = tmp_path_factory.mktemp("ablations")
    for each in data.iterdir():
        (root / each.name).symlink_to(each)
    settings = {name: Settings({"lr": 0.003}, 0.1, 0.01) for name in ("transformer", "resnet")}
    tuned = Tuned(0, {}, {"mortality": settings | {"mind": Settings(HYPER, 0.1, 0.01)}})
    for name in ("mind", "transformer"):
        files.write_yaml(dataclasses.asdict(tuned), root / "tuned" / f"{name}.yaml")
    scale = dataclasses.replace(SCALE, max_epochs=2, train_missing=(0.0, 0.5))
    common = Common("core", dataclasses.replace(training, start="unimodal"), ENCODERS, scale)
    store = Store(root / "work", data_fingerprint(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_EXECUTOR", "inline")
        ablate(common, Grid(("mind", "transformer"), ("mortality",)), ABLATIONS, store, root, root / "ablations")
    return root / "ablations", store


def test_the_runs_are_of_the_matched_cohort_with_the_least_removed_where_it_is_trained_on():
    scale = dataclasses.replace(SCALE, train_missing=(0.3, 0.0))
    assert ablation_scale(scale) == dataclasses.replace(scale, cohorts=("matched",), train_missing=(0.0,))
    alone = dataclasses.replace(SCALE, cohorts=("base",), train_missing=(0.4,))
    assert ablation_scale(alone) == alone


def test_a_cell_differs_in_its_knobs_alone_and_is_of_the_grid(made):
    folder, store = made
    cells = {path.name for path in folder.iterdir()}
    teachers = {f"mind.teachers_{name}" for name in ("transformer", "resnet")}
    assert cells == {"mind.untaught", "mind.half", *teachers, "parameters.csv"}
    for name, knobs in ABLATIONS["mind"].items():
        (spec,) = read_runs(folder / f"mind.{name}", store)
        assert spec.hyper == HYPER | knobs
        assert (spec.train_cohort, spec.train_missing) == ("matched", 0.0)
        assert any(" x" in need for need in spec.needs) == (name != "untaught")
        assert json.loads((folder / f"mind.{name}" / "card.json").read_text())["name"] == "mind"
    (untaught, half) = (
        pl.read_parquet(folder / f"mind.{name}/mortality/predictions.parquet") for name in ABLATIONS["mind"]
    )
    assert untaught.drop("p_icu_mortality").equals(half.drop("p_icu_mortality"))
    assert not untaught.equals(half)


def test_an_ablation_that_needs_who_is_not_tuned_is_told_in_a_line(training):
    common = Common("core", training, ENCODERS, SCALE)
    settings = {"los": {"climd": Settings({"base": "drfuse"}, 0.1, 0.01), "drfuse": Settings({}, 0.1, 0.01)}}
    grid, ablations = Grid(("climd",), ("los",)), {"climd": {"other": {"base": "medfuse"}}}
    with pytest.raises(InputError) as fault:
        ablation_runs(common, grid, ablations, settings)
    told = "ablations.climd.other: needs medfuse, which is not tuned for the grid; add it to grid.strategies"
    assert str(fault.value) == told


@pytest.mark.parametrize("teacher", ["transformer", "resnet"])
def test_teachers_answer_the_mean_of_all_sizes_as_runs_of_those_they_teach(made, teacher):
    folder, store = made
    (half,) = read_runs(folder / "mind.half", store)
    taught_by = [half.needs[sized(teacher, size)] for size in HYPER["sizes"]]
    assert {spec.train_cohort for spec in taught_by} == {"base" if teacher == "transformer" else "matched"}
    told = [load_file(store.folder(spec) / "predictions.safetensors") for spec in taught_by]
    assert np.abs(told[0]["p"] - told[1]["p"]).max() > 1e-4
    frame = pl.read_parquet(folder / f"mind.teachers_{teacher}/mortality/predictions.parquet")
    students = pl.read_parquet(folder / "mind.half/mortality/predictions.parquet")
    assert frame.drop("p_icu_mortality").equals(students.drop("p_icu_mortality"))
    place = dict(zip(told[0]["stay_id"].tolist(), range(len(told[0]["p"])), strict=True))
    rows = [place[stay] for stay in frame["stay_id"]]
    expected = np.mean([each["p"][rows, 0] for each in told], axis=0)
    np.testing.assert_allclose(frame["p_icu_mortality"].to_numpy(), expected, atol=1e-6)


def test_parameters_are_those_of_the_runs_and_of_all_teachers_together(made):
    folder, store = made
    found = dict(
        pl.read_csv(folder / "parameters.csv").filter(task="mortality").select("cell", "parameters").iter_rows()
    )
    (half,) = read_runs(folder / "mind.half", store)

    def count(spec):
        return json.loads((store.folder(spec) / "result.json").read_text())["parameters"]

    assert found["mind.half"] == count(half) < found["mind"] == found["mind.untaught"]
    for teacher in ("transformer", "resnet"):
        each = [count(half.needs[sized(teacher, size)]) for size in HYPER["sizes"]]
        assert each[0] < each[1]
        assert found[f"mind.teachers_{teacher}"] == sum(each)


def test_where_the_grid_has_no_such_strategy_nothing_is_made_but_an_empty_list(data, training, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_EXECUTOR", "inline")
    common, store = Common("core", training, ENCODERS, SCALE), Store(tmp_path / "work", "data")
    ablate(common, Grid(("transformer",), ("mortality",)), ABLATIONS, store, data, tmp_path / "ablations")
    assert [path.name for path in (tmp_path / "ablations").iterdir()] == ["parameters.csv"]
    assert pl.read_csv(tmp_path / "ablations" / "parameters.csv").height == 0
