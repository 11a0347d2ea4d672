"""The stage `ensemble` on fabricated cells: a cell like a train cell's, which no test label reaches, and its tables."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import polars as pl
import pytest

from pipeline import files
from pipeline.ensembles.ensemble import components, make
from pipeline.ensembles.weights import SCHEMAS
from pipeline.evaluation.cells import read_people, read_predictions
from pipeline.evaluation.choice import read_card
from pipeline.params import Ensemble, Grid
from pipeline.tasks import get_task
from tests.support.made_up_runs import fabricate, training

SCALE = training(folds=(0, 1), missing=(0.0, 0.5))
SCALE = dataclasses.replace(SCALE, missing_tasks=("mortality",), train_mechanisms=("mcar",))
NAMES = ("lstm", "transformer", "resnet", "late_fusion")
GRID = Grid(NAMES, ("mortality", "los"), ("both",))
KNOBS = Ensemble(("transformer", "lstm", "resnet", "gbm"), "tpe", 12, 0, "monitor", 42)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    fabricate(root, SCALE, NAMES, GRID.tasks)
    return root / "data"


def made(data, out, grid=GRID, knobs=KNOBS):
    """The tables; all that was written stands in `out`."""
    tables = make(data, grid, {"both": knobs}, SCALE, out)
    for name, table in tables.items():
        files.write_csv(table, out / f"{name}.csv")
    return tables


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cell(data):
    """With its tables; beside the runs, where whoever reads cells finds it."""
    return made(data, data / "ensembles")


def test_the_cell_has_the_form_of_its_components_and_is_read_as_they_are(data, cell):
    for task in GRID.tasks:
        own, theirs = (
            pl.read_parquet(data / folder / task / "predictions.parquet") for folder in ("ensembles/both", "runs/lstm")
        )
        kinds = {"fold": pl.Int8, "seed": pl.Int32}  # which the fabricated ones are not narrowed to
        assert own.schema == theirs.cast(kinds).schema
        about = [name for name in own.columns if not name.startswith("p_")]
        assert own.select(about).equals(theirs.cast(kinds).select(about))
    task = get_task("los")
    people = read_people(data, [task], SCALE.folds)
    assert read_predictions(data, task, "both", SCALE, people).height == own.height


def test_predictions_are_the_weighted_means_of_the_components(data, cell):
    keys = {"task": "mortality", "cohort": "base", "fold": 1, "seed": 0}
    stays = pl.read_parquet(data / "cohort" / "stays.parquet").select("stay_id", "has_cxr")
    found = pl.read_parquet(data / "ensembles/both/mortality/predictions.parquet").join(stays, on="stay_id")
    for presence, has_cxr in (("image", True), ("no_image", False)):
        weights = cell["ensemble"].filter(presence=presence, **keys).drop_nulls("weight")
        assert weights["weight"].sum() == pytest.approx(1)
        wanted = 0.0
        for name, weight in weights.select("component", "weight").iter_rows():
            runs = pl.read_parquet(data / "runs" / name / "mortality" / "predictions.parquet").join(stays, on="stay_id")
            one = runs.filter(train_cohort="base", fold=1, has_cxr=has_cxr)
            wanted = wanted + weight * one["p_icu_mortality"].to_numpy().astype(float)
        own = found.filter(train_cohort="base", fold=1, has_cxr=has_cxr)["p_icu_mortality"].to_numpy()
        assert own == pytest.approx(wanted, abs=1e-7)


def test_without_an_image_only_components_that_see_the_record_count(cell):
    lines = ["best_single", "unweighted_mean", "greedy", "tpe"]
    for presence, named in (("image", ["lstm", "resnet", "transformer"]), ("no_image", ["lstm", "transformer"])):
        rows = cell["ensemble"].filter(presence=presence, task="los", cohort="matched", fold=0)
        assert rows["component"].to_list() == [*named, *lines]
        assert rows.filter("used")["component"].to_list() == ["tpe"]


def test_the_table_tells_best_mean_and_searches_with_optimism(cell):
    for _, rows in cell["ensemble"].group_by("task", "cohort", "fold", "seed", "presence"):
        at = {row["component"]: row for row in rows.iter_rows(named=True)}
        singles = [row["validation"] for row in at.values() if row["weight"] is not None]
        assert at["best_single"]["validation"] == max(singles)
        assert min(at[search]["validation"] for search in ("greedy", "tpe")) >= max(singles)
        for row in at.values():
            assert row["optimism"] == pytest.approx(row["validation"] - row["test"])
    assert set(cell["ensemble"]["task"]) == set(GRID.tasks)
    trials = cell["search"].filter(task="mortality", cohort="matched", presence="image")
    assert trials.group_by("search").len().sort("search").rows() == [("greedy", 12), ("tpe", 12)]
    assert set(trials["fold"]) == {0}


def copied(data, folder):
    return shutil.copytree(data, folder, ignore=shutil.ignore_patterns("ensembles"))


def test_counts_of_people_below_ten_are_not_told(data, cell, tmp_path):
    """Nine stays of validation with an image in fold 0: neither they, nor those without, whose sum is known."""
    stays = pl.read_parquet(data / "cohort" / "stays.parquet")
    splits = pl.read_parquet(data / "splits.parquet")
    with_image = stays.filter("has_cxr").join(splits.filter(fold=0, part="val"), on="stay_id", how="semi")
    left = pl.col("has_cxr") & ~pl.col("stay_id").is_in(with_image["stay_id"][9:].to_list())
    few = copied(data, tmp_path / "data")
    stays.with_columns(has_cxr=left).write_parquet(few / "cohort" / "stays.parquet")
    rows = made(few, tmp_path / "out", dataclasses.replace(GRID, tasks=("los",)))["ensemble"].filter(fold=0)
    told = rows.select("presence", "stays_validation").unique().sort("presence").rows()
    assert told == [("image", "<10"), ("no_image", "hidden")]
    plain = cell["ensemble"].filter(fold=0, presence="image")["stays_validation"].unique().to_list()
    assert plain == [str(with_image.height)]


def test_the_same_bytes_again_whatever_the_order_of_the_components(data, cell, tmp_path):
    made(
        data, tmp_path / "again", knobs=dataclasses.replace(KNOBS, components=("gbm", "resnet", "lstm", "transformer"))
    )
    assert contents(tmp_path / "again") == contents(data / "ensembles")


def test_no_test_label_reaches_the_search(tmp_path):
    """Shuffled labels of test and dev: the same predictions, to the byte; of validation: others."""
    one = training(folds=(0,))
    fabricate(tmp_path, one, NAMES, ["mortality"], stays=300)
    data = tmp_path / "data"
    labels = pl.read_parquet(data / "cohort" / "labels.parquet")
    part = labels.join(pl.read_parquet(data / "splits.parquet").filter(fold=0), on="stay_id", maintain_order="left")[
        "part"
    ]

    def predictions(*shuffled):
        rows = np.flatnonzero(part.is_in(shuffled))
        order = np.arange(labels.height)
        order[rows] = np.random.default_rng(0).permutation(rows)
        labels.with_columns(pl.exclude("stay_id").gather(order)).write_parquet(data / "cohort" / "labels.parquet")
        make(data, dataclasses.replace(GRID, tasks=("mortality",)), {"both": KNOBS}, one, tmp_path / "out")
        return (tmp_path / "out/both/mortality/predictions.parquet").read_bytes()

    plain = predictions()
    assert predictions("test", "dev") == plain
    assert predictions("val") != plain


def test_its_card_is_of_a_group_of_its_own_and_names_its_components(data, cell):
    card = json.loads((data / "ensembles/both/card.json").read_text())
    theirs = json.loads((data / "runs/lstm/card.json").read_text())
    assert set(theirs) <= set(card)
    assert (card["group"], card["needs"]) == ("ensemble", ["lstm", "resnet", "transformer"])
    assert set(card["entries"]) == set(theirs["entries"])
    assert "Not reproduced" in card["entries"]["Changed"]
    assert read_card(data, "both").kind == "ensemble"
    assert read_card(data, "late_fusion").kind == "fusion"


def test_components_outside_of_the_grid_are_told(caplog):
    with caplog.at_level(logging.WARNING):
        assert components(GRID, "both", KNOBS) == ["lstm", "resnet", "transformer"]
    assert caplog.messages == ["both: without gbm, which the grid does not train"]


def test_an_image_alone_predicts_its_prior_where_there_is_no_other(data, tmp_path):
    made(data, tmp_path, GRID, dataclasses.replace(KNOBS, components=("resnet",)))
    own = pl.read_parquet(tmp_path / "both/los/predictions.parquet")
    theirs = pl.read_parquet(data / "runs/resnet/los/predictions.parquet")
    assert own.select("^p_.*$").equals(theirs.select("^p_.*$"))


def test_without_ensembles_there_are_an_empty_folder_and_tables_without_rows(data, tmp_path):
    tables = made(data, tmp_path / "out", dataclasses.replace(GRID, ensembles=()))
    assert {name: (table.height, dict(table.schema)) for name, table in tables.items()} == {
        name: (0, schema) for name, schema in SCHEMAS.items()
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ensemble.csv", "search.csv"]
