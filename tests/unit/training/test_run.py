"""A run: the same bytes whatever happens on the way, and what it leaves."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.modelling.registry import strategy_class
from pipeline.tasks import get_task
from pipeline.training import store as run_store
from pipeline.training.claim import LEASE, LeaseLost, Stopped
from pipeline.training.probe import trained
from pipeline.training.run import make_run
from pipeline.training.store import CHECKPOINT, MADE, Store, data_fingerprint
from tests.support.made_up_data import fabricate
from tests.support.runs import VARIABLES, KilledError, grid, killed_and_resumed, silent


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
    same_bytes(whole, broken, spec)


def same_bytes(one, other, spec):
    for name in MADE:
        assert files.sha256(one.folder(spec) / name) == files.sha256(other.folder(spec) / name), name


def test_a_run_that_is_told_to_stop_does_so_after_its_epoch_and_goes_on_to_the_same_bytes(data, tmp_path, training):
    spec = grid(dataclasses.replace(training, checkpoint_seconds=1e9))[1]  # no checkpoint but the one at the stop
    whole, stopped = Store(tmp_path / "a", data_fingerprint(data)), Store(tmp_path / "b", data_fingerprint(data))
    make_run(spec, whole, data, silent)
    seen = []
    for epochs in (1, 3, 4):  # the fourth is the last
        with pytest.raises(
            Stopped, match=rf"^late_fusion mortality matched fold 0 seed 0: stopped after epoch {epochs}$"
        ):
            make_run(spec, stopped, data, lambda epoch, row: seen.append(epoch), stop=lambda n=epochs: seen[-1] == n)
        assert not stopped.finished(spec)
        assert {path.name for path in stopped.folder(spec).iterdir()} == {"spec.json", CHECKPOINT}
    assert make_run(spec, stopped, data, lambda epoch, row: seen.append(epoch))
    assert seen == [1, 2, 3, 4]
    same_bytes(whole, stopped, spec)


def test_who_does_not_wait_leaves_a_run_and_what_it_needs_to_others(data, tmp_path, training):
    spec, store = grid(training, "gbm_image", max_epochs=1)[0], Store(tmp_path, data_fingerprint(data))
    assert spec.needs
    for each in (*spec.needs.values(), spec):
        with store.claimed(each):
            assert not make_run(spec, store, data, silent, wait=False)
            assert not store.finished(spec)
    assert make_run(spec, store, data, silent, wait=False)
    assert store.finished(spec)


@pytest.mark.parametrize("wait", [True, False])
def test_a_run_that_was_taken_over_ends_at_once_and_who_waits_goes_on_where_it_is_free(
    data, tmp_path, training, monkeypatch, wait
):
    spec = grid(training, max_epochs=2)[1]
    whole, store = Store(tmp_path / "a", data_fingerprint(data)), Store(tmp_path / "b", data_fingerprint(data))
    make_run(spec, whole, data, silent)
    claims, seen = [], []

    @contextlib.contextmanager
    def noted(*arguments, claimed=run_store.claimed):
        with claimed(*arguments) as claim:
            claims.append(claim)
            yield claim

    def report(epoch, row):
        """While we stand still in the first epoch, another machine takes the run over, and dies."""
        seen.append(epoch)
        if len(seen) == 1:
            lease = {"token": "theirs", "owner": "00000000-1-1", "host": "node7", "seconds": 0.1}
            (store.folder(spec) / LEASE).write_text(json.dumps(lease))
            claims[0]._touched -= 2 * claims[0].seconds

    monkeypatch.setattr(run_store, "claimed", noted)
    if wait:
        assert make_run(spec, store, data, report)
        assert seen == [1, 1, 2]  # no checkpoint is written to a folder that is another's
        assert len(claims) == 2
        same_bytes(whole, store, spec)
    else:
        with pytest.raises(LeaseLost):
            make_run(spec, store, data, report, wait=False)
        assert seen == [1]
        assert not store.finished(spec)


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
    killed_and_resumed(spec, broken, data, 3)
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
    chosen = torch.from_numpy(np.flatnonzero((tensors.part == "val") & tensors.pictured))
    batches = Batches(tensors, torch.device("cpu"))
    with torch.inference_mode():
        output = model(batches.gather(chosen))
    for name in ("ehr", "cxr"):
        found = average_precision_score(batches.targets(chosen)[:, 0], output.unimodal[name][:, 0])
        assert best[f"val_auprc_{name}"] == pytest.approx(found, abs=1e-6)


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


@pytest.mark.gpu
def test_a_run_on_the_gpu(data, tmp_path, training):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    spec = grid(dataclasses.replace(training, device="cuda"))[1]
    store = Store(tmp_path, data_fingerprint(data))
    make_run(spec, store, data, silent)
    assert json.loads((store.folder(spec) / "result.json").read_text())["device"] != "cpu"
