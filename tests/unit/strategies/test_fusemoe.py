"""FuseMoE: layer, gates and losses by hand; a far token is routed flatly, and each modality's router minds its own."""

import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.experts import Router
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_images
from pipeline.strategies.fusemoe import MixtureLayer, entropy

GATES = {
    "softmax": lambda x, w: x @ w,
    "laplace": lambda x, w: -np.sqrt(((x - w) ** 2).sum()),
    "gaussian": lambda x, w: -((x - w) ** 2).sum(),
}


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("fusemoe", small_shapes(task, 32), {"lr": 1e-3, "experts": 4, "patches": 4, **hyper}).eval()


def batch_of(model, with_image=(1, 0, 1, 1, 0, 1)):
    return example_batch(model.shapes, len(with_image), torch.tensor(with_image).bool())


@pytest.mark.parametrize("kind", list(GATES))
@torch.no_grad()
def test_a_gate_is_a_softmax_over_the_best_logits(kind):
    torch.manual_seed(1)
    router, tokens = Router(8, 5, 2, kind).eval(), torch.randn(6, 8)
    logits, gates, load = router(tokens)
    x, w = tokens.double().numpy(), router.gate.double().numpy()
    expected = np.array([[GATES[kind](each, w[:, e]) for e in range(5)] for each in x])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for row, gate in zip(expected, gates.numpy(), strict=True):
        best = np.argsort(-row)[:2]
        weights = np.exp(row[best]) / np.exp(row[best]).sum()
        np.testing.assert_allclose(gate[best], weights, atol=1e-5)
        assert gate.sum() == pytest.approx(1)
    assert torch.equal(load, (gates > 0).float())


@torch.no_grad()
def test_of_a_far_token_the_laplace_gate_stays_flat_and_the_inner_product_is_sure():
    """Distances to two experts differ by no more than these do from each other."""
    torch.manual_seed(2)
    direction, sure = torch.randn(1, 16), {}
    for kind in ("laplace", "softmax"):
        router = Router(16, 4, 4, kind).eval()
        torch.nn.init.normal_(router.gate, generator=torch.Generator().manual_seed(0))
        router.gate.mul_(0.3)
        sure[kind] = [float(router(scale * direction).gates.max()) for scale in (1, 100)]
        apart = torch.cdist(router.gate.T, router.gate.T).max()
    assert sure["softmax"][1] > 0.99
    assert sure["laplace"][1] < math.exp(float(apart)) / (3 + math.exp(float(apart)))
    assert sure["laplace"][1] < 0.7


@pytest.mark.parametrize("router", ["permod", "joint", "disjoint"])
@torch.no_grad()
def test_the_layer_by_hand(router):
    torch.manual_seed(3)
    layer = MixtureLayer(small_shapes("mortality").encoders, 4, 2, "laplace", router).eval()
    assert (len(layer.routers), len(layer.experts)) == {"permod": (2, 1), "joint": (1, 1), "disjoint": (2, 2)}[router]
    streams = [torch.randn(2, 3, 16) for _ in range(2)]
    found, gates, _ = layer(streams)
    attended = [x + layer.attention[m](layer.before[m](x), layer.before[m](x)) for m, x in enumerate(streams)]
    normed = [layer.between[m](x) for m, x in enumerate(attended)]
    for b in range(2):
        for n in range(3):
            asked = [torch.cat([x[b, n] for x in normed])] if router == "joint" else [x[b, n] for x in normed]
            answers = []
            for r, x in enumerate(asked):
                experts, answer = layer.experts[r if router == "disjoint" else 0], torch.zeros_like(x)
                logits = torch.stack([-(x - layer.routers[r].gate[:, e]).norm() for e in range(4)])
                best = logits.topk(2).indices
                for e, weight in zip(best, torch.softmax(logits[best], dim=0), strict=True):
                    assert float(gates[r, b, n, e]) == pytest.approx(float(weight), abs=1e-5)
                    hidden = torch.nn.functional.gelu(x @ experts.first[e] + experts.first_bias[e, 0])
                    answer += weight * (hidden @ experts.second[e] + experts.second_bias[e, 0])
                answers.append(answer)
            added = answers[0].chunk(2) if router == "joint" else [answers[0] + answers[1]] * 2
            for m in range(2):
                x = attended[m][b, n] + added[m]
                expected = x + layer.feed[m](x)
                np.testing.assert_allclose(found[m][b, n], expected, atol=1e-5)


@torch.no_grad()
def test_without_its_image_a_stays_record_is_routed_as_before():
    """In the first layer, after which modalities have met."""
    model = model_of(layers=1)
    batch = batch_of(model)
    whole, gone = (model(each).features["gates"][0] for each in (batch, without_images(batch)))
    torch.testing.assert_close(whole[0], gone[0])
    torch.testing.assert_close(whole[1, [1, 4]], gone[1, [1, 4]])
    assert ((whole[1] - gone[1]).abs().amax(dim=(1, 2)) > 1e-3).tolist() == [True, False, True, True, False, True]


@torch.no_grad()
def test_the_stand_in_is_at_each_place_of_an_absent_image_alone():
    model = model_of()
    batch = batch_of(model)
    model.stand_in.normal_()
    tokens = model.tokens(batch)[1]
    torch.testing.assert_close(tokens[1], model.stand_in + model.positions[1])
    before = model(batch).logits
    model.stand_in.normal_()
    moved = (model(batch).logits != before).any(dim=1)
    assert moved.tolist() == [False, True, False, False, True, False]


def uneven(amounts):
    return amounts.var(ddof=1) / amounts.mean() ** 2


@torch.no_grad()
def test_losses_are_of_what_is_there():
    model = model_of(even=0.5, entropy=2.0)
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    output = model(batch)
    losses = model.losses(output, batch, targets)
    gates = output.features["gates"].double().numpy()
    even, alike = 0.0, 0.0
    for layer in gates:
        amounts = [layer[0].sum(axis=(0, 1)), layer[1][[0, 2, 3, 5]].sum(axis=(0, 1))]
        loads = [(layer[0] > 0).sum(axis=(0, 1)), (layer[1][[0, 2, 3, 5]] > 0).sum(axis=(0, 1))]
        even += sum(uneven(each) for each in (*amounts, *loads))
        p = [each / each.sum() for each in amounts]
        h = [-sum(x * math.log(x) for x in each if x > 0) for each in (*p, (p[0] + p[1]) / 2)]
        alike += (h[0] + h[1]) / 2 - h[2]
    assert float(losses["even"]) == pytest.approx(0.5 * even, abs=1e-5)
    assert float(losses["entropy"]) == pytest.approx(2.0 * alike, abs=1e-5)
    assert alike < 0
    nobody = without_images(batch)
    assert float(model.losses(model(nobody), nobody, targets)["entropy"]) == 0


@torch.no_grad()
def test_an_even_load_costs_nothing():
    model = model_of(layers=1)
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    output = model(batch)
    output.features["gates"][:] = 0.25
    output.features["load"][:] = 0.5
    losses = model.losses(output, batch, targets)
    assert float(losses["even"]) == pytest.approx(0, abs=1e-9)
    assert float(losses["entropy"]) == pytest.approx(0, abs=1e-6)


def test_entropy_by_hand_and_its_derivative_where_nobody_chooses():
    shares = torch.tensor([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]], requires_grad=True)
    found = entropy(shares)
    assert found.tolist() == pytest.approx([math.log(2), math.log(3)], abs=1e-5)
    found.sum().backward()
    assert shares.grad.isfinite().all()


def test_routers_are_trained():
    """In the forks they stand in a list that is none of modules."""
    model = model_of().train()
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    sum(model.losses(model(batch), batch, targets).values()).backward()
    routers = {key: value for key, value in model.named_parameters() if ".routers." in key}
    assert len(routers) == 2 * 2 * 2  # layers, modalities, gate and noise
    assert all(value.grad.abs().max() > 0 for value in routers.values())


@pytest.mark.parametrize(
    "hyper",
    [
        {"layers": 0},
        {"experts": 1},
        {"chosen": 5},
        {"patches": 15},
        {"gate": "cosine"},
        {"router": "own"},
        {"even": -1.0},
        {"entropy": -1.0},
    ],
)
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=rf"strategies\.fusemoe: {next(iter(hyper))}: "):
        model_of(**hyper)
