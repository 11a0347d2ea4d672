"""InfoReg: its window and hold by hand, that the stronger encoder alone is slowed, that pairs alone are compared."""

import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.interface import Epoch
from pipeline.modelling.losses import truth
from pipeline.modelling.optimiser import AdamW
from pipeline.modelling.registry import build


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("inforeg", small_shapes(task), {"lr": 1e-3, **hyper})


def test_truth_is_the_probability_of_what_is_true():
    logits, targets = torch.randn(3, 4), torch.tensor([[1.0, 0, 1, 0]] * 3)
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = np.where(targets.numpy() == 1, p, 1 - p).mean(axis=1)
    np.testing.assert_allclose(truth(logits, targets, "multilabel").numpy(), expected, atol=1e-6)
    classes = torch.tensor([[2.0], [0], [3]])
    z = np.exp(logits.numpy())
    expected = [z[i, int(classes[i])] / z[i].sum() for i in range(3)]
    np.testing.assert_allclose(truth(logits, classes, "multiclass").numpy(), expected, atol=1e-6)


def test_growth_compares_two_windows():
    model = model_of(window=3)
    assert model.window_growth().tolist() == [1, 1]
    traces = [4.0, 5.0, 1.0, 2.0, 6.0]
    for done, trace in enumerate(traces, start=1):
        model.fisher.copy_(torch.tensor([trace, 1.0]))
        model.between_epochs(Epoch(done, 9, list))
        padded = [0.0] * 4 + traces[:done]
        now, before = sum(padded[-3:]) / 3, sum(padded[-4:-1]) / 3
        assert float(model.window_growth()[0]) == pytest.approx((now - before) / now, abs=1e-6)
    assert float(model.window_growth()[1]) == 0  # a trace that stands still


@pytest.mark.parametrize(("gap", "slowed"), [(1.5, "ehr"), (-0.5, "cxr"), (0.0, None)])
def test_the_stronger_encoder_alone_is_pulled_back_to_the_epochs_start(gap, slowed):
    model = model_of(hold_ehr=0.95, hold_cxr=0.1)
    batch = example_batch(model.shapes, 4, torch.ones(4).bool())
    start = {key: value.detach().clone() for key, value in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    sum(model.losses(model(batch), batch, example_targets(model.shapes, 4)).values()).backward()
    model.gap.fill_(gap)
    before = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    stood = {key: value.detach().clone() for key, value in model.named_parameters()}
    model.after_backward()
    strength = {"ehr": 0.95, "cxr": 0.1}
    for key, parameter in model.named_parameters():
        if key not in before:
            continue
        name = {"series": "ehr", "image": "cxr"}.get(key.split(".")[0])
        beta = strength[name] * math.exp(math.tanh(abs(gap))) if name is not None and name == slowed else 0.0
        expected = stood[key] - 0.02 * beta * (stood[key] - start[key])
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-7, rtol=0)
        assert torch.equal(parameter.grad, before[key]), key
    fisher = sum(float(g.square().mean()) for k, g in before.items() if k.startswith("series."))
    assert float(model.fisher[0]) == pytest.approx(fisher, rel=1e-4)


def distance_gone(hold, open_window=True):
    model = model_of(hold_ehr=hold)
    model.eval()  # no dropout: both runs see the same
    if not open_window:
        model.history.fill_(1.0)
    batch = example_batch(model.shapes, 8, torch.ones(8).bool())
    targets = example_targets(model.shapes, 8)
    model.between_epochs(Epoch(0, 5, list))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        optimiser.zero_grad()
        sum(model.losses(model(batch), batch, targets).values()).backward()
        model.gap.fill_(1.0)  # the EHR leads
        model.after_backward()
        optimiser.step()
    now = torch.nn.utils.parameters_to_vector(model.series.parameters())
    return float((now - model.start_ehr).detach().norm())


def left_of_the_movement(steps, optimiser, lead, pull=None):
    """How far a steady gradient carries the series' encoder with the hold, as a share of how far without it."""
    distance = []
    for held in (True, False):
        model = model_of()
        model.between_epochs(Epoch(0, 5, list))
        model.gap.fill_(lead if held else 0.0)
        parameters = list(model.series.parameters())
        start = [p.detach().clone() for p in parameters]
        descent = optimiser(parameters)
        for _ in range(steps):
            for p, at in zip(parameters, start, strict=True):
                p.grad = torch.full_like(p, 1e-3) + (pull * (p.detach() - at) if pull and held else 0.0)
            if not pull:
                model.after_backward()
            descent.step()
        distance.append(sum(float((p.detach() - at).square().sum()) for p, at in zip(parameters, start, strict=True)))
    return math.sqrt(distance[0] / distance[1])


@pytest.mark.parametrize("steps", [100, 200, 400])  # of an epoch; in fewer the lag of their momentum shows
@pytest.mark.parametrize("lead", [0.1, 2.0])
def test_what_the_hold_leaves_of_the_movement_is_what_it_leaves_under_the_authors_optimiser(steps, lead):
    ours = left_of_the_movement(steps, lambda parameters: AdamW(parameters, lr=1e-3, weight_decay=0.0), lead)
    beta = 0.95 * math.exp(math.tanh(lead))
    theirs = left_of_the_movement(steps, lambda p: torch.optim.SGD(p, lr=0.002, momentum=0.9), lead, beta)
    assert ours == pytest.approx(theirs, abs=0.06)


def test_the_stronger_one_is_slowed_inside_the_window_alone():
    free = distance_gone(0.0)
    assert distance_gone(2.0) < 0.8 * free
    assert distance_gone(2.0, open_window=False) == pytest.approx(free)


def test_the_gap_sees_pairs_alone_and_the_images_loss_present_ones():
    model = model_of().train()
    batch = example_batch(model.shapes, 4, torch.tensor([1, 0, 1, 0]).bool())
    targets = example_targets(model.shapes, 4)
    output = model(batch)
    losses = model.losses(output, batch, targets)
    with torch.no_grad():
        ehr, cxr = (truth(output.unimodal[key], targets, "binary") for key in ("ehr", "cxr"))
        p = torch.nn.functional.binary_cross_entropy_with_logits(output.unimodal["cxr"][[0, 2]], targets[[0, 2]])
    assert float(model.gap) == pytest.approx(float((ehr - cxr)[[0, 2]].sum()), abs=1e-6)
    assert float(losses["cxr"].detach()) == pytest.approx(float(p), abs=1e-6)
    none = example_batch(model.shapes, 4, torch.zeros(4).bool())
    model.losses(model(none), none, targets)
    assert float(model.gap) == 0
    assert model.held().tolist() == [0, 0]


def test_a_missing_image_is_the_learned_vector():
    model = model_of().eval()
    batch = example_batch(model.shapes, 2, torch.tensor([True, False]))
    with torch.no_grad():
        before = model(batch).logits
        model.absent += 1
        after = model(batch).logits
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("hyper", [{"hold_ehr": -1.0}, {"window": 0}])
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=r"strategies\.inforeg: "):
        model_of(**hyper)
