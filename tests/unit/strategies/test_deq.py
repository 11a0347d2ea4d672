"""DEQ: block, solver, gradient and Jacobian by hand; it finds the fixed point, at the memory of one application."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, select, small_shapes
from pipeline.modelling.interface import Epoch
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_images, without_record
from pipeline.strategies.deq import FLOOR, Block, anderson, implicit, jacobian_square

PRESENT = torch.tensor([1, 0, 1, 1, 0, 1]).bool()
D = 16


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("deq", small_shapes(task), {"lr": 1e-3, **hyper})


def batch_of(model):
    return example_batch(model.shapes, 6, PRESENT)


def problem(rows=6, there=None):
    """A block, encodings, and who is there."""
    torch.manual_seed(1)
    block, encodings = Block(D), torch.randn(2, rows, D)
    with torch.no_grad():
        for parameter in block.parameters():  # no weight stays at a neutral value
            parameter += 0.05 * torch.randn_like(parameter)
    return block, encodings, torch.ones(2, rows, 1) if there is None else there


def group_norm(x, norm):
    """Of one vector, in four groups."""
    parts = [(g - g.mean()) / np.sqrt(g.var() + FLOOR) for g in np.split(x, 4)]
    return np.concatenate(parts) * norm.weight.numpy() + norm.bias.numpy()


def affine(x, layer):
    return layer.weight.numpy() @ x + layer.bias.numpy()


def test_an_application_by_hand():
    there = torch.ones(2, 6, 1)
    there[1, [1, 4]], there[0, 2] = 0.0, 0.0
    block, encodings, there = problem(there=there)
    state = torch.randn(6, 3 * D)
    with torch.no_grad():
        found = block(state, encodings, there).numpy()
        for i in range(6):
            *own, fused = np.split(state[i].numpy(), 3)
            expected, taken, injected = [], 0.0, float(block.shift)
            for m, layer in enumerate(block.refine):
                x = encodings[m, i].numpy()
                inner = np.maximum(group_norm(affine(own[m], layer.first), layer.norm_first), 0)
                inner = group_norm(affine(inner, layer.second) + x, layer.norm_second)
                refined = group_norm(np.maximum(own[m] + inner, 0), layer.norm)
                if there[m, i] == 0:
                    expected.append(np.zeros(D))
                    continue
                expected.append(refined)
                taken = taken + fused * affine(refined + fused, block.gate)
                injected = injected + float(block.share[m]) * x
            last = group_norm(np.maximum(affine(taken, block.fuse) + injected, 0), block.norm)
            np.testing.assert_allclose(found[i], np.concatenate([*expected, last]), atol=1e-5)


def test_modalities_that_change_places_with_their_weights_change_the_places_of_their_states():
    block, encodings, there = problem()
    other, _, _ = problem()
    with torch.no_grad():
        other.refine[0].load_state_dict(block.refine[1].state_dict())
        other.refine[1].load_state_dict(block.refine[0].state_dict())
        other.share.copy_(block.share.flip(0))
        a, b, f = anderson(lambda z: block(z, encodings, there), torch.zeros(6, 3 * D), 25, 5).chunk(3, dim=1)
        turned = encodings.flip(0)
        found = anderson(lambda z: other(z, turned, there), torch.zeros(6, 3 * D), 25, 5)
    torch.testing.assert_close(found, torch.cat([b, a, f], dim=1), atol=1e-4, rtol=0)
    assert (a - b).abs().max() > 0.1


def test_of_a_linear_map_the_solver_finds_what_algebra_finds():
    torch.manual_seed(2)
    a, b = 0.5 * torch.randn(4, 5, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    found = anderson(lambda y: (a @ y[:, :, None])[:, :, 0] + b, torch.zeros_like(b), 60, 6)
    expected = torch.linalg.solve(torch.eye(5, dtype=torch.float64) - a, b)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_first_two_mixtures_by_hand():
    torch.manual_seed(3)
    a, b, seen = torch.randn(2, 3, 3), torch.randn(2, 3), []

    def step(x):
        seen.append(x.clone())
        return torch.tanh((a @ x[:, :, None])[:, :, 0]) + b

    anderson(step, torch.zeros(2, 3), 3, 2)
    first = [step(seen[0]), step(seen[1])]
    torch.testing.assert_close(seen[1], first[0])  # one iterate mixes to itself
    for i in range(2):
        g = np.stack([(first[k] - seen[k])[i].numpy() for k in range(2)]).astype(float)
        gram = g @ g.T
        weights = np.linalg.solve(gram / np.diag(gram).mean() + 1e-4 * np.eye(2), np.ones(2))
        weights /= weights.sum()
        expected = weights[0] * first[0][i].numpy() + weights[1] * first[1][i].numpy()
        np.testing.assert_allclose(seen[2][i].numpy(), expected, atol=1e-4)


def test_it_keeps_of_each_row_the_iterate_that_moves_least():
    """One row goes 0, 5, 6, 16; the other 1, 1.1, 2.1, 4.1."""
    goes = {0.0: 5.0, 5.0: 6.0, 6.0: 16.0, 16.0: 30.0, 1.0: 1.1, 1.1: 2.1, 2.1: 4.1, 4.1: 9.0}

    def step(x):
        return torch.tensor([[goes[round(float(row), 4)]] for row in x])

    found = anderson(step, torch.tensor([[0.0], [1.0]]), 4, 1)
    np.testing.assert_allclose(found.numpy(), [[5.0], [1.0]], atol=1e-6)


def test_the_answer_is_a_fixed_point():
    shapes = small_shapes("mortality")
    shapes = dataclasses.replace(shapes, encoders=dataclasses.replace(shapes.encoders, width=32))
    for seed in range(3):
        torch.manual_seed(seed)
        model = build("deq", shapes, {}).eval()
        batch = example_batch(shapes, 16, torch.arange(16) % 2 > 0, seed)
        with torch.no_grad():
            output = model(batch)
            z, f = output.features["state"], output.features["applied"]
            assert torch.equal(output.logits, model.head(f[:, 64:]) + model.prior)
        residual = (f - z).norm(dim=1) / z.norm(dim=1)
        torch.testing.assert_close(output.features["residual"], residual)
        assert residual.median() < 1e-3
        assert residual.max() < 1e-2


def cosine(a, b):
    return float(torch.cosine_similarity(torch.cat([x.flatten() for x in a]), torch.cat([x.flatten() for x in b]), 0))


def test_the_gradient_is_that_of_the_layers_unrolled():
    block, encodings, there = problem()
    block, encodings = block.double(), encodings.double().requires_grad_()
    there, direction = there.double(), torch.randn(6, 3 * D, dtype=torch.float64)
    of = [encodings, *block.parameters()]
    z = torch.zeros(6, 3 * D, dtype=torch.float64)
    for _ in range(60):
        z = block(z, encodings, there)
    unrolled = torch.autograd.grad((z * direction).sum(), of)
    state = anderson(lambda x: block(x, encodings, there), torch.zeros_like(z), 30, 5).requires_grad_()
    applied = block(state, encodings, there)
    last = torch.autograd.grad((applied * direction).sum(), of, retain_graph=True)
    answer = implicit(applied, state, 30, 5)
    found = torch.autograd.grad((answer * direction).sum(), of)
    torch.testing.assert_close(answer, z, atol=1e-5, rtol=0)
    for one, other in zip(found, unrolled, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert cosine(last, unrolled) < cosine(found, unrolled) - 1e-4


def test_the_knob_chooses_the_gradient():
    found = {}
    for gradient in ("implicit", "last"):
        model = model_of(gradient=gradient, jacobian=0.0).eval()
        batch, targets = batch_of(model), example_targets(model.shapes, 6)
        losses = model.losses(model(batch), batch, targets)
        assert set(losses) == {"task"}
        losses["task"].backward()
        found[gradient] = [parameter.grad.clone() for parameter in model.block.refine.parameters()]
    assert 0 < cosine(*found.values()) < 0.9999
    assert any(gradient.any() for gradient in found["implicit"])


@pytest.mark.parametrize("part", ["forward", "memory"])
def test_memory_does_not_grow_with_the_steps(part):
    """What is kept for the way back: of one application, be it after 3 steps or after 40."""
    kept = []
    for steps in (3, 40):
        model = model_of(**{"steps": steps} if part == "forward" else {"steps": 12, "memory": steps})
        batch, sizes = batch_of(model), []

        def note(x, sizes=sizes):
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            model(batch)
        kept.append(sum(sizes))
    assert kept[0] == kept[1] > 0


def test_the_size_of_the_jacobian_is_estimated_without_bias_and_trains():
    torch.manual_seed(4)
    weight = torch.randn(4, 4, requires_grad=True)
    state = torch.randn(3, 4, requires_grad=True)
    applied = torch.tanh(state @ weight.T)
    with torch.no_grad():
        exact = np.mean([((1 - applied[i, :, None] ** 2) * weight).square().sum() / 4 for i in range(3)])
    found = jacobian_square(applied, state, 3000)
    assert float(found.detach()) == pytest.approx(exact, rel=0.05)
    (slope,) = torch.autograd.grad(jacobian_square(applied, state, 1), weight)
    assert slope.abs().max() > 0


def test_the_jacobians_loss_is_weighed():
    model = model_of(jacobian=3.0, probes=2)
    batch = batch_of(model)
    output = model(batch)
    torch.manual_seed(5)
    found = model.losses(output, batch, example_targets(model.shapes, 6))["jacobian"]
    torch.manual_seed(5)
    torch.testing.assert_close(found, 3 * jacobian_square(output.features["applied"], output.features["state"], 2))


def test_of_a_missing_image_nothing_enters():
    model = model_of().eval()
    batch = batch_of(model)
    with torch.no_grad():
        before = model(batch)
        for key, parameter in model.named_parameters():
            if key.startswith(("image.", "block.refine.1.")):
                parameter += torch.randn_like(parameter)
        model.block.share[1] += 1
        after = model(batch)
    torch.testing.assert_close(after.logits[~PRESENT], before.logits[~PRESENT], atol=1e-6, rtol=0)
    assert ((after.logits - before.logits)[PRESENT].abs() > 1e-4).all()
    assert (before.features["state"][~PRESENT][:, D : 2 * D] == 0).all()
    assert (model(without_record(batch)).features["state"][PRESENT][:, :D] == 0).all()
    for each in (without_images(batch), without_images(without_record(batch))):
        assert model(each).logits.isfinite().all()


def test_a_stays_answer_is_its_own():
    model = model_of().eval()
    batch = batch_of(model)
    with torch.inference_mode():
        whole = model(batch).logits
        alone = torch.cat([model(select(batch, torch.tensor([i]))).logits for i in range(6)])
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)


def test_the_history_file_shows_the_residual_of_the_first_training_stays():
    model = model_of(steps=3).eval()
    assert model.diagnostics() == {"residual_median": 1.0, "residual_95": 1.0}
    batch = batch_of(model)
    with torch.no_grad():
        model.between_epochs(Epoch(1, 5, lambda: iter([(batch, None), (None, None)])))
        residual = model(batch).features["residual"].numpy()
    expected = {"residual_median": np.median(residual), "residual_95": np.quantile(residual, 0.95)}
    assert model.diagnostics() == {key: pytest.approx(value, rel=1e-5) for key, value in expected.items()}
    assert expected["residual_median"] > 1e-3  # three steps do not arrive


@pytest.mark.parametrize(
    "hyper", [{"steps": 0}, {"memory": 0}, {"probes": 0}, {"jacobian": -1.0}, {"gradient": "unrolled"}]
)
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=rf"strategies\.deq: {next(iter(hyper))} must be"):
        model_of(**hyper)


def test_a_width_that_has_no_four_groups_is_refused():
    shapes = small_shapes("mortality")
    shapes = dataclasses.replace(shapes, encoders=dataclasses.replace(shapes.encoders, width=18))
    with pytest.raises(InputError, match=r"strategies\.deq: the encoders' width must be a multiple of 4, is 18"):
        build("deq", shapes, {})
