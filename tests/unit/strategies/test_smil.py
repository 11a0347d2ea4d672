"""SMIL: k-means, reconstruction and losses by hand; it reconstructs at inference, its inner loop changes parameters."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.interface import Epoch
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_images
from pipeline.strategies.smil import k_means


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("smil", small_shapes(task), {"lr": 1e-3, "prototypes": 4, **hyper})


def batch_of(model, with_image=(1, 0, 1, 1, 0, 1)):
    return example_batch(model.shapes, len(with_image), torch.tensor(with_image).bool())


def with_prototypes(model):
    batch = example_batch(model.shapes, 12, torch.ones(12).bool(), seed=7)
    with torch.no_grad():
        model.eval().between_epochs(Epoch(0, 5, lambda: [(batch, None)]))
    return model


def test_k_means_by_hand():
    torch.manual_seed(1)
    points = torch.cat([torch.randn(6, 2), torch.randn(5, 2) + 6])
    centres = [points[0].numpy(), points[1].numpy(), np.array([50.0, 50.0])]
    found = k_means(points, torch.tensor(np.stack(centres), dtype=torch.float32), rounds=4)
    for _ in range(4):
        nearest = [int(np.argmin([((p - c) ** 2).sum() for c in centres])) for p in points.numpy()]
        for j in range(3):
            mine = [points[i].numpy() for i in range(11) if nearest[i] == j]
            centres[j] = np.mean(mine, axis=0) if mine else centres[j]
    np.testing.assert_allclose(found.numpy(), np.stack(centres), atol=1e-5)
    assert found[2].tolist() == [50, 50]


def test_the_prototypes_are_fitted_to_the_training_images():
    model = with_prototypes(model_of())
    batch = example_batch(model.shapes, 12, torch.ones(12).bool(), seed=7)
    with torch.no_grad():
        points = model.image(batch.images).pooled
        np.testing.assert_allclose(model.prototypes, k_means(points, points[[0, 3, 6, 9]]), atol=1e-6)
        before = model.prototypes.clone()
        none = example_batch(model.shapes, 3, torch.zeros(3).bool())
        model.between_epochs(Epoch(1, 5, lambda: [(none, None)]))
    assert torch.equal(model.prototypes, before)


def test_a_missing_image_is_rebuilt_from_prototypes_at_inference():
    model = with_prototypes(model_of())
    batch = batch_of(model)
    with torch.no_grad():
        joint = model(batch).features["joint"]
        e = model.series(batch).pooled[1]
        weights = np.log1p(np.exp((model.weigh.weight @ e + model.weigh.bias).numpy()))
        rebuilt = sum(w * p for w, p in zip(weights / weights.sum(), model.prototypes.numpy(), strict=True))
        shift = np.log1p(np.exp((model.shift_joint.weight @ e + model.shift_joint.bias).numpy()))
        np.testing.assert_allclose(joint[1].numpy(), np.concatenate([e.numpy(), rebuilt]) + shift, atol=1e-5)
        seen = model.image(batch.images).pooled[0]
        np.testing.assert_allclose(joint[0, 16:].numpy(), seen.numpy(), atol=1e-5)
        before = model(batch).logits
        model.prototypes += torch.randn(model.prototypes.shape)
        after = model(batch).logits
    assert torch.equal(before[[0, 2, 3, 5]], after[[0, 2, 3, 5]])
    assert (before[[1, 4]] != after[[1, 4]]).all()


@pytest.mark.parametrize("second_order", [True, False])
def test_the_inner_loop_changes_its_parameters_and_its_outcome_depends_on_them(second_order):
    model = with_prototypes(model_of(inner_lr=0.5, second_order=second_order))
    batch = batch_of(model)
    targets = example_targets(model.shapes, 6)
    inner = torch.tensor([1, 1, 0, 0, 1, 0]).bool()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        own = model.adapted(batch, targets, inner)
        logits = model(without_images(batch)).logits[inner]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets[inner])
    now = dict(model.named_parameters())
    assert {key.split(".")[0] for key in own} == {"series", "hidden", "head"}
    gradients = torch.autograd.grad(loss, [now[key] for key in own])
    for (key, value), gradient in zip(own.items(), gradients, strict=True):
        assert torch.allclose(value, now[key] - 0.5 * gradient, atol=1e-5), key
    with torch.no_grad():
        adapted = model.called(own, without_images(batch)).logits
        assert (adapted - model(without_images(batch)).logits).abs().max() > 1e-3


def test_the_outer_losses_are_of_the_pairs_that_the_inner_step_left_out():
    model = with_prototypes(model_of(inner_lr=0.1, meta=0.2, align_joint=0.3, align_hidden=0.7))
    batch = batch_of(model)
    targets = example_targets(model.shapes, 6)
    torch.manual_seed(4)
    losses = model.losses(model(batch), batch, targets)
    torch.manual_seed(4)
    inner = ~batch.present[:, 1] | (torch.rand(6) < 0.5)
    outer = [i for i in range(6) if not inner[i]]
    assert outer
    own = model.adapted(batch, targets, inner)
    with torch.no_grad():
        noisy, clean = model.called(own, without_images(batch)), model.called(own, batch)
    z, y = noisy.logits[outer, 0].numpy(), targets[outer, 0].numpy()
    assert float(losses["meta"].detach()) == pytest.approx(0.2 * np.mean(np.log1p(np.exp(z)) - y * z), abs=1e-5)
    for key, weight in (("joint", 0.3), ("hidden", 0.7)):
        distance = np.mean((noisy.features[key][outer].numpy() - clean.features[key][outer].numpy()) ** 2)
        assert float(losses[f"align_{key}"].detach()) == pytest.approx(weight * distance, abs=1e-5)


def test_in_training_the_inner_step_is_noisy_and_the_outer_pass_is_not():
    model = with_prototypes(model_of()).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch, own = batch_of(model), dict(model.named_parameters())
    with torch.no_grad():
        quiet, again = (model.called(own, without_images(batch), noise=False).logits for _ in range(2))
        noisy, other = (model.called(own, without_images(batch)).logits for _ in range(2))
        assert torch.equal(quiet, again)
        assert (noisy - other).abs().max() > 1e-3
        torch.testing.assert_close(quiet, model.eval()(without_images(batch)).logits)
    calls, called = [], model.called

    def noted(*given, noise=True):
        calls.append((noise, given[1].present[:, 1].any().item()))
        return called(*given, noise=noise)

    model.train().called = noted
    model.losses(model(batch), batch, example_targets(model.shapes, 6))
    assert calls[:2] == [(True, False), (False, False)]  # the inner step; the outer pass without images


def test_without_pairs_the_outer_losses_are_zero():
    model = with_prototypes(model_of())
    batch = batch_of(model, (0, 0, 0))
    losses = model.losses(model(batch), batch, example_targets(model.shapes, 3))
    assert [float(losses[key].detach()) for key in ("meta", "align_joint", "align_hidden")] == [0, 0, 0]


def test_pixels_of_an_absent_image_are_not_there_to_matter():
    model = with_prototypes(model_of())
    batch = batch_of(model)
    hidden = without_images(batch)
    assert len(hidden.images) == 0
    assert dataclasses.replace(hidden, images=batch.images[:0]).present[:, 0].all()
    with torch.no_grad():
        assert torch.allclose(model(batch).logits[[1, 4]], model(hidden).logits[[1, 4]], atol=1e-6)


@pytest.mark.parametrize("hyper", [{"prototypes": 0}, {"inner_lr": -1.0}, {"meta": -0.1}])
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=r"strategies\.smil: "):
        model_of(**hyper)
