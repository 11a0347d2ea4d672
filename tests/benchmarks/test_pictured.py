"""The pieces of tests/benchmarks/pictured.py: the causes that stand for images, the cells' params, the table."""

import csv

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.closure import ROOT
from pipeline.data.tensors import read_images
from pipeline.params import END_TO_END, load
from tests.benchmarks.image_use import KINDS, Use
from tests.benchmarks.pictured import CAUSES, COLUMNS, changed, embed_causes, line, table
from tests.support.made_up_data import fabricate


def test_every_image_has_the_causes_that_its_own_stay_shows(tmp_path):
    data = fabricate(tmp_path / "data", n=80)
    stays = pl.read_parquet(data / "cohort/stays.parquet")["stay_id"].sort(descending=True)
    causes = np.stack([stays.to_numpy() % 1000, -stays.to_numpy() % 7], axis=1) / 8
    planted = {"stay_id": stays, "z_air": causes[:, 0] * 3, "cxr_air": causes[:, 0], "cxr_aorta": causes[:, 1]}
    (data / "truth").mkdir()
    pl.DataFrame(planted).write_parquet(data / "truth/planted.parquet")
    embed_causes(data)
    index, _, embeddings = read_images(data, CAUSES)  # as training reads them
    assert embeddings.shape == (index.height, 1, 2)
    shown = dict(zip(stays, causes, strict=True))
    for stay, row in index.select("stay_id", "row").iter_rows():
        assert embeddings[row, 0] == pytest.approx(shown[stay], abs=1e-3)


@pytest.mark.parametrize("image", [END_TO_END, CAUSES])
def test_params_of_the_cells_are_the_hospitals_but_for_cohort_grid_and_image(tmp_path, image):
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["scale"], given["scales"]["study"]["training"]["max_epochs"] = "study", 5
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed(given, ["mmtm"], image)))
    params = load(tmp_path / "params.yaml")
    assert (params.grid.strategies, params.grid.tasks, params.training.image) == (("mmtm",), ("phenotype",), image)
    scale = params.scales["study"].training
    assert (scale.cohorts, scale.train_missing, scale.max_epochs) == (("matched",), (0.0,), 5)


def test_a_row_takes_the_place_of_the_one_that_was_there_and_others_stay():
    def use(value, cost=None):
        return Use("mmtm", 3, dict.fromkeys(KINDS, (value, value - 0.1, value + 0.1)), cost)

    first = table([line(use(0.5), CAUSES), line(use(0.6, (0.1, None, None)), END_TO_END)])
    again = list(csv.DictReader(table([line(use(0.7), CAUSES)], first).splitlines()))
    assert [(row["strategy"], row["image"]) for row in again] == [("mmtm", END_TO_END), ("mmtm", CAUSES)]
    assert [(row["synergistic"], row["synergistic_high"]) for row in again] == [
        ("0.6000", "0.7000"),
        ("0.7000", "0.8000"),
    ]
    assert [(row["cost"], row["cost_low"]) for row in again] == [("0.1000", ""), ("", "")]
    assert tuple(again[0]) == COLUMNS
