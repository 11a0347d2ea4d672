"""A strategy that learns in steps: equal stretches of the epochs, no early stopping, its answers after each step."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pipeline import files
from pipeline.data.tensors import load_fold
from pipeline.errors import InputError
from pipeline.modelling.interface import stretch
from pipeline.modelling.optimiser import schedule
from pipeline.strategies.lstm import LSTM
from pipeline.tasks import get_task
from pipeline.training import loop
from pipeline.training.run import make_run
from pipeline.training.store import STEPS, Store, data_fingerprint
from tests.support.runs import VARIABLES, grid, killed_and_resumed, silent


@pytest.fixture
def stepped(monkeypatch):
    """LSTM learns in three steps."""
    monkeypatch.setattr(LSTM, "steps", 3)


def spec_of(training, **change):
    return dataclasses.replace(grid(training, "lstm")[0], **{"max_epochs": 7, **change})


def made(spec, folder, data, report=silent):
    store = Store(folder, data_fingerprint(data))
    make_run(spec, store, data, report)
    return store.folder(spec)


def rows_of(folder):
    return json.loads((folder / "history.json").read_text())


def test_stretches_are_as_equal_as_they_can_be_and_cover_all_epochs():
    found = [stretch(done, 7, 3) for done in range(8)]
    assert found == [(0, 0, 3)] * 3 + [(1, 3, 5)] * 2 + [(2, 5, 7)] * 3  # after the last epoch it is still the last
    assert {stretch(done, 7, 1) for done in range(8)} == {(0, 0, 7)}
    for count in range(1, 20):
        for steps in range(1, count + 1):
            each = [stretch(done, count, steps) for done in range(count)]
            assert [one.number for one in each] == sorted(one.number for one in each)
            assert {one.number for one in each} == set(range(steps))
            assert all(one.first <= done < one.end for done, one in enumerate(each))


def test_what_is_answered_after_each_step_is_filed(data, tmp_path, training, stepped, monkeypatch):
    """Of the weights as they were then, for the stays of predictions.safetensors; the last are the predictions."""
    answers, spec = {}, spec_of(training)
    tensors = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar")
    rows = torch.from_numpy(np.flatnonzero(tensors.part != "train"))
    validate = loop.validate

    def noting(strategy, batches, val, spec, task):
        answers[len(answers) + 1] = loop.logits_of(strategy, batches, rows, spec).numpy()  # after each epoch
        return validate(strategy, batches, val, spec, task)

    monkeypatch.setattr(loop, "validate", noting)
    folder = made(spec, tmp_path, data)
    filed, predicted = load_file(folder / STEPS), load_file(folder / "predictions.safetensors")
    np.testing.assert_array_equal(filed["logits"], np.stack([answers[epoch] for epoch in (3, 5, 7)]))
    np.testing.assert_array_equal(filed["stay_id"], predicted["stay_id"])
    np.testing.assert_allclose(1 / (1 + np.exp(-filed["logits"][-1])), predicted["p"], atol=1e-6)
    assert np.abs(filed["logits"][0] - filed["logits"][1]).max() > 1e-4


def test_the_learning_rate_starts_anew_with_each_step(data, tmp_path, training, stepped):
    spec = spec_of(training)
    batches = -(-int((load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar").part == "train").sum()) // 16)
    lengths = [3, 3, 3, 2, 2, 2, 2]
    places = [1, 2, 3, 1, 2, 1, 2]  # epochs of the step that are done
    wanted = [
        0.003 * schedule(place * batches - 1, length * batches, training.warmup_share)
        for place, length in zip(places, lengths, strict=True)
    ]
    assert [row["lr"] for row in rows_of(made(spec, tmp_path, data))] == pytest.approx(wanted, rel=0, abs=1e-9)


@pytest.mark.parametrize("steps", [1, 3])
def test_only_who_has_one_step_stops_early_and_is_chosen_by_validation(data, tmp_path, training, monkeypatch, steps):
    monkeypatch.setattr(LSTM, "steps", steps)
    falling = iter(np.linspace(0.9, 0.1, 9))
    monkeypatch.setattr(loop, "validate", lambda *given: {"val_loss": 0.5, "val_auprc": float(next(falling))})
    spec = spec_of(dataclasses.replace(training, least_share=0.0), patience=2)
    folder = made(spec, tmp_path, data)
    rows = rows_of(folder)
    chosen = [(row["epoch"], row["monitor"]) for row in rows if row["best"]]
    assert (len(rows), chosen) == ((3, [(1, "val_auprc")]) if steps == 1 else (7, [(7, "none")]))
    assert (folder / STEPS).is_file() == (steps > 1)


@pytest.mark.parametrize("at", [2, 3, 4, 7])
def test_a_killed_run_goes_on_to_the_same_answers(data, tmp_path, training, stepped, at):
    """Killed within a step, and when one has just ended: its checkpoint is then of the epoch before."""
    spec, store = spec_of(training), Store(tmp_path / "killed", data_fingerprint(data))
    killed_and_resumed(spec, store, data, at)
    whole = made(spec, tmp_path / "whole", data)
    assert files.sha256(store.folder(spec) / STEPS) == files.sha256(whole / STEPS)
    assert rows_of(store.folder(spec)) == rows_of(whole)


def test_fewer_epochs_than_steps_are_refused(data, tmp_path, training, stepped):
    with pytest.raises(InputError) as caught:
        made(spec_of(training, max_epochs=2), tmp_path, data)
    assert str(caught.value) == "lstm mortality base fold 0 seed 0: max_epochs is 2, its steps are 3"
