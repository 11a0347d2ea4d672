"""AUG: losses and assignment by hand, that new layers start afresh, and the ensemble of what is present."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.interface import Epoch
from pipeline.modelling.learning import take_step
from pipeline.modelling.optimiser import AdamW, optimiser_groups
from pipeline.modelling.registry import build
from pipeline.strategies.aug import WAITING
from pipeline.training.loop import Progress, load_checkpoint, save_checkpoint


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("aug", small_shapes(task), {"lr": 1e-3, **hyper})


def give(model, *owners):
    """The first boosters, to these modalities."""
    model.owner[: len(owners)] = torch.tensor(owners)


def given(model):
    return [owner for owner in model.owner.tolist() if owner != WAITING]


def test_classifiers_add_up():
    model = model_of("phenotype").eval()
    give(model, 0, 0)
    f = torch.randn(3, 16)
    with torch.no_grad():
        found = model.classify(f, 0)
        x, head = f.numpy(), model.head

        def layer(w, b):
            hidden = np.maximum(x @ w.numpy() + b.numpy(), 0)
            return hidden @ head.weight.numpy().T + head.bias.numpy()

        first, *boosts = (layer(each.weight.T, each.bias) for each in (model.embed[0], *model.boosters[:2]))
    np.testing.assert_allclose(found["all"].numpy(), first + boosts[0] + boosts[1], atol=1e-5)
    np.testing.assert_allclose(found["before"].numpy(), first + boosts[0], atol=1e-5)
    np.testing.assert_allclose(found["last"].numpy(), boosts[1], atol=1e-5)
    with torch.no_grad():
        assert torch.equal(model.classify(f, 1)["last"], torch.zeros(3, 25))


def naive_loss(model, output, targets, kind, residual):
    """The three terms of the modality `ehr`, sample by sample."""
    total = []
    for i in range(len(targets)):
        keys = {"all": "ehr", "before": "ehr_before", "last": "ehr_last"}
        z = {k: output.unimodal[name][i].detach().numpy().astype(float) for k, name in keys.items()}
        if kind == "multiclass":
            y = int(targets[i, 0])
            p = {k: np.array([np.exp(v[y]) / np.exp(v).sum()]) for k, v in z.items()}
        else:
            y = targets[i].numpy()
            p = {k: np.where(y == 1, 1 / (1 + np.exp(-v)), 1 / (1 + np.exp(v))) for k, v in z.items()}
        terms = -np.log(p["all"]) - np.log(p["before"]) - (1 - residual * p["before"]) * np.log(p["last"])
        total.append(terms.mean())
    return np.mean(total)


@pytest.mark.parametrize(("task", "kind"), [("los", "multiclass"), ("phenotype", "multilabel")])
def test_the_boosted_loss_is_that_of_the_paper(task, kind):
    model = model_of(task).eval()
    give(model, 1, 0, 0, 1)
    batch, targets = example_batch(model.shapes, 5, torch.ones(5).bool()), example_targets(model.shapes, 5)
    output = model(batch)
    found = float(model.losses(output, batch, targets)["ehr"].detach())
    assert found == pytest.approx(naive_loss(model, output, targets, kind, 0.5), abs=1e-5)


def test_a_sure_booster_cannot_push_the_loss_below_zero():
    model = model_of()
    give(model, 0, 1)
    batch = example_batch(model.shapes, 4, torch.ones(4).bool())
    output = model(batch)
    targets = torch.ones(4, 1)
    for logit in (10.0, 40.0, 80.0):
        sure = dataclasses.replace(output, unimodal={key: torch.full((4, 1), logit) for key in output.unimodal})
        losses = model.losses(sure, batch, targets)
        assert losses["ehr"] >= 0
        assert losses["cxr"] >= 0


def sure(model, ehr, cxr, kind="binary"):
    """A forward whose modalities give the truth these probabilities: what assignment sees."""
    logit = torch.logit(torch.tensor([ehr, cxr]))

    def forward(batch):
        sign = 2 * model.shown - 1
        return type("Output", (), {"unimodal": {"ehr": sign * logit[0], "cxr": sign * logit[1]}})

    model.forward = forward


@pytest.mark.parametrize(("ehr", "cxr", "weaker"), [(0.8, 0.6, [1]), (0.6, 0.8, [0]), (0.7, 0.7, [])])
def test_assignment_is_to_the_weaker_modality(ehr, cxr, weaker):
    model = model_of()
    batch = example_batch(model.shapes, 6, torch.tensor([1, 1, 1, 1, 0, 0]).bool())
    model.shown = targets = torch.tensor([[1.0], [0], [0], [0], [1], [1]])
    sure(model, ehr, cxr)
    assert model.ratio(Epoch(1, 10, lambda: [(batch, targets)])) == pytest.approx(ehr / cxr, abs=1e-5)
    model.between_epochs(Epoch(0, 10, lambda: [(batch, targets)]))
    assert given(model) == []  # nothing is learned yet
    model.between_epochs(Epoch(1, 10, lambda: [(batch, targets)]))
    assert given(model) == weaker


def test_checks_come_at_intervals_and_layers_run_out():
    model = model_of(checks=2)
    batch = example_batch(model.shapes, 2, torch.ones(2).bool())
    model.shown = torch.tensor([[1.0], [0]])
    sure(model, 0.9, 0.5)
    seen = []
    for done in range(9):
        model.between_epochs(Epoch(done, 6, lambda: [(batch, model.shown)]))
        seen.append(len(given(model)))
    assert seen == [0, 1, 1, 2, 2, 2, 3, 3, 3]
    model.between_epochs(Epoch(9, 6, lambda: [(batch, model.shown)]))
    assert given(model) == [1, 1, 1]


def training(model):
    """Labelled pairs, and the project's optimiser."""
    batch, targets = example_batch(model.shapes, 8, torch.ones(8).bool()), example_targets(model.shapes, 8)
    return [(batch, targets)], AdamW(optimiser_groups(model, 0.0), lr=1e-2)


def steps(model, optimiser, batches, count):
    """How far each booster's weights have moved, at most, after that many steps."""
    before = [booster.weight.detach().clone() for booster in model.boosters]
    for _ in range(count):
        take_step(model, optimiser, batches)
    return [
        float((booster.weight - start).detach().abs().max())
        for booster, start in zip(model.boosters, before, strict=True)
    ]


def test_a_new_layers_first_step_is_as_long_as_anyones():
    """AdamW's first step is lr; where it has seen zeros in a long training, 0.1 / sqrt(0.001) = 3.2 times as much."""
    model = model_of()
    batches, optimiser = training(model)
    assert steps(model, optimiser, batches, 200) == [0.0] * 11
    assert all(parameter.grad is None for booster in model.boosters for parameter in booster.parameters())
    give(model, 1)
    moved = steps(model, optimiser, batches, 1)
    assert moved[0] == pytest.approx(1e-2, rel=1e-3)
    assert moved[1:] == [0.0] * 10
    give(model, 1, 0)
    assert steps(model, optimiser, batches, 1)[1] == pytest.approx(1e-2, rel=1e-3)


def test_a_run_is_resumed_where_some_boosters_wait(tmp_path):
    """The optimiser's state is then of some parameters alone."""
    whole, resumed = model_of(), model_of(checks=10)
    batches, optimiser = training(whole)
    for model in (whole, resumed):
        model.eval()  # no dropout: both see the same
    steps(whole, optimiser, batches, 3)
    give(whole, 1, 0)
    steps(whole, optimiser, batches, 3)
    save_checkpoint(tmp_path / "c", whole, optimiser, {}, Progress(1, 0, 0.0, []))
    _, other = training(resumed)
    load_checkpoint(tmp_path / "c", resumed, other, torch.device("cpu"))
    for model, each in ((whole, optimiser), (resumed, other)):
        give(model, 1, 0, 1)
        steps(model, each, batches, 3)
    for (key, value), again in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, again), key
    clocks = [float(other.state[booster.weight]["step"]) for booster in resumed.boosters[:3]]
    assert clocks == [6, 6, 3]
    assert not any(booster.weight in other.state for booster in resumed.boosters[3:])


def test_the_ensemble_is_of_what_is_there():
    model = model_of(share_ehr=0.4).eval()
    batch = example_batch(model.shapes, 3, torch.tensor([1, 0, 1]).bool())
    batch = dataclasses.replace(batch, present=torch.tensor([[True, True], [True, False], [False, True]]))
    with torch.no_grad():
        output = model(batch)
        losses = model.losses(output, batch, torch.ones(3, 1))
        ehr, cxr = output.unimodal["ehr"], output.unimodal["cxr"]
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        assert torch.allclose(output.logits[0], 0.4 * ehr[0] + 0.6 * cxr[0])
        assert torch.equal(output.logits[1:], torch.stack([ehr[1], cxr[2]]))
        assert float(losses["cxr"]) == pytest.approx(float(bce(cxr[[0, 2]], torch.ones(2, 1))))


@pytest.mark.parametrize("hyper", [{"share_ehr": 1.5}, {"checks": 0}, {"margin": 2.0}])
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=r"strategies\.aug: "):
        model_of(**hyper)
