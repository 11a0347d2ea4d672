"""AdamW, its groups and its schedule; and the task loss that it goes down."""

import copy
import functools
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.modelling.interface import Shapes
from pipeline.modelling.losses import prior_logits, probabilities, task_loss
from pipeline.modelling.optimiser import AdamW, optimiser_groups, schedule
from pipeline.modelling.registry import build, names
from pipeline.tasks import get_task
from tests.support.small import ENCODERS


def test_adamw_is_torchs_bit_for_bit_through_a_checkpoint():
    def trained(kind):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 1))
        optimiser = kind(model.parameters(), lr=0.01, weight_decay=0.1)
        for step in range(6):
            optimiser.zero_grad()
            model(torch.randn(4, 5)).square().mean().backward()
            optimiser.step()
            if step == 2:
                state = optimiser.state_dict()
                optimiser = kind(model.parameters(), lr=0.5)
                optimiser.load_state_dict(state)
        return [p.detach() for p in model.parameters()]

    torchs_own = functools.partial(torch.optim.AdamW, fused=True)
    for ours, torchs in zip(trained(AdamW), trained(torchs_own), strict=True):
        assert torch.equal(ours, torchs)


@pytest.mark.parametrize("most", [0.05, 50.0])
def test_a_descent_is_a_clipped_step_of_torchs_for_late_starters_and_through_a_checkpoint(most):
    """One layer has its first gradient in the third step, another has none in the fifth; the state goes on."""

    def trained(kind, descend):
        torch.manual_seed(0)
        model = torch.nn.ModuleList(torch.nn.Linear(5, 5) for _ in range(3))

        def optimiser_of():
            groups = [{"params": [each.weight for each in model]}, {"params": [each.bias for each in model]}]
            return kind([*groups, {"params": [torch.nn.Parameter(torch.zeros(2))]}], lr=0.01, weight_decay=0.1)

        optimiser, norms = optimiser_of(), []
        for step in range(8):
            optimiser.zero_grad()
            x = torch.randn(4, 5)
            for number, layer in enumerate(model):
                if (number, step) not in ((1, 0), (1, 1), (2, 4)):
                    x = torch.relu(layer(x)) + x
            x.square().mean().backward()
            descend(optimiser, model)
            norms.append(float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()))
            if step == 5:
                state = copy.deepcopy(optimiser.state_dict())
                optimiser = optimiser_of()
                optimiser.load_state_dict(state)
        return [p.detach() for p in model.parameters()], norms, optimiser.state_dict()["state"]

    def torchs(optimiser, model):
        torch.nn.utils.clip_grad_norm_(model.parameters(), most)
        optimiser.step()

    expected, norms, its_state = trained(functools.partial(torch.optim.AdamW, fused=True), torchs)
    found, ours, state = trained(AdamW, lambda optimiser, _: optimiser.descend(most))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert ours == pytest.approx(norms, rel=1e-5)
    assert max(norms) < 1.001 * most
    assert {key: float(each["step"]) for key, each in state.items()} == {
        key: float(each["step"]) for key, each in its_state.items()
    }
    assert [float(state[key]["step"]) for key in (0, 1, 2)] == [8, 6, 7]


def test_no_strategy_imports_torchs_compiler_in_order_to_train(root):
    """It would cost each train cell 1.6 s."""
    code = """
import sys, torch
from pipeline.params import load
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.registry import build, names
from pipeline.training.loop import train_step
from pipeline.modelling.optimiser import AdamW, optimiser_groups
params = load()
for name in names():
    shapes = small_shapes("mortality")
    model = build(name, shapes, params.strategies[name])
    if isinstance(model, Fitted):
        continue
    optimiser = AdamW(optimiser_groups(model, 0.01), lr=0.001)
    batch, targets = example_batch(shapes, 4, torch.tensor([True, False, True, True])), example_targets(shapes, 4)
    train_step(model, optimiser, batch, targets, params.training, torch.Generator())
    assert "torch._dynamo" not in sys.modules, name
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_schedule_warms_up_and_falls_to_zero():
    factors = [schedule(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] < 0.001


@pytest.mark.parametrize("strategy", names())
def test_every_parameter_is_in_exactly_one_optimiser_group(strategy):
    shapes = Shapes(get_task("phenotype"), 48, tuple(range(27)), 16, ENCODERS)
    model = build(strategy, shapes, {"lr": 1})
    grouped = [id(p) for group in optimiser_groups(model, 0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("strategy", names())
def test_weights_alone_are_decayed(strategy):
    shapes = Shapes(get_task("phenotype"), 48, tuple(range(27)), 16, ENCODERS)
    model = build(strategy, shapes, {"lr": 1})
    key = {id(p): name for name, p in model.named_parameters()}
    decayed, kept = ({key[id(p)] for p in group["params"]} for group in optimiser_groups(model, 0.1))
    assert not [name for name in decayed if "bias" in name]
    assert not [name for name in kept if name.endswith(".weight") and model.get_parameter(name).ndim > 1]


def test_priors_are_the_prevalences():
    task = get_task("phenotype")
    targets = (torch.rand(200, 25, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    targets[:, 0] = 0
    p = probabilities(prior_logits(targets, task)[None], task)[0]
    np.testing.assert_allclose(p[1:], targets.mean(dim=0)[1:], atol=1e-6)
    assert 0 < p[0] < 0.01
    los = get_task("los")
    classes = torch.tensor([[0.0], [0.0], [3.0], [6.0]])
    p = probabilities(prior_logits(classes, los)[None], los)[0]
    assert p[0] > p[3] == p[6] > p[1] > 0


def test_the_task_loss_is_the_textbooks():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(6, 25)), (rng.random((6, 25)) < 0.5).astype(float)
    p = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    assert float(task_loss(torch.tensor(logits), torch.tensor(targets), get_task("phenotype"))) == pytest.approx(
        expected
    )
    logits, classes = rng.normal(size=(5, 7)), rng.integers(0, 7, 5)
    expected = np.mean([np.log(np.exp(row).sum()) - row[c] for row, c in zip(logits, classes, strict=True)])
    found = task_loss(torch.tensor(logits), torch.tensor(classes, dtype=torch.float64)[:, None], get_task("los"))
    assert float(found) == pytest.approx(expected)
