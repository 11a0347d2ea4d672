"""Runs under bad luck, and what they are filed under: validation that says nothing, numbers that blow up, processes."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from pipeline import files
from pipeline.closure import closure
from pipeline.data.tensors import load_fold
from pipeline.errors import InputError
from pipeline.modelling.interface import prior_logits, task_loss
from pipeline.params import load
from pipeline.tasks import get_task
from pipeline.training import executors
from pipeline.training.run import make_run
from pipeline.training.store import Store, code_fingerprint, data_fingerprint
from tests.support.made_up_data import fabricate
from tests.unit.training.test_training import VARIABLES, grid, silent


@pytest.fixture(scope="session")
def training(root):
    return dataclasses.replace(load(root / "params.yaml").training, device="cpu", checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("fabricated"), n=121)


def history(spec, folder: Path, data: Path):
    made = Store(folder / "work", data_fingerprint(data))
    make_run(spec, made, data, silent)
    return json.loads((made.folder(spec) / "history.json").read_text())


def copy_with(data: Path, folder: Path, name: str, change) -> Path:
    shutil.copytree(data, folder / "data")
    path = folder / "data" / name
    files.write_parquet(change(pl.read_parquet(path)), path)
    return folder / "data"


# --- validation that says little -------------------------------------------------------------------------------------


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


# --- numbers that blow up --------------------------------------------------------------------------------------------


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


# --- what a run is filed under ---------------------------------------------------------------------------------------


def test_every_file_that_a_run_needs_is_in_its_fingerprint_but_those_that_cannot_change_a_result(monkeypatch):
    digest, fingerprint = files.sha256, code_fingerprint.__wrapped__
    before = fingerprint("late_fusion")
    unseen = set()
    for path in closure("pipeline.training.run", "pipeline.strategies.late_fusion"):
        monkeypatch.setattr(files, "sha256", lambda p, path=path: "x" if str(p).endswith(f"/{path}") else digest(p))
        if fingerprint("late_fusion") == before:
            unseen.add(path.as_posix())
    names = ("params", "strict", "errors", "files", "closure", "training/grid", "training/store")
    assert unseen <= {f"pipeline/{name}.py" for name in names}
    assert "pipeline/modelling/registry.py" not in unseen


def test_pretrained_weights_count_by_content_and_not_by_path(tmp_path, training):
    def folder(name):
        chosen = dataclasses.replace(training, pretrained=str(tmp_path / name))
        return Store(tmp_path / "work", "data").folder(grid(chosen)[0])

    (tmp_path / "a.pth").write_bytes(b"weights")
    (tmp_path / "b.pth").write_bytes(b"weights")
    before = folder("a.pth")
    assert folder("b.pth") == before
    (tmp_path / "a.pth").write_bytes(b"other weights")
    assert folder("a.pth") != before


def test_what_finds_runs_in_the_store_does_without_torch(root):
    """A cell whose runs are all made, and the parent of a pool: torch alone takes seconds to import."""
    code = "import sys, stages.train, pipeline.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# --- executors -------------------------------------------------------------------------------------------------------


def test_gpus_are_those_that_the_environment_names_and_none_for_runs_on_the_cpu(monkeypatch):
    monkeypatch.delenv("FUSION_EXECUTOR", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, MIG-7f")
    assert executors._gpus("auto") == ["2", "MIG-7f"]
    assert executors.choice("auto") == ("auto", 2)
    monkeypatch.setattr(executors.os, "sched_getaffinity", lambda _: range(7))
    assert executors.choice("cpu") == ("auto", 7)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert executors.choice("auto") == ("auto", 7)


@pytest.mark.parametrize("wanted", ["cluster", "pool:0", "pool:", "pool:two", "inline:2", ""])
def test_an_executor_that_there_is_not_is_named(monkeypatch, wanted):
    monkeypatch.setenv("FUSION_EXECUTOR", wanted)
    with pytest.raises(InputError, match=f"FUSION_EXECUTOR: '{wanted}' is not auto, inline, pool or pool:N"):
        executors.choice("cpu")


def test_the_bar_ends_full_also_where_a_run_was_resumed_or_stopped_early(training):
    first, second = grid(training)
    bar = executors._Bar([first, second])
    row = {"monitor": "none", "train_loss": 1.0}
    for epoch in (3, 4):  # resumed after epoch 2, ends with its last
        bar.epoch(first, epoch, row)
    bar.finished(first)
    bar.epoch(second, 1, row)  # stops after its first
    bar.finished(second)
    assert (bar.bar.n, bar.bar.total) == (5, 5)
    bar.bar.close()
