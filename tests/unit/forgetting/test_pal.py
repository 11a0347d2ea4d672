"""forgetting_pal.csv: PAL keeps what came first, descent on the new alone does not, all at once is the yardstick."""

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.cells import read_people
from pipeline.evaluation.scores import Sampler
from pipeline.forgetting.pal import _rows, forgetting_pal, of_run
from pipeline.forgetting.tables import JOINT, KEPT, PLAIN, over_runs
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
    return {(row["method"], row["phase"], row["group"]): row["value"][0] for row in rows if row["group"]}


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
    assert last == ["1-2", "3-4", "5-6", "7-7", "mean"]
    assert {row["metric"] for row in classes} == {"accuracy"}
    assert [(row["phase"], row["group"]) for row in classes if row["method"] == PLAIN and row["group"]] == [
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
    assert len(found) == len(rows) - 11 == 15 + 15 + 5  # and the means after each phase
    for group in range(1, 6):
        assert len({found[KEPT, phase, group] for phase in range(group, 6)}) == 1
        assert found[JOINT, 5, group] > 0.7
    assert found[PLAIN, 1, 1] > found[PLAIN, 5, 1] + 0.05
    lost = over_runs(rows, "forgetting_pal", 0.25, 0.95).filter(phase=5, group=1).select("method", pl.col("^value_.*$"))
    kept, plain, joint = lost.rows()
    assert kept == (KEPT, 0.0, None, None)
    assert joint == (JOINT, None, None, None)
    assert plain[2] > 0  # the interval of what was lost
    assert plain[1] == pytest.approx(found[PLAIN, 1, 1] - found[PLAIN, 5, 1])


@pytest.mark.parametrize(("task", "metric"), [("phenotype", "auroc"), ("los", "accuracy")])
def test_the_interval_of_what_was_lost_is_that_of_the_difference_in_each_draw_of_subjects(training, task, metric):
    """Both scores anew, draw by draw, stays weighted by their subject: the loss ± 1.96 standard deviations."""
    torch.manual_seed(4)
    outputs = len(get_task(task).outputs)
    truth = torch.rand(N, 25) < 0.4 if task == "phenotype" else torch.randint(0, 7, (N, 1))
    one_hot = truth if task == "phenotype" else truth == torch.arange(7)
    phases = [signal * one_hot + torch.randn(N, outputs) for signal in (1.0, 0.6)]
    replay, learned, rows = replay_of(training, task, truth.float(), torch.zeros(2, 16), 1), {}, []
    for phase, answers in enumerate(phases, 1):
        rows += _rows(replay, replay.strategy, PLAIN, phase, answers, truth.float(), learned)
    weights = np.concatenate(replay.draws.blocks, axis=1)[replay.at]
    first, second = replay.strategy.groups[:2]

    def score(answers, group, weight, through):
        if metric == "accuracy":
            own = ((truth[:, 0] >= group.start) & (truth[:, 0] < group.stop)).numpy()
            right = (answers[:, : through.stop].argmax(dim=1) == truth[:, 0]).numpy()
            return np.average(right[own], weights=weight[own])
        labels = range(group.start, group.stop)
        return np.mean([roc_auc_score(truth[:, k], answers[:, k], sample_weight=weight) for k in labels])

    pairs = [(score(phases[0], first, w, first), score(phases[1], first, w, second)) for w in weights.T]
    lost = np.array([then - now for then, now in pairs])
    table = over_runs(rows, "forgetting_pal", 0.25, 0.95)
    found = table.filter(phase=2, group=1).row(0, named=True)
    spread = 1.959964 * lost[1:].std(ddof=1)
    assert (found["metric"], found["outputs"]) == (metric, f"1-{first.stop}")
    assert found["value"] == pytest.approx(pairs[0][1])
    told = [found[f"value_lost{bound}"] for bound in ("", "_low", "_high")]
    assert told == pytest.approx([lost[0], lost[0] - spread, lost[0] + spread])
    mean = table.filter(phase=2, group=0).row(0, named=True)
    assert (mean["outputs"], mean["value_lost"]) == ("mean", pytest.approx(lost[0] / 2))  # the second has lost nothing
    assert mean["value_lost_low"] == pytest.approx((lost[0] - spread) / 2)
    assert mean["value"] == pytest.approx((found["value"] + score(phases[1], second, weights[:, 0], second)) / 2)


def test_of_classes_that_a_handful_of_stays_have_nothing_is_told(training):
    torch.manual_seed(5)
    truth = torch.full((N, 1), 0.0)
    truth[:9] = 2.0
    replay = replay_of(training, "los", truth, torch.zeros(2, 16), 1)
    rows = list(_rows(replay, replay.strategy, KEPT, 2, torch.randn(N, 7), truth, {}))
    assert ["value" in row for row in rows] == [True, False, True]
    assert rows[2]["value"].tolist() == rows[0]["value"].tolist()


def test_after_the_last_phase_it_is_what_the_run_has_predicted(data, tmp_path, training):
    for each in data.iterdir():
        (tmp_path / each.name).symlink_to(each)
    store = Store(tmp_path / "work", data_fingerprint(data))
    specs = [spec for spec in grid(training, "pal", "phenotype", max_epochs=2) if spec.train_cohort == "base"]
    for spec in specs:
        make_run(spec, store, data, silent)
    train_cell(specs, store, tmp_path, tmp_path / "runs/pal")
    sampler = Sampler(read_people(data, [], [0]), 5, 1)
    found = values_of(forgetting_pal(store, tmp_path, ["phenotype", "mortality"], sampler))
    told = pl.read_parquet(tmp_path / "runs/pal/phenotype/predictions.parquet").filter(part="test")
    told = told.join(pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id")
    labels = get_task("phenotype").labels
    for group in range(1, 6):
        own = [label for label in labels[5 * group - 5 : 5 * group] if told[label].n_unique() == 2]
        assert own
        each = [roc_auc_score(told[label], told[f"p_{label}"]) for label in own]
        assert found[KEPT, 5, group] == pytest.approx(sum(each) / len(each), abs=1e-6)
