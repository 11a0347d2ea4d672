"""moddrop: fusion, views and contrast by hand; its tokens learn from pairs; all views trained survive a lost image."""

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.faint import auroc
from pipeline.modelling.interface import Epoch
from pipeline.modelling.registry import build
from pipeline.modelling.views import keep_records, without_images, without_record
from pipeline.strategies.moddrop import Contrast
from tests.support.told_twice import SHAPES, told_twice


def model_of(task="phenotype", **hyper):
    torch.manual_seed(0)
    model = build("moddrop", small_shapes(task), {"lr": 1e-3, **hyper}).eval()
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    return model


def batch_of(model, with_image=(1, 0, 1, 1, 0, 1)):
    return example_batch(model.shapes, len(with_image), torch.tensor(with_image).bool())


def with_tokens(model):
    with torch.no_grad():
        model.no_series.normal_()
        model.no_image.normal_()
    return model


def norm(x, layer=None):
    x = np.asarray(x, float)
    y = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return y if layer is None else y * layer.weight.numpy() + layer.bias.numpy()


@pytest.mark.parametrize("hidden", [0, 2])
@torch.no_grad()
def test_the_fusion_by_hand(hidden):
    model = model_of(hidden=hidden)
    series, image = torch.randn(16), torch.randn(16)
    for each in model.fusion:
        if isinstance(each, torch.nn.LayerNorm):
            each.weight.normal_()
            each.bias.normal_()
    x = np.concatenate([norm(series), norm(image)])
    for layer in range(hidden + 1):
        before, linear = model.fusion[4 * layer], model.fusion[4 * layer + 3]
        x = linear.weight.numpy() @ np.maximum(norm(x, before), 0) + linear.bias.numpy()
    expected = norm(x, model.fusion[-1])
    np.testing.assert_allclose(model.fused(series[None], image[None])[0], expected, atol=1e-5)
    logits = model.head.weight.numpy() @ expected + model.head.bias.numpy()
    np.testing.assert_allclose(model.answer(torch.tensor(expected[None]).float())[0], logits, atol=1e-5)


@pytest.mark.parametrize("task", ["mortality", "phenotype", "los"])
@torch.no_grad()
def test_a_view_is_what_is_answered_when_the_other_modality_is_gone(task):
    model = with_tokens(model_of(task))
    batch = batch_of(model)
    output, imaged = model(batch), batch.image_sample
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(model(without_images(batch)).logits, output.unimodal["ehr"], **close)
    torch.testing.assert_close(model(without_record(batch)).logits[imaged], output.unimodal["cxr"][imaged], **close)
    torch.testing.assert_close(output.logits[[1, 4]], output.unimodal["ehr"][[1, 4]], **close)
    assert torch.equal(output.unimodal["cxr"][[1, 4]], model.prior.expand(2, -1))
    assert ((output.logits - output.unimodal["ehr"])[imaged].abs().amax(dim=1) > 1e-3).all()


@torch.no_grad()
def test_where_nothing_is_there_the_medians_speak():
    model = with_tokens(model_of())
    batch = without_record(batch_of(model))
    output = model(batch)
    expected = model.answer(model.fused(model.series(batch).pooled, model.no_image[None])) + model.prior
    torch.testing.assert_close(output.logits[[1, 4]], expected[[1, 4]])


def test_tokens_learn_from_pairs_alone():
    """late_fusion's stand-in has no gradient where everybody has an image."""
    model = model_of()
    batch, targets = batch_of(model, (1,) * 6), example_targets(model.shapes, 6)
    sum(model.losses(model(batch), batch, targets).values()).backward()
    for parameter in (model.no_series, model.no_image, model.fusion[3].weight):
        assert parameter.grad.abs().max() > 1e-5
    late = build("late_fusion", model.shapes, {})
    sum(late.losses(late(batch), batch, targets).values()).backward()
    assert not late.absent.grad.any()


@pytest.mark.parametrize("pairs", ["softmax", "sigmoid"])
@torch.no_grad()
def test_the_contrast_by_hand(pairs):
    torch.manual_seed(1)
    contrast = Contrast(pairs)
    one, other = (torch.nn.functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    likeness = 10 * one.numpy().astype(float) @ other.numpy().T
    if pairs == "sigmoid":
        signed = (likeness - 10) * (2 * np.eye(5) - 1)
        expected = np.log1p(np.exp(-signed)).mean()
    else:
        ways = [np.log(np.exp(x).sum(axis=1)) - np.diag(x) for x in (likeness, likeness.T)]
        expected = np.mean(ways)
    assert float(contrast(one, other)) == pytest.approx(expected, abs=1e-5)
    assert float(contrast(one[:0], other[:0])) == 0


@torch.no_grad()
def test_the_contrast_is_zero_for_aligned_views_and_a_guess_among_the_pairs_for_constant_ones():
    contrast = Contrast("softmax")
    contrast.log_sharpness.fill_(9.0)  # beyond the bound: 100
    assert float(contrast(torch.eye(6), torch.eye(6))) == pytest.approx(0, abs=1e-6)
    constant = torch.eye(6)[:1].expand(6, -1)
    assert float(contrast(constant, constant)) == pytest.approx(np.log(6), abs=1e-5)
    spread = torch.eye(6)[:2]
    likeness = torch.tensor([[0.0, 100.0], [100.0, 0.0]])  # each is sure of the other's
    expected = torch.nn.functional.cross_entropy(likeness, torch.arange(2))
    assert float(contrast(spread, spread.flip(0))) == pytest.approx(float(expected))


@torch.no_grad()
def test_losses_are_of_what_is_there_and_the_contrast_fades():
    model = with_tokens(model_of(contrast=0.5))
    batch = keep_records(batch_of(model), torch.tensor([1, 1, 0, 1, 1, 1]).bool())
    targets = example_targets(model.shapes, 6)
    output = model(batch)
    losses = model.losses(output, batch, targets)
    ehr, cxr = [0, 1, 3, 4, 5], [0, 2, 3, 5]
    for name, where in (("ehr", ehr), ("cxr", cxr), ("task", range(6))):
        z = (output.logits if name == "task" else output.unimodal[name])[list(where)].numpy()
        y = targets[list(where)].numpy()
        assert float(losses[name]) == pytest.approx((np.log1p(np.exp(z)) - y * z).mean(), abs=1e-5)
    q = {}
    for name in ("ehr", "cxr", "fused"):
        q[name] = model.project(output.features[name][[0, 3, 5]]).numpy()
        q[name] /= np.linalg.norm(q[name], axis=1, keepdims=True)
    told = []
    for a, b in (("ehr", "cxr"), ("ehr", "fused"), ("cxr", "fused")):
        x = 10 * q[a] @ q[b].T
        told += [np.log(np.exp(x).sum(axis=1)) - np.diag(x), np.log(np.exp(x).sum(axis=0)) - np.diag(x)]
    assert float(losses["contrast"]) == pytest.approx(0.5 * np.mean(told), abs=1e-5)
    model.between_epochs(Epoch(15, 20, list))
    assert float(model.losses(output, batch, targets)["contrast"]) == pytest.approx(0.125 * np.mean(told), abs=1e-5)


def test_without_pairs_there_is_no_contrast():
    model = model_of()
    batch = batch_of(model, (0, 0, 0))
    losses = model.losses(model(batch), batch, example_targets(model.shapes, 3))
    assert [float(losses[key].detach()) for key in ("cxr", "contrast")] == [0, 0]


def test_with_all_views_trained_the_record_tells_more_when_images_are_gone():
    """Trained on the fused view alone, it looks at what is easy, and has learned nothing of the record."""
    train, targets = told_twice(96, 0)
    fresh, truth = told_twice(400, 1)
    gone = {}
    for views in ("all", "fused"):
        torch.manual_seed(0)
        model = build("moddrop", SHAPES, {"lr": 1e-3})
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(70):
            losses = model.losses(model(train), train, targets)
            optimiser.zero_grad()
            (sum(losses.values()) if views == "all" else losses["task"]).backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            assert auroc(model(fresh).logits, truth) > 0.98
            gone[views] = float(auroc(model(without_images(fresh)).logits, truth))
    assert gone["all"] > 0.85
    assert gone["fused"] < 0.65


@pytest.mark.parametrize("hyper", [{"hidden": -1}, {"contrast": -0.1}, {"projection": 0}, {"pairs": "label"}])
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=rf"strategies\.moddrop: {next(iter(hyper))}: "):
        model_of(**hyper)
