"""What the loop asks of a strategy beside its losses: the stays of an epoch, and what its history is to show."""

import dataclasses
import json

import pytest

from pipeline.data.tensors import load_fold
from pipeline.strategies.lstm import LSTM
from pipeline.tasks import get_task
from pipeline.training.cell import history
from pipeline.training.run import make_run, untrained
from pipeline.training.store import Store, data_fingerprint
from tests.support.runs import VARIABLES, grid, silent


@pytest.fixture
def seen(monkeypatch):
    """The stays of every training batch, in order."""
    found = []
    losses = LSTM.losses

    def noting(self, output, batch, targets):
        found.append(batch.index.tolist())
        return losses(self, output, batch, targets)

    monkeypatch.setattr(LSTM, "losses", noting)
    return found


def run(data, folder, training):
    spec = dataclasses.replace(grid(training, "lstm")[0], max_epochs=2)
    store = Store(folder, data_fingerprint(data))
    make_run(spec, store, data, silent)
    return spec, store


def test_an_epoch_is_every_training_stay_once_in_an_order_of_its_own(data, tmp_path, training, seen):
    run(data, tmp_path, training)
    rows = [row for batch in seen for row in batch]
    first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert first != second
    assert sorted(first) == sorted(second) == sorted(set(first))


def test_a_strategy_draws_the_stays_of_an_epoch(data, tmp_path, training, seen, monkeypatch):
    monkeypatch.setattr(LSTM, "draw", lambda self, rows, rng: rows[:1].expand(len(rows)))
    run(data, tmp_path, training)
    assert len({row for batch in seen for row in batch}) == 1


def test_who_draws_too_few_is_told(data, tmp_path, training, monkeypatch):
    monkeypatch.setattr(LSTM, "draw", lambda self, rows, rng: rows[1:])
    with pytest.raises(ValueError, match=r"lstm: draw gives \(\d+,\) rows of \(\d+,\)"):
        run(data, tmp_path, training)


def test_the_history_shows_what_a_strategy_tells_of_an_epoch(data, tmp_path, training, monkeypatch):
    monkeypatch.setattr(
        LSTM, "diagnostics", lambda self: {"norm": float(self.head.weight.detach().norm())}, raising=True
    )
    spec, store = run(data, tmp_path, training)
    shown = history([spec], store)["own_norm"].to_list()
    assert shown == [row["own_norm"] for row in json.loads((store.folder(spec) / "history.json").read_text())]
    assert len(set(shown)) == 2


def test_a_strategy_knows_how_many_stays_there_are(data, training):
    tensors = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar")
    assert untrained(grid(training, "lstm")[0], tensors).shapes.stays == len(tensors.stay_id) == 120
