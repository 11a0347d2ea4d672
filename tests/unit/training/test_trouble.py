"""Runs under bad luck: validation that says nothing, numbers that blow up."""

import dataclasses
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

from pipeline import files
from pipeline.data.tensors import load_fold
from pipeline.errors import InputError
from pipeline.modelling.losses import prior_logits, task_loss
from pipeline.tasks import get_task
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.made_up_data import fabricate
from tests.support.runs import VARIABLES, grid, silent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("fabricated"), n=121)  # the last batch is of one stay


def history(spec, folder: Path, data: Path):
    made = Store(folder / "work", data_fingerprint(data))
    make_run(spec, made, data, silent)
    return json.loads((made.folder(spec) / "history.json").read_text())


def test_a_diverging_run_is_one_line_that_names_its_learning_rate(data, tmp_path, training):
    spec = dataclasses.replace(grid(training, "lstm")[0], hyper={"lr": 1e30})
    with pytest.raises(InputError, match=r"lstm mortality base fold 0 seed 0: .*lower strategies\.lstm\.lr"):
        make_run(spec, Store(tmp_path, data_fingerprint(data)), data, silent)


def copy_with(data: Path, folder: Path, name: str, change) -> Path:
    shutil.copytree(data, folder / "data")
    path = folder / "data" / name
    files.write_parquet(change(pl.read_parquet(path)), path)
    return folder / "data"


def test_without_a_death_in_validation_the_loss_selects_the_epoch_and_the_history_says_so(data, tmp_path, training):
    val = pl.read_parquet(data / "splits.parquet").filter(fold=0, part="val")["stay_id"]
    alive = pl.col("icu_mortality") & ~pl.col("stay_id").is_in(val.implode())
    rows = history(
        grid(training, "lstm")[0],
        tmp_path,
        copy_with(data, tmp_path, "cohort/labels.parquet", lambda labels: labels.with_columns(icu_mortality=alive)),
    )
    assert {row["monitor"] for row in rows} == {"val_loss"}
    assert {row["val_auprc"] for row in rows} == {None}
    (best,) = [row for row in rows if row["best"]]
    assert best["val_loss"] == min(row["val_loss"] for row in rows)


def test_without_a_validation_stay_the_last_epoch_is_taken(data, tmp_path, training):
    part = pl.col("part").replace({"val": "train"})
    rows = history(
        grid(training, "lstm")[0],
        tmp_path,
        copy_with(data, tmp_path, "splits.parquet", lambda splits: splits.with_columns(part)),
    )
    assert {row["monitor"] for row in rows} == {"none"}
    assert [row["best"] for row in rows] == [False, False, False, True]


def test_a_last_step_that_blows_up_is_one_line_too(data, tmp_path, training):
    """One batch an epoch: the training loss is that before the step, validation sees what the step did."""
    spec = dataclasses.replace(grid(training, "lstm", batch_size=500, max_epochs=1)[0], hyper={"lr": 1e38})
    with pytest.raises(InputError, match=r"lstm mortality base fold 0 seed 0: .*lower strategies\.lstm\.lr"):
        history(spec, tmp_path, data)


def test_predictions_that_are_not_finite_are_never_filed(data, tmp_path, training):
    part = pl.col("part").replace({"val": "train"})
    unseen = copy_with(data, tmp_path, "splits.parquet", lambda splits: splits.with_columns(part))
    spec = dataclasses.replace(grid(training, "lstm", batch_size=500, max_epochs=1)[0], hyper={"lr": 1e38})
    with pytest.raises(InputError, match=r"predictions are not finite; lower strategies\.lstm\.lr"):
        history(spec, tmp_path, unseen)


@pytest.mark.parametrize("strategy", ["lstm", "transformer", "resnet", "late_fusion"])
def test_bf16_autocast_trains_also_where_the_last_batch_is_one_stay_without_an_image(
    data, tmp_path, training, strategy
):
    spec = grid(dataclasses.replace(training, precision="bf16"), strategy, "los", batch_size=1, max_epochs=1)[0]
    (row,) = history(spec, tmp_path, data)
    assert 0 < row["train_loss"] < 5


def test_a_cxr_model_counts_every_training_stay_alike_in_its_loss(data, tmp_path, training):
    """Also in a batch of one stay without an image, whose prediction is the prevalence."""
    spec = dataclasses.replace(grid(training, "resnet", batch_size=1, max_epochs=1)[0], hyper={"lr": 1e-12})
    (row,) = history(spec, tmp_path, data)
    task = get_task("mortality")
    tensors = load_fold(data, 0, task, VARIABLES, "mcar")
    targets = torch.from_numpy(tensors.targets[tensors.part == "train"])
    of_prevalence = float(task_loss(prior_logits(targets, task).expand(len(targets), -1), targets, task))
    assert row["train_loss"] == pytest.approx(of_prevalence, rel=0.15)
