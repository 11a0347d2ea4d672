"""UTDE's two embeddings and their gate against plain loops; the image and its time are crossed in, or skipped."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.checks import check_strategy
from pipeline.modelling.encoders import observed_cells
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_record
from pipeline.strategies.utde import TimeAttention, TimeEmbedding

WITH_IMAGE = torch.tensor([1, 0, 1, 0, 1]).bool()


def made(**hyper):
    torch.manual_seed(0)
    return build("utde", small_shapes("phenotype"), {"lr": 1e-3, **hyper}).eval()


def linear(layer, x):
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy().astype(float)
    return x @ layer.weight.detach().numpy().astype(float).T + bias


def test_each_channel_is_averaged_over_its_own_charted_hours():
    torch.manual_seed(0)
    embedding, attention = TimeEmbedding(6), TimeAttention(time=6, heads=2, channels=3, width=4)
    values, charted = torch.randn(2, 5, 3), torch.rand(2, 5, 3) < 0.5
    charted[0, :, 1] = False
    hours = np.arange(5)[:, None] / 5
    times = np.concatenate([linear(embedding.linear, hours), np.sin(linear(embedding.periodic, hours))], axis=1)
    q, k = linear(attention.query, times), linear(attention.key, times)
    found = attention(embedding(torch.arange(5)[:, None] / 5), values, charted).detach().numpy()
    for b in range(2):
        for hour in range(5):
            heads = []
            for head in (slice(0, 3), slice(3, 6)):
                means, ever = [], []
                for c in range(3):
                    at = np.flatnonzero(charted[b, :, c].numpy())
                    weights = np.exp(k[at, head] @ q[hour, head] / math.sqrt(3))
                    means.append(weights @ values[b, at, c].numpy() / weights.sum() if len(at) else 0.0)
                    ever.append(float(len(at) > 0))
                heads += means + ever
            np.testing.assert_allclose(found[b, hour], linear(attention.out, np.array(heads)), atol=1e-5)


def test_what_was_charted_far_from_the_hour_asked_is_still_finite():
    torch.manual_seed(0)
    embedding, attention = TimeEmbedding(6), TimeAttention(time=6, heads=2, channels=1, width=4)
    attention.query.weight.data *= 1e4
    charted = torch.zeros(1, 48, 1, dtype=torch.bool)
    charted[0, 40] = True
    hours = torch.arange(48)[:, None] / 48
    assert attention(embedding(hours), torch.ones(1, 48, 1), charted).isfinite().all()


@pytest.mark.parametrize(("level", "shape"), [("stay", (5, 1, 1)), ("hour", (5, 48, 1)), ("feature", (5, 48, 16))])
def test_the_gate_mixes_two_different_embeddings(level, shape):
    model = made(gate=level)
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    found = {key: value.detach().numpy().astype(float) for key, value in model.embed(batch).items()}
    assert found["gate"].shape == shape
    assert np.abs(found["charted"] - found["filled"]).mean() > 0.1
    for i in range(5):
        both = np.concatenate([found["charted"][i], found["filled"][i]], axis=1)
        if level == "stay":
            both = both.max(axis=0, keepdims=True)
        logit = linear(model.gate[3], np.maximum(linear(model.gate[1], both), 0))
        gate = 1 / (1 + np.exp(-logit))
        np.testing.assert_allclose(found["gate"][i], gate, atol=1e-5)
        mixed = gate * found["charted"][i] + (1 - gate) * found["filled"][i]
        np.testing.assert_allclose(found["mixed"][i], mixed, atol=1e-5)
    assert found["gate"].std() > 1e-3  # it depends on what it mixes


def test_one_embedding_sees_what_was_charted_alone_the_other_what_was_filled():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    numeric = torch.arange(batch.ehr.shape[2]) < 10
    other = dataclasses.replace(
        batch, ehr=torch.where(~observed_cells(batch, model.shapes) & numeric, batch.ehr + 1, batch.ehr)
    )
    before, after = model.embed(batch), model.embed(other)
    assert torch.equal(before["charted"], after["charted"])
    assert not torch.allclose(before["filled"], after["filled"], atol=1e-3)
    empty = model.embed(without_record(batch))["charted"]
    torch.testing.assert_close(empty, model.charted.out.bias.expand_as(empty), atol=1e-6, rtol=0)


def test_the_order_of_charted_hours_and_the_time_of_the_image_matter():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    flipped = dataclasses.replace(batch, ehr=batch.ehr.flip(1), observed=batch.observed.flip(1))
    before, after = model.embed(batch)["charted"], model.embed(flipped)["charted"]
    assert not torch.allclose(before, after, atol=1e-3)
    later = dataclasses.replace(batch, image_hours=batch.image_hours + 0.5)
    difference = (model(later).logits - model(batch).logits).abs().amax(dim=1)
    assert difference[WITH_IMAGE].min() > 1e-4
    assert difference[~WITH_IMAGE].max() == 0


def test_both_streams_enter_the_layers_times_the_root_of_their_width():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    entered = []
    model.cross[0].register_forward_pre_hook(lambda module, given: entered.extend(given[:2]))
    model(batch)
    series, image = entered
    torch.testing.assert_close(series, 4 * model.embed(batch)["mixed"] + model.positions)
    when = model.image_time(model.time(batch.image_hours[:, None, None]))
    torch.testing.assert_close(image, 4 * (model.image(batch.images).tokens + when))


def test_without_an_image_the_cross_attention_is_skipped():
    model = made()
    layer, rows = model.cross[0], torch.nonzero(WITH_IMAGE).squeeze(1)
    series, image = torch.randn(5, 48, 16), torch.randn(3, 4, 16)
    crossed, _ = layer(series, image, rows)
    alone, _ = layer(series, image[:0], rows[:0])
    torch.testing.assert_close(crossed[~WITH_IMAGE], alone[~WITH_IMAGE], atol=1e-6, rtol=0)
    assert (crossed[WITH_IMAGE] - alone[WITH_IMAGE]).abs().amax(dim=(1, 2)).min() > 1e-3
    for i, place in ((0, 0), (2, 1)):  # sublayer by sublayer
        a, b = series[i][None], image[place][None]
        a = a + layer.own[0](layer.before_own[0](a), layer.before_own[0](a))
        b = b + layer.own[1](layer.before_own[1](b), layer.before_own[1](b))
        x = a + layer.other[0](layer.before_other[0](a), layer.before_other[1](b))
        torch.testing.assert_close(crossed[i], (x + layer.feed[0](x))[0], atol=1e-5, rtol=0)
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    before = model(batch).logits
    with torch.no_grad():
        model.absent.add_(1.0)
    after = model(batch).logits
    torch.testing.assert_close(after[WITH_IMAGE], before[WITH_IMAGE], atol=1e-6, rtol=0)
    assert (after[~WITH_IMAGE] - before[~WITH_IMAGE]).abs().amax(dim=1).min() > 1e-3


@pytest.mark.slow
def test_the_papers_linear_map_keeps_the_contract():
    check_strategy("utde", {"filled": "linear", "gate": "stay", "cross_layers": 1})


@pytest.mark.parametrize(
    ("key", "value"), [("cross_layers", 0), ("embed_time", 12), ("gate", "batch"), ("filled", "mean")]
)
def test_an_impossible_value_is_named(key, value):
    with pytest.raises(InputError, match=rf"strategies\.utde: {key}: must be .*{value}"):
        made(**{key: value})
