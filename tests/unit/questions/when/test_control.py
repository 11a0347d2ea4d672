"""The control of a strategy: that its encoder has learned, and that images of others cost it something."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from pipeline.estimation.verdicts import NO_RELEVANT_GAIN
from pipeline.params import Grid
from pipeline.questions.when import control
from pipeline.questions.when.gain import gain
from tests.support.made_up_runs import add_control
from tests.support.when import SCALE, known, one

GRID = Grid(("lstm", "resnet", "late_fusion", "medfuse"), ("mortality", "los"))


def permute(data, strategy, noise):
    """Answers to others' images: the strategy's own, or noise; its own tell who dies."""
    path = data / "probes" / strategy / "swaps.parquet"
    frame = pl.read_parquet(path)
    dead = pl.read_parquet(data / "cohort" / "labels.parquet").filter("icu_mortality")["stay_id"]
    told = pl.col("stay_id").is_in(dead.implode()).cast(pl.Float32).alias("p_icu_mortality")
    own = frame.filter(kind="full").with_columns(told)
    random, p = np.random.default_rng(1), [name for name in frame.columns if name.startswith("p_")]
    made = (pl.Series(name, random.random(own.height), pl.Float32) for name in p)
    other = own.with_columns(made) if noise else own
    pl.concat([own, other.with_columns(kind=pl.lit("cxr_permuted"))]).write_parquet(path)


def use_of(data, strategy, cohort="base", task="mortality"):
    return one(control.image_use(known(data, GRID)), strategy=strategy, task=task, cohort=cohort)


def test_both_differences_are_asked_for(own):
    """Trained features tell no more than untrained ones; or images of others cost nothing; or both are there."""
    for strategy in ("late_fusion", "medfuse"):
        permute(own, strategy, noise=True)
    add_control(own, "late_fusion", SCALE, GRID.tasks, told=2.0, untrained=2.0)
    add_control(own, "medfuse", SCALE, GRID.tasks, told=2.0, untrained=0.5)
    same = use_of(own, "late_fusion")
    assert (same["passed"], same["learned_low"] > 0, same["cost_low"] > 0) == (False, False, True)
    both = use_of(own, "medfuse")
    assert (both["passed"], both["learned_low"] > 0, both["cost_low"] > 0) == (True, True, True)
    permute(own, "medfuse", noise=False)
    unused = use_of(own, "medfuse")
    assert (unused["passed"], unused["cost"], unused["learned"]) == (False, 0.0, both["learned"])
    assert control.passed(control.image_use(known(own, GRID)), "mortality", "base") == {
        "late_fusion": False,
        "medfuse": False,
    }


@pytest.mark.parametrize("task", ["mortality", "los"])
def test_the_differences_against_loops_over_runs(own, task):
    add_control(own, "medfuse", SCALE, GRID.tasks, told=2.0, untrained=0.5)
    row = use_of(own, "medfuse", "matched", task)
    told = pl.read_parquet(own / "probes/medfuse/image_control.parquet").filter(task=task, train_cohort="matched")
    learned = []
    for run in told.partition_by("finding", "fold", "seed"):
        each = {name: run.filter(encoder=name) for name in ("trained", "untrained")}
        aurocs = {name: roc_auc_score(rows["present"], rows["score"]) for name, rows in each.items()}
        learned.append(aurocs["trained"] - aurocs["untrained"])
    assert row["learned"] == pytest.approx(np.mean(learned))
    labels = pl.read_parquet(own / "cohort" / "labels.parquet")
    swaps = pl.read_parquet(own / "probes/medfuse/swaps.parquet").join(labels, on="stay_id")
    cost = []
    for run in swaps.filter(task=task, train_cohort="matched").partition_by("fold", "seed"):
        scores = {"full": [], "cxr_permuted": []}
        for draw in run.filter(pl.col("kind").is_in(list(scores))).partition_by("kind", "draw"):
            if task == "los":
                said = draw.select(f"p_los_{i}" for i in range(7)).to_numpy().argmax(axis=1)
                scores[draw["kind"][0]].append(accuracy_score(draw["los_class"], said))
            elif draw["icu_mortality"].n_unique() == 2:
                scores[draw["kind"][0]].append(roc_auc_score(draw["icu_mortality"], draw["p_icu_mortality"]))
        cost.append(np.mean(scores["full"]) - np.mean(scores["cxr_permuted"]))
    assert row["cost"] == pytest.approx(np.mean(cost))
    assert row["metric"] == ("accuracy" if task == "los" else "auroc")
    assert row["runs"] == 4


def test_every_fusion_strategy_has_a_row_a_task_and_cohort_and_no_other(own):
    table = control.image_use(known(own, GRID))
    expected = [(t, c, s) for t in GRID.tasks for c in ("base", "matched") for s in ("late_fusion", "medfuse")]
    assert table.select("task", "cohort", "strategy").rows() == expected
    path = own / "probes" / "medfuse" / "image_control.parquet"
    pl.read_parquet(path).clear().write_parquet(path)
    unheard = use_of(own, "medfuse")
    assert (unheard["learned"], unheard["passed"]) == (None, False)
    assert unheard["cost"] is not None


@pytest.mark.parametrize("uses", [True, False])
def test_no_relevant_gain_is_said_of_a_strategy_that_uses_the_image_alone(own, uses):
    """A fusion strategy that answers as the EHR-only one does, with some noise."""
    folder, name = own / "runs", "mortality/predictions.parquet"
    frame = pl.read_parquet(folder / "lstm" / name).sort("train_cohort", "fold", "seed", "stay_id")
    noisy = pl.col("p_icu_mortality") * 0.75 + 0.25 * (pl.col("stay_id") % 97) / 97
    frame.with_columns(noisy.cast(pl.Float32).alias("p_icu_mortality")).write_parquet(folder / "late_fusion" / name)
    permute(own, "late_fusion", noise=uses)
    add_control(own, "late_fusion", SCALE, ("mortality",), told=2.0)
    reading = known(own, Grid(("lstm", "resnet", "late_fusion"), ("mortality",)))
    table = gain(dataclasses.replace(reading, rule=dataclasses.replace(reading.rule, least_positives=10))).table
    row = one(table, family="confirmatory", cohort="base")
    assert row["difference_ehr"] < 0
    assert (row["verdict"] == NO_RELEVANT_GAIN) == uses


def test_the_findings_of_an_encoder_with_those_of_its_untrained_twin(own):
    reading = known(own, GRID)
    add_control(own, "medfuse", SCALE, ("mortality",), told=2.0, untrained=0.0)
    told = [("medfuse", control.read_probe(own, "medfuse", "image_control"))]
    table = control.image_control(told, reading.people, reading.sampler, 0.95)
    row = one(table, finding="edema", train_cohort="base")
    assert row["difference"] == pytest.approx(row["auroc"] - row["untrained"])
    assert 0 < row["difference_low"] < row["difference"] < row["auroc"] < row["auroc_high"] < 1
