"""The loop, the run store and the executors: the same bytes whatever happens on the way."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.errors import InputError
from pipeline.mimic.variables import load_variables
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.registry import names, strategy_class
from pipeline.params import Training, TrainingScale, load
from pipeline.tasks import get_task
from pipeline.training.cell import train_cell
from pipeline.training.grid import KEY, runs
from pipeline.training.probe import trained
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint, work_folder
from tests.support.made_up_data import fabricate
from tests.support.processes import at_work_in, wait_until
from tests.support.small import ENCODERS

SCALE = TrainingScale(
    cohorts=("base", "matched"), folds=(0,), seeds=(0,), train_missing=(0.0,), batch_size=16, max_epochs=4, patience=9
)
VARIABLES = load_variables("core")


@pytest.fixture(scope="session")
def training(root) -> Training:
    return dataclasses.replace(load(root / "params.yaml").training, device="cpu", checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("fabricated"), n=120)


def grid(training, strategy="late_fusion", task="mortality", **scale):
    return runs(
        strategy,
        task,
        hyper={} if issubclass(strategy_class(strategy), Fitted) else {"lr": 0.003},
        tier="core",
        training=training,
        encoders=ENCODERS,
        scale=dataclasses.replace(SCALE, **scale),
    )


def silent(epoch, row):
    pass


# --- a run -----------------------------------------------------------------------------------------------------------


class KilledError(Exception):
    """Stands for a power cut."""


def test_a_run_killed_after_any_epoch_goes_on_to_the_same_bytes(data, tmp_path, training):
    spec = grid(training)[1]
    whole, broken = Store(tmp_path / "a", data_fingerprint(data)), Store(tmp_path / "b", data_fingerprint(data))
    make_run(spec, whole, data, silent)
    for stop in (1, 2, 3):

        def killed(epoch, row, stop=stop):
            # a checkpoint of this epoch is not yet written: the epoch is lost, its predecessors are not
            if epoch == stop + 1:
                raise KilledError

        with pytest.raises(KilledError):
            make_run(spec, broken, data, killed)
        assert not broken.finished(spec)
        assert (broken.folder(spec) / "checkpoint.safetensors").is_file()
    seen = []
    make_run(spec, broken, data, lambda epoch, row: seen.append(epoch))
    assert seen == [4]
    for name in ("predictions.safetensors", "weights.safetensors", "history.json"):
        assert files.sha256(whole.folder(spec) / name) == files.sha256(broken.folder(spec) / name), name


class Counts(strategy_class("lstm")):
    """Shifts its logits by what it has counted between epochs, and by how many steps had gradients."""

    def __init__(self, shapes):
        super().__init__(shapes)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, batch):
        output = super().forward(batch)
        return dataclasses.replace(output, logits=output.logits + 0.01 * self.seen.sum())

    def between_epochs(self, epoch):
        batches = list(epoch.batches())
        noise = torch.rand(())  # drawn from the run's own streams
        self.seen += torch.tensor([1.0, sum(len(targets) for _, targets in batches), 0.0]) * noise
        assert not torch.is_grad_enabled()
        assert not self.training

    def after_backward(self):
        self.seen[2] += float(self.head.weight.grad is not None)


def test_what_a_strategy_keeps_between_epochs_is_resumed_to_the_same_bytes(data, tmp_path, training, monkeypatch):
    monkeypatch.setattr("pipeline.training.run.build", lambda name, shapes, hyper: Counts(shapes))
    spec = grid(training, "lstm")[1]
    whole, broken = Store(tmp_path / "a", data_fingerprint(data)), Store(tmp_path / "b", data_fingerprint(data))
    make_run(spec, whole, data, silent)

    def killed(epoch, row):
        if epoch == 3:
            raise KilledError

    with pytest.raises(KilledError):
        make_run(spec, broken, data, killed)
    make_run(spec, broken, data, silent)
    one, other = (load_file(store.folder(spec) / "weights.safetensors") for store in (whole, broken))
    assert (one["seen"] > 0).all()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def test_a_run_of_the_tier_plus_and_none_on_values_of_another_tier(data, tmp_path, training):
    spec = dataclasses.replace(grid(training, max_epochs=1)[0], tier="plus")
    plus = fabricate(tmp_path / "data", n=60, tier="plus")
    store = Store(tmp_path / "work", data_fingerprint(plus))
    make_run(spec, store, plus, silent)
    assert store.finished(spec)
    with pytest.raises(ValueError, match="values have 27 variables, the tier has 84"):
        make_run(spec, Store(tmp_path / "other", data_fingerprint(data)), data, silent)


def test_a_finished_run_is_not_made_again(data, tmp_path, training):
    spec, store = grid(training)[0], Store(tmp_path, data_fingerprint(data))
    make_run(spec, store, data, silent)

    def never(epoch, row):
        raise AssertionError("trained again")

    make_run(spec, store, data, never)


@pytest.mark.parametrize("strategy", names())
@pytest.mark.parametrize("task", ["mortality", "phenotype", "los"])
def test_predictions_are_probabilities_of_all_val_test_and_dev_stays(data, tmp_path, training, strategy, task):
    specs = grid(training, strategy, task, max_epochs=1)
    store = Store(tmp_path / "work", data_fingerprint(data))
    for spec in specs:
        make_run(spec, store, data, silent)
    train_cell(specs, store, data, tmp_path / "out")
    frame = pl.read_parquet(tmp_path / "out" / task / "predictions.parquet")
    splits = pl.read_parquet(data / "splits.parquet").filter((pl.col("fold") == 0) & (pl.col("part") != "train"))
    for cohort in ("base", "matched"):
        rows = frame.filter(pl.col("train_cohort") == cohort).sort("stay_id")
        assert rows["stay_id"].to_list() == splits.sort("stay_id")["stay_id"].to_list()
        assert rows["part"].to_list() == splits.sort("stay_id")["part"].to_list()
    p = frame.select(pl.col("^p_.*$")).to_numpy().astype(float)
    assert p.shape[1] == len(get_task(task).outputs)
    assert ((p >= 0) & (p <= 1)).all()
    if task == "los":
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    history = pl.read_csv(tmp_path / "out" / task / "history.csv")
    assert set(KEY) <= set(history.columns)
    assert history.group_by("train_cohort").agg(pl.col("best").sum())["best"].to_list() == [1, 1]


@pytest.mark.parametrize("strategy", ["late_average", "inforeg", "drfuse", "aug", "lstm", "gbm"])
def test_histories_hold_what_each_modality_alone_answers_on_stays_with_an_image(data, tmp_path, training, strategy):
    """Recomputed for the epoch whose weights were kept, with scikit-learn."""
    spec, store = grid(training, strategy, "mortality")[0], Store(tmp_path, data_fingerprint(data))
    make_run(spec, store, data, silent)
    rows = json.loads((store.folder(spec) / "history.json").read_text())
    best = next(row for row in rows if row["best"])
    if strategy in ("lstm", "gbm"):
        assert best["val_auprc_ehr"] is best["val_auprc_cxr"] is None
        return
    tensors = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar")
    model = trained(spec, store, tensors, torch.device("cpu"))
    chosen = torch.from_numpy(np.flatnonzero((tensors.part == "val") & (tensors.image_row >= 0)))
    batches = Batches(tensors, torch.device("cpu"))
    with torch.inference_mode():
        output = model(batches.gather(chosen))
    for name in ("ehr", "cxr"):
        found = average_precision_score(batches.targets(chosen)[:, 0], output.unimodal[name][:, 0])
        assert best[f"val_auprc_{name}"] == pytest.approx(found, abs=1e-6)


def test_a_cxr_model_predicts_the_training_prevalence_where_there_is_no_image(data, tmp_path, training):
    spec, store = grid(training, "resnet", "phenotype")[0], Store(tmp_path, data_fingerprint(data))
    make_run(spec, store, data, silent)
    train_cell([spec], store, data, tmp_path / "out")
    frame = pl.read_parquet(tmp_path / "out/phenotype/predictions.parquet")
    without = frame.join(pl.read_parquet(data / "cohort/stays.parquet").filter(~pl.col("has_cxr")), on="stay_id")
    train = pl.read_parquet(data / "splits.parquet").filter((pl.col("fold") == 0) & (pl.col("part") == "train"))
    labels = pl.read_parquet(data / "cohort/labels.parquet").join(train, on="stay_id")
    for slug in get_task("phenotype").labels:
        assert without[f"p_{slug}"].n_unique() == 1
        assert without[f"p_{slug}"][0] == pytest.approx(labels[slug].mean(), abs=1e-5)


def test_removing_training_images_changes_the_model_and_only_the_matched_cohort(data, tmp_path, training):
    removal = {"train_missing": (0.0, 0.5), "train_mechanisms": ("mcar", "mar")}
    specs = grid(training, "late_fusion", "phenotype", **removal)
    assert [(s.train_cohort, s.train_missing, s.train_mechanism) for s in specs] == [
        ("base", 0.0, "none"),
        ("matched", 0.0, "none"),
        ("matched", 0.5, "mcar"),
        ("matched", 0.5, "mar"),
    ]
    store = Store(tmp_path, data_fingerprint(data))
    for spec in specs[1:]:
        make_run(spec, store, data, silent)
    assert len({files.sha256(store.folder(spec) / "predictions.safetensors") for spec in specs[1:]}) == 3


def test_a_diverging_run_is_one_line_that_names_its_learning_rate(data, tmp_path, training):
    spec = dataclasses.replace(grid(training, "lstm")[0], hyper={"lr": 1e30})
    with pytest.raises(InputError, match=r"lstm mortality base fold 0 seed 0: .*lower strategies\.lstm\.lr"):
        make_run(spec, Store(tmp_path, data_fingerprint(data)), data, silent)


# --- the store -------------------------------------------------------------------------------------------------------


def test_a_run_is_filed_under_what_it_is_a_function_of(data, tmp_path, training):
    store = Store(tmp_path, "data")
    spec = grid(training)[0]
    folder = store.folder(spec)
    assert store.folder(dataclasses.replace(spec, hyper={"lr": 0.1})) != folder
    assert store.folder(dataclasses.replace(spec, seed=1)) != folder
    assert store.folder(dataclasses.replace(spec, encoders=dataclasses.replace(ENCODERS, width=16))) != folder
    assert Store(tmp_path, "other data").folder(spec) != folder
    often = dataclasses.replace(training, checkpoint_seconds=99.0)
    assert store.folder(dataclasses.replace(spec, training=often)) == folder


def test_the_data_fingerprint_sees_every_packed_file(tmp_path):
    from pipeline.data.tensors import FILES

    data = fabricate(tmp_path, n=40)
    before = data_fingerprint(data)
    for name in FILES:
        content = (data / name).read_bytes()
        (data / name).write_bytes(content + b"x")
        assert data_fingerprint(data) != before, name
        (data / name).write_bytes(content)
    assert data_fingerprint(data) == before


def test_copies_that_dvc_makes_find_the_projects_run_store(tmp_path, monkeypatch):
    monkeypatch.delenv("FUSION_WORK", raising=False)
    copy = tmp_path / "project/.dvc/tmp/exps/tmp1234"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert work_folder() == tmp_path / "project/work"
    monkeypatch.chdir(tmp_path / "project")
    assert work_folder() == tmp_path / "project/work"
    monkeypatch.setenv("FUSION_WORK", str(tmp_path / "elsewhere"))
    assert work_folder() == tmp_path / "elsewhere"


# --- executors -------------------------------------------------------------------------------------------------------

CELL = """
import sys
from pathlib import Path
from tests.unit.training.test_training import grid, SCALE
from pipeline.params import load
from pipeline.training.cell import train_cell
from pipeline.training.store import Store, data_fingerprint
import dataclasses
if __name__ == "__main__":
    data, work, out = map(Path, sys.argv[1:])
    training = dataclasses.replace(load().training, device="cpu", checkpoint_seconds=0.0)
    specs = grid(training, "late_fusion", "mortality", seeds=(0, 1))
    train_cell(specs, Store(work, data_fingerprint(data)), data, out)
"""


def cell(root, folder, data, work, out, executor):
    script = folder / "cell.py"
    script.write_text(CELL)
    environment = {**os.environ, "PYTHONPATH": str(root), "FUSION_EXECUTOR": executor, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), str(data), str(work), str(out)],
        cwd=root,
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_kill_9_in_a_pool_loses_nothing_and_leaves_no_orphan(root, data, tmp_path):
    assert cell(root, tmp_path, data, tmp_path / "whole", tmp_path / "a", "inline").wait() == 0
    process = cell(root, tmp_path, data, tmp_path / "killed", tmp_path / "b", "pool:2")
    assert wait_until(lambda: list((tmp_path / "killed").glob("runs/*/result.json")), 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: not at_work_in(tmp_path / "killed"))
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob("runs/*/result.json")}
    assert 1 <= len(finished) < 4
    assert not (tmp_path / "b").exists()
    assert cell(root, tmp_path, data, tmp_path / "killed", tmp_path / "b", "pool:2").wait() == 0
    for name in ("predictions.parquet", "history.csv"):
        assert files.sha256(tmp_path / "a" / name) == files.sha256(tmp_path / "b" / name)
    assert {p: p.stat().st_mtime_ns for p in finished} == finished


def test_a_worker_of_a_pool_imports_next_to_nothing_of_torch_of_its_own(root, data, tmp_path):
    """The server that it is forked from has it all; and that does without torch's compiler: two seconds a cell."""
    code = """
import importlib, sys
from pathlib import Path
from pipeline.params import load
from pipeline.training.executors import PRELOAD
from pipeline.training.store import Store
from tests.unit.training.test_training import grid
import filelock, safetensors.numpy
(spec, _) = grid(load().training, "transformer", max_epochs=1)
for name in PRELOAD:
    importlib.import_module(name)
before = set(sys.modules)
from pipeline.training.run import make_run
make_run(spec, Store(Path(sys.argv[2]), "any"), Path(sys.argv[1]), lambda *_: None)
late = {name for name in set(sys.modules) - before if name.split(".")[0] in ("torch", "sympy", "mpmath")}
late |= {"torch._dynamo"} & set(sys.modules)
print(sorted(late))
sys.exit(len(late) > 8 or "torch._dynamo" in late)
"""
    command = [sys.executable, "-c", code, str(data), str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_that_another_process_has_claimed_is_waited_for(data, tmp_path, training):
    import threading

    spec, store = grid(training, "transformer", max_epochs=1)[0], Store(tmp_path, data_fingerprint(data))
    done = threading.Event()

    def second():
        make_run(spec, store, data, silent)
        done.set()

    with store.claimed(spec):
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.5)
    assert done.wait(30)
    thread.join()
    assert store.finished(spec)


def test_an_unknown_executor_is_named(data, tmp_path, training, monkeypatch):
    monkeypatch.setenv("FUSION_EXECUTOR", "cluster")
    with pytest.raises(InputError, match="FUSION_EXECUTOR: 'cluster'"):
        train_cell(grid(training), Store(tmp_path, data_fingerprint(data)), data, tmp_path / "out")


def test_a_batch_holds_the_images_that_are_there_and_no_others(data):
    tensors = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar")
    batches = Batches(tensors, torch.device("cpu"))
    rows = torch.arange(40)
    batch = batches.gather(rows)
    has = tensors.image_row[:40] >= 0
    assert batch.present[:, 1].tolist() == has.tolist()
    assert batch.image_sample.tolist() == np.flatnonzero(has).tolist()
    for image, row in zip(batch.images, tensors.image_row[:40][has], strict=True):
        np.testing.assert_allclose(image[0] * 255, tensors.pixels[row], atol=1e-4)
    removed = torch.from_numpy(tensors.removed_at < 0.5)
    some = batches.gather(rows, removed)
    assert 0 < len(some.images) < len(batch.images)
    assert not some.present[removed[rows], 1].any()
    assert len(batches.gather(rows, torch.ones(len(has) * 3, dtype=torch.bool)[: len(tensors.stay_id)]).images) == 0


@pytest.mark.gpu
def test_a_run_on_the_gpu(data, tmp_path, training):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    spec = dataclasses.replace(grid(training)[1], training=dataclasses.replace(training, device="cuda"))
    store = Store(tmp_path, data_fingerprint(data))
    make_run(spec, store, data, silent)
    assert json.loads((store.folder(spec) / "result.json").read_text())["device"] != "cpu"
