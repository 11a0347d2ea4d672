"""The ladder: each rung against the one below, and the images of others."""

import shutil

import numpy as np
import polars as pl
import pytest

from pipeline.estimation.variance import estimate, moderated
from pipeline.params import Grid
from pipeline.questions.when.ladder import _bound, ladder
from tests.support.when import auroc, known, one, scores


def probe(data, task, cohort, strategy, draws=2, only=None):
    """swaps.parquet, in which images of others make noise of the predictions."""
    runs = data / "runs" / strategy / task / "predictions.parquet"
    frame = pl.read_parquet(runs).filter(part="test", train_cohort=cohort)
    if only is not None:
        frame = frame.filter(pl.col("stay_id") % only == 0)
    outputs = [name for name in frame.columns if name.startswith("p_")]
    random = np.random.default_rng(0)
    parts = []
    for draw in range(draws):
        noise = pl.DataFrame({name: random.random(frame.height) for name in outputs})
        permuted = frame.select("train_cohort", "fold", "seed", "part", "stay_id").hstack(noise)
        parts.append(permuted.with_columns(task=pl.lit(task), kind=pl.lit("cxr_permuted"), draw=pl.lit(draw)))
    full = frame.select("train_cohort", "fold", "seed", "part", "stay_id", *outputs)
    parts.append(
        full.with_columns(pl.col(outputs).cast(pl.Float64), task=pl.lit(task), kind=pl.lit("full"), draw=pl.lit(0))
    )
    pl.concat(parts).write_parquet(data / "probes" / strategy / "swaps.parquet")
    return parts


def test_the_ladder_compares_each_rung_with_the_one_below_in_one_architecture(made):
    climbed = ladder(known(made))
    rows = climbed.filter(task="mortality", cohort="base", metric="auroc")
    assert rows.select("rung", "strategy", "against").rows() == [
        ("ehr", "transformer", None),
        ("presence", "ehr_presence", "ehr"),
        ("metadata", "ehr_metadata", "presence"),
        ("pixels", "late_fusion", "metadata"),
        ("permuted", "late_fusion", "pixels"),
    ]
    rows = rows.filter(pl.col("rung") != "permuted")
    values = [scores(made, "mortality", name, "base", "test", auroc)["icu_mortality"] for name in rows["strategy"]]
    assert rows["value"].to_list() == pytest.approx(values)
    assert rows["difference"].drop_nulls().to_list() == pytest.approx(np.diff(values))
    told = rows.drop_nulls("difference_low")
    assert told.height == 2  # the controls' predictions are the same here
    middle = (told["difference_low"] + told["difference_high"]) / 2
    assert middle.to_list() == pytest.approx(told["difference"].to_list())  # ± standard errors
    odds = rows.select((pl.col(name) / (1 - pl.col(name))).log() for name in ("low", "value", "high"))
    assert ((odds["low"] + odds["high"]) / 2).to_list() == pytest.approx(odds["value"].to_list())  # of log-odds
    assert set(rows["runs"]) == {4}
    assert "verdict" not in climbed.columns  # exploratory, all of it


def test_few_runs_tell_of_luck_together():
    random, folds = np.random.default_rng(2), (0, 1, 2)
    found = [
        estimate(0.7 + random.normal(size=(3, 1)) * 0.03 + random.normal(size=(3, 61)) * 0.02, folds, 0.3)
        for _ in range(4)
    ]
    rows = [{"metric": "accuracy", "score": each, "step": each} for each in found]
    _bound(rows, 0.95)
    expected = [each.interval(0.95) for each in moderated(found)]
    assert expected != [each.interval(0.95) for each in found]
    assert [(row["low"], row["high"]) for row in rows] == expected
    assert [(row["difference_low"], row["difference_high"]) for row in rows] == expected
    assert [row["value"] for row in rows] == [each.value for each in found]


def test_a_rung_that_the_grid_lacks_is_left_out_and_the_next_one_compared_with_the_one_below_it(made):
    grid = Grid(("transformer", "ehr_metadata", "medfuse"), ("mortality",))
    rows = ladder(known(made, grid)).filter(cohort="base", metric="auroc")
    assert rows.select("rung", "strategy", "against").rows() == [
        ("ehr", "transformer", None),
        ("presence", None, None),
        ("metadata", "ehr_metadata", "ehr"),
        ("pixels", None, None),
        ("permuted", None, None),
    ]
    assert rows["left_out"].to_list() == [
        None,
        "ehr_presence is not in the grid",
        None,
        "late_fusion is not in the grid",
        "late_fusion is not in the grid",
    ]


@pytest.mark.parametrize("only", [None, 2])
def test_permuted_images_are_compared_with_the_same_model_on_the_probes_stays(own, only):
    parts = probe(own, "phenotype", "matched", "late_fusion", only=only)
    climbed = ladder(known(own, Grid(("transformer", "late_fusion"), ("phenotype",))))
    row = one(climbed, task="phenotype", cohort="matched", label="shock", metric="auroc", rung="permuted")
    labels = pl.read_parquet(own / "cohort" / "labels.parquet").select("stay_id", "shock")
    images = pl.read_parquet(own / "cohort" / "stays.parquet").filter("has_cxr").select("stay_id")
    means = [
        np.mean(
            [
                auroc(run, "shock")
                for run in part.join(labels, on="stay_id").join(images, on="stay_id").partition_by("fold", "seed")
            ]
        )
        for part in parts
    ]
    assert row["value"] == pytest.approx(np.mean(means[:2]))
    assert row["difference"] == pytest.approx(np.mean(means[:2]) - means[2], abs=1e-6)
    assert row["difference_high"] < 0
    other = climbed.filter(task="phenotype", cohort="base", rung="permuted")
    assert other["left_out"].to_list() == ["the probe of late_fusion has no permuted images for this"]
    shutil.rmtree(own / "probes" / "late_fusion")
    without = ladder(known(own, Grid(("late_fusion",), ("phenotype",)))).filter(rung="permuted")
    assert without["left_out"].str.contains("no permuted images").all()
