"""forgetting_pal.csv: PAL keeps what came first, descent on the new alone does not, all at once is the yardstick."""

import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.forgetting.pal import auroc, forgetting_pal, of_run
from pipeline.forgetting.tables import JOINT, KEPT, PLAIN
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.registry import build
from pipeline.tasks import get_task
from pipeline.training.cell import train_cell
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.replays import made_up
from tests.support.runs import grid, silent

N = 280


def replay_of(training, task, targets, signal, epochs):
    """PAL whose encoders say a vector [N, 2, 16] of a stay that tells its labels."""
    torch.manual_seed(2)
    model = build("pal", small_shapes(task), {"lr": 1e-3, "expand": 32, "gamma": 0.1}).eval()
    vectors = signal + torch.randn(N, 2, 16)
    model.pooled = lambda batch: vectors[batch.index]
    stays = [(example_batch(model.shapes, N, torch.ones(N).bool()), targets)]
    return made_up(training, model, "pal", task, stays, stays, epochs)


def values_of(rows):
    return {(row["method"], row["phase"], row["group"]): row["value"] for row in rows}


@pytest.fixture(scope="module")
def classes(training):
    torch.manual_seed(3)
    targets = (torch.arange(N) % 7).float()[:, None]
    return list(of_run(replay_of(training, "los", targets, 2 * torch.randn(7, 2, 16)[targets[:, 0].long()], 30)))


def test_old_classes_are_kept_by_the_recursion_lost_by_descent_and_told_by_what_learned_all(classes):
    found = values_of(classes)
    for group in (1, 2, 3):
        assert found[PLAIN, group, group] > 0.9
        assert found[PLAIN, 4, group] < 0.15
        assert found[KEPT, 4, group] > 0.8
        assert found[JOINT, 4, group] > 0.8


def test_classes_are_told_among_those_that_have_arrived(classes):
    last = [row["outputs"] for row in classes if (row["method"], row["phase"]) == (KEPT, 4)]
    assert last == ["1-2", "3-4", "5-6", "7-7"]
    assert {row["metric"] for row in classes} == {"accuracy"}
    assert [(row["phase"], row["group"]) for row in classes if row["method"] == PLAIN] == [
        (phase, group) for phase in range(1, 5) for group in range(1, phase + 1)
    ]
    assert {row["phase"] for row in classes if row["method"] == JOINT} == {4}
    assert values_of(classes)[KEPT, 1, 1] > 0.9  # were the other five among them, a prior alone could win


def test_old_labels_stay_to_the_bit_where_descent_on_new_ones_moves_them(training):
    torch.manual_seed(3)
    targets = (torch.rand(N, 25) < 0.4).float()
    signal = torch.einsum("nk,kud->nud", targets, torch.randn(25, 2, 16))
    rows = list(of_run(replay_of(training, "phenotype", targets, signal, 8)))
    found = values_of(rows)
    assert len(found) == len(rows) == 15 + 15 + 5
    for group in range(1, 6):
        assert len({found[KEPT, phase, group] for phase in range(group, 6)}) == 1
        assert found[JOINT, 5, group] > 0.7
    assert found[PLAIN, 1, 1] > found[PLAIN, 5, 1] + 0.05


def test_after_the_last_phase_it_is_what_the_run_has_predicted(data, tmp_path, training):
    for each in data.iterdir():
        (tmp_path / each.name).symlink_to(each)
    store = Store(tmp_path / "work", data_fingerprint(data))
    specs = [spec for spec in grid(training, "pal", "phenotype", max_epochs=2) if spec.train_cohort == "base"]
    for spec in specs:
        make_run(spec, store, data, silent)
    train_cell(specs, store, tmp_path, tmp_path / "runs/pal")
    found = values_of(forgetting_pal(store, tmp_path, ["phenotype", "mortality"]))
    told = pl.read_parquet(tmp_path / "runs/pal/phenotype/predictions.parquet").filter(part="test")
    told = told.join(pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id")
    labels = get_task("phenotype").labels
    for group in range(1, 6):
        own = [label for label in labels[5 * group - 5 : 5 * group] if told[label].n_unique() == 2]
        assert own
        each = [roc_auc_score(told[label], told[f"p_{label}"]) for label in own]
        assert found[KEPT, 5, group] == pytest.approx(sum(each) / len(each), abs=1e-6)


def test_of_one_class_alone_there_is_no_auroc():
    scores, truth = torch.tensor([0.1, 0.7, 0.4, 0.9]).numpy(), torch.tensor([False, True, True, False]).numpy()
    assert auroc(scores, truth) == pytest.approx(0.5)
    assert auroc(scores, truth & False) is None
