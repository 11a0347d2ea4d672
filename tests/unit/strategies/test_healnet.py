"""HEALNet's update and places against plain loops; an absent modality leaves the latents untouched."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.checks import check_strategy
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_record
from pipeline.strategies.healnet import Update, fourier

WITH_IMAGE = torch.tensor([1, 0, 1, 0, 1]).bool()


def made(**hyper):
    torch.manual_seed(0)
    return build("healnet", small_shapes("phenotype"), {"lr": 1e-3, **hyper}).eval()


def without_image(batch):
    present = batch.present.clone()
    present[:, 1] = False
    empty = {name: getattr(batch, name)[:0] for name in ("images", "image_sample", "image_place", "image_hours")}
    return dataclasses.replace(batch, present=present, **empty)


def linear(layer, x):
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy().astype(float)
    return x @ layer.weight.detach().numpy().astype(float).T + bias


def norm(layer, x):
    scaled = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def test_an_update_is_what_the_loop_says():
    torch.manual_seed(0)
    update = Update(8, 2, 0.0, context=5).eval()
    x, context = torch.randn(1, 3, 8), torch.randn(1, 4, 5)
    latents, seen = (part[0].numpy().astype(float) for part in (x, context))
    attention = update.attention
    q = linear(attention.query, norm(update.norm, latents))
    k, v = (linear(layer, norm(update.norm_context, seen)) for layer in (attention.key, attention.value))
    read = np.zeros((3, 8))
    for head in (slice(0, 4), slice(4, 8)):
        for n in range(3):
            weights = np.exp(k[:, head] @ q[n, head] / math.sqrt(4) / 0.5)  # the temperature is a half
            read[n, head] = weights @ v[:, head] / weights.sum()
    read = linear(attention.out, read)
    latents = latents + np.where(read > 0, read, 0.01 * read)
    value, gate = np.split(linear(update.widen, norm(update.norm_feed, latents)), 2, axis=1)
    selu = 1.0507009873554805 * np.where(gate > 0, gate, 1.6732632423543772 * (np.exp(gate) - 1))
    expected = latents + linear(update.narrow, value * selu)
    np.testing.assert_allclose(update(x, context)[0].detach(), expected, atol=1e-5)


def test_places_are_sines_cosines_and_the_coordinate_itself():
    found = fourier((2, 3), bands=3, max_freq=10, like=torch.zeros(1)).numpy()
    for row in range(2):
        for column in range(3):
            expected = []
            for place in (2 * row - 1, column - 1):
                angles = [place * scale * math.pi for scale in (1, 3, 5)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles] + [place]
            np.testing.assert_allclose(found[3 * row + column], expected, atol=1e-5)
    assert np.isfinite(fourier((1, 1), bands=2, max_freq=10, like=torch.zeros(1)).numpy()).all()


@pytest.mark.parametrize("tokens", ["encoded", "raw"])
def test_the_latents_read_what_is_there_in_turn_and_skip_what_is_not(tokens):
    model = made(tokens=tokens)
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    present = torch.tensor([1, 1, 0, 0, 1]).bool()  # with and without a record, with and without an image
    nothing = without_record(batch)
    fields = {
        name: torch.where(present[:, None, None], getattr(batch, name), getattr(nothing, name))
        for name in ("ehr", "observed", "since")
    }
    batch = dataclasses.replace(batch, present=torch.stack([present, WITH_IMAGE], dim=1), **fields)
    found = model(batch).features["latents"]
    ehr, image = model.tokens(batch)
    places = {int(sample): place for place, sample in enumerate(batch.image_sample)}
    for i in range(5):
        x = model.latents[None]
        for number in range(3):
            step = 0 if number == 0 else 1
            if present[i]:
                x = model.read_ehr[step](x, ehr[i : i + 1])
            if i in places:
                x = model.read_image[step](x, image[places[i]][None])
            x = model.settle[step](x)
        torch.testing.assert_close(found[i], x[0], atol=1e-5, rtol=0)


def test_an_absent_modality_leaves_the_latents_untouched():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    with_images, none = model(batch).features["latents"], model(without_image(batch)).features["latents"]
    torch.testing.assert_close(with_images[~WITH_IMAGE], none[~WITH_IMAGE], atol=1e-6, rtol=0)
    assert (with_images[WITH_IMAGE] - none[WITH_IMAGE]).abs().amax(dim=(1, 2)).min() > 1e-3
    with torch.no_grad():
        for parameter in model.read_image.parameters():
            parameter.add_(0.3)
    assert torch.equal(model(without_image(batch)).features["latents"], none)
    empty = without_record(batch)
    before = model(empty).logits
    with torch.no_grad():
        for parameter in model.read_ehr.parameters():
            parameter.add_(0.3)
    assert torch.equal(model(empty).logits, before)


def test_depth_adds_passes_and_no_weights_after_the_second():
    counts = [sum(p.numel() for p in made(depth=depth).parameters()) for depth in (1, 2, 5)]
    assert counts[0] < counts[1] == counts[2]
    batch = example_batch(made().shapes, 2, torch.ones(2).bool())
    assert not torch.allclose(made(depth=2)(batch).logits, made(depth=5)(batch).logits, atol=1e-3)


@pytest.mark.slow
def test_raw_tokens_keep_the_contract():
    check_strategy("healnet", {"tokens": "raw", "depth": 1})


@pytest.mark.parametrize(
    ("key", "value"), [("depth", 0), ("latents", 0), ("bands", 0), ("max_freq", 0.0), ("tokens", "all")]
)
def test_an_impossible_value_is_named(key, value):
    with pytest.raises(InputError, match=rf"strategies\.healnet: {key}: must be .*{value}"):
        made(**{key: value})
