"""The pieces of tests/benchmarks/pictured.py: the causes that stand for images, the cells' params, the table."""

import csv

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.closure import ROOT
from pipeline.data.tensors import read_images
from pipeline.modelling.cards import read_card
from pipeline.modelling.registry import names
from pipeline.params import END_TO_END, load
from tests.benchmarks.image_use import KINDS, Use
from tests.benchmarks.pictured import CAUSES, COLUMNS, OUT, changed, embed_causes, line, table
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


@pytest.mark.parametrize(("image", "trials"), [(END_TO_END, 0), (CAUSES, 0), (CAUSES, 4)])
def test_params_of_the_cells_are_the_hospitals_but_for_cohort_grid_image_and_trials(tmp_path, image, trials):
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["scale"], given["scales"]["study"]["training"]["max_epochs"] = "study", 5
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed(given, ["mmtm"], image, trials)))
    params = load(tmp_path / "params.yaml")
    assert (params.grid.strategies, params.grid.tasks, params.training.image) == (("mmtm",), ("phenotype",), image)
    scale = params.scales["study"]
    assert (scale.training.cohorts, scale.training.train_missing) == (("matched",), (0.0,))
    assert (scale.training.max_epochs, scale.tuning.cohorts, params.tuning.trials) == (5, ("matched",), trials)


def test_a_row_takes_the_place_of_the_one_that_was_there_and_others_stay():
    def use(value, cost=None):
        return Use("mmtm", 3, dict.fromkeys(KINDS, (value, value - 0.1, value + 0.1)), cost)

    first = table([line(use(0.5), CAUSES, 0), line(use(0.6, (0.1, None, None)), END_TO_END, 0)])
    first = table([line(use(0.8), CAUSES, 16), line(use(0.9), CAUSES, 4)], first)
    again = list(csv.DictReader(table([line(use(0.7), CAUSES, 0)], first).splitlines()))
    assert {row["strategy"] for row in again} == {"mmtm"}
    assert [(row["image"], row["trials"], row["synergistic"], row["synergistic_high"]) for row in again] == [
        (END_TO_END, "0", "0.6000", "0.7000"),
        (CAUSES, "0", "0.7000", "0.8000"),
        (CAUSES, "4", "0.9000", "1.0000"),
        (CAUSES, "16", "0.8000", "0.9000"),
    ]
    assert [(row["cost"], row["cost_low"]) for row in again] == [("0.1000", ""), ("", ""), ("", ""), ("", "")]
    assert tuple(again[0]) == COLUMNS


def test_every_fusion_strategy_uses_its_images_in_the_committed_table():
    fusion = {name for name in names() if read_card(name).group == "fusion"}
    rows = list(csv.DictReader(OUT.read_text().splitlines()))
    for way in (END_TO_END, CAUSES):
        of_way = [row for row in rows if row["image"] == way and row["strategy"] in fusion]
        assert {row["strategy"] for row in of_way} == fusion
        assert [(row["strategy"], row["trials"]) for row in of_way if float(row["cost_low"]) <= 0] == []
