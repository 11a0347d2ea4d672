"""What the plan says of power: the closed form on the test stays of the scale's folds, label by label."""

import dataclasses

import polars as pl
import pytest

from pipeline.estimation.power import Plan, positives_needed, smallest_detectable
from pipeline.params import load
from pipeline.power import comparisons, told


@pytest.fixture
def data(tmp_path):
    """Forty test stays in either of two folds, a quarter of them dead; half have an image."""
    n = 100
    (tmp_path / "cohort").mkdir()
    stays = pl.DataFrame({"stay_id": range(n), "has_cxr": [i % 2 == 0 for i in range(n)]})
    stays.write_parquet(tmp_path / "cohort" / "stays.parquet")
    labels = stays.select("stay_id", icu_mortality=pl.col("stay_id") % 8 < 2, los_class=pl.lit(0))
    labels.write_parquet(tmp_path / "cohort" / "labels.parquet")
    parts = [(i, fold, "test" if 40 * fold <= i < 40 * (fold + 1) else "train") for i in range(n) for fold in (0, 1)]
    pl.DataFrame(parts, schema=["stay_id", "fold", "part"], orient="row").write_parquet(tmp_path / "splits.parquet")
    return tmp_path


def asked(root, folds):
    params = load(root / "params.yaml")
    params = dataclasses.replace(
        params, scale="tiny", grid=dataclasses.replace(params.grid, tasks=("mortality", "los"))
    )
    tiny = params.scales["tiny"]
    training = dataclasses.replace(tiny.training, folds=folds)
    return dataclasses.replace(params, scales={**params.scales, "tiny": dataclasses.replace(tiny, training=training)})


def test_a_line_a_label_with_both_cohorts(root, data):
    params = asked(root, (0, 1))
    assert comparisons(params) == 4
    lines = told(params, data).splitlines()
    assert len(lines) == 3
    plan = Plan(runs=2, tests=4)
    found = lines[2].split()
    assert found[:2] == ["mortality", "icu_mortality"]
    gains = [f"{smallest_detectable(20, 60, plan):.3f}", f"{smallest_detectable(10, 30, plan):.3f}"]
    assert found[2:] == ["20", gains[0], str(positives_needed(0.01, 0.25, plan)), "10", gains[1], found[4]]
    assert "4 comparisons" in lines[0]


def test_one_run_and_data_that_are_not_there_are_said(root, data):
    text = told(asked(root, (0,)), data)
    assert "10" in text.splitlines()[2].split()  # of one fold
    assert text.endswith("one run: no verdict will be said; add folds or seeds to the scale's training")
    (data / "splits.parquet").unlink()
    assert told(asked(root, (0,)), data).endswith(f"not known before {data / 'splits.parquet'} is made")


def test_a_label_without_a_positive_shows_nothing(root, data):
    path = data / "cohort" / "labels.parquet"
    pl.read_parquet(path).with_columns(icu_mortality=pl.lit(False)).write_parquet(path)
    assert told(asked(root, (0, 1)), data).splitlines()[2].split()[2:] == ["0", "–", "–", "0", "–", "–"]
