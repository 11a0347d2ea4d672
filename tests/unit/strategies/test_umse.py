"""UMSE against loops over one sample at a time; absent tokens have no path, and the image reaches the answer."""

import dataclasses

import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.checks import check_strategy
from pipeline.modelling.examples import example_batch, select, small_shapes
from pipeline.modelling.faint import seen
from pipeline.modelling.learning import learned
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_record
from pipeline.strategies.umse import latest

WITH_IMAGE = torch.tensor([1, 0, 1, 0, 1]).bool()


def made(task="phenotype", **hyper):
    torch.manual_seed(0)
    return build("umse", small_shapes(task), {"lr": 1e-3, **hyper}).eval()


def naive_logits(model, batch, i):
    """One sample's, from lists of tokens: no padding, no mask, no batch."""
    tokens = []
    for hour in range(48):
        for channel, variable in enumerate(model.shapes.channel_variable):
            value = batch.ehr[i, hour, channel]
            later = batch.observed[i, hour + 1 : hour - hour % model.span + model.span, variable].any()
            if (
                batch.observed[i, hour, variable] and not later and (channel < 10 or value == 1)
            ):  # from 10 on: two categories
                when = torch.tensor([hour / 48])
                tokens.append(model.value(value[None]) + model.time(when) + model.kind.weight[channel])
    streams = [torch.cat([model.tokens[:1], model.norms[0](torch.stack(tokens))] if tokens else [model.tokens[:1]])]
    if batch.present[i, 1]:
        place = int(torch.nonzero(batch.image_sample == i))
        grid = model.image(batch.images[place : place + 1]).tokens[0]
        when = model.time(batch.image_hours[place : place + 1])
        assert len(grid) == 1
        placed = model.norms[1](grid[0] + when + model.kind.weight[-1])
        placed[1::2] += 1.0  # the first place's sines are 0, its cosines 1
        streams.append(torch.stack([model.tokens[1], placed]))
    shared = model.bottlenecks
    answers = []
    for layers in zip(model.ehr_layers, model.image_layers, strict=True):
        outputs = [layer(torch.cat([shared, x])[None])[0] for layer, x in zip(layers, streams, strict=False)]
        there = outputs if batch.present[i, 0] else outputs[1:] or outputs
        streams = [output[len(shared) :] for output in outputs]
        answers = [model.head(output[len(shared)]) for output in there]
        shared = torch.stack([output[: len(shared)] for output in there]).mean(dim=0)
    return torch.stack(answers).mean(dim=0) + model.prior


@pytest.mark.parametrize(("layers", "span"), [(2, 4), (3, 4), (2, 1)])
@pytest.mark.parametrize("record", [True, False])
def test_a_padded_batch_is_what_one_sample_at_a_time_gives(layers, span, record):
    model = made(layers=layers, bottlenecks=3, span=span)
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    if not record:
        batch = without_record(batch)
    with torch.no_grad():
        expected = torch.stack([naive_logits(model, batch, i) for i in range(5)])
        torch.testing.assert_close(model(batch).logits, expected, atol=1e-5, rtol=0)


def test_every_charted_value_is_a_token_unless_a_longer_span_is_asked_for():
    observed = example_batch(small_shapes("phenotype"), 5, WITH_IMAGE).observed
    assert torch.equal(latest(observed, made().span), observed)
    assert not torch.equal(latest(observed, made(span=4).span), observed)


def test_there_is_no_path_from_what_was_not_charted():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    numeric = torch.arange(batch.ehr.shape[2]) < 10
    hidden = ~batch.observed[:, :, torch.tensor(model.shapes.channel_variable)] & numeric
    other = dataclasses.replace(batch, ehr=torch.where(hidden, 9.0, batch.ehr), since=batch.since + 1)
    assert torch.equal(model(other).logits, model(batch).logits)


def test_the_image_and_its_time_reach_the_answer_and_an_absent_image_has_no_path():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    images, hours = batch.images.clone().requires_grad_(), batch.image_hours.clone().requires_grad_()
    logits = model(dataclasses.replace(batch, images=images, image_hours=hours)).logits
    moved = torch.autograd.grad(logits[WITH_IMAGE].square().sum(), [images, hours], retain_graph=True)
    assert all((gradient.flatten(1) != 0).any(dim=1).all() for gradient in (moved[0], moved[1][:, None]))
    gradients = torch.autograd.grad(logits[~WITH_IMAGE].square().sum(), list(model.image.parameters()))
    assert not any(gradient.any() for gradient in gradients)


def test_without_an_image_the_bottlenecks_are_the_records_own():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    none = select(batch, torch.arange(5))
    none = dataclasses.replace(
        none,
        images=none.images[:0],
        image_sample=none.image_sample[:0],
        image_place=none.image_place[:0],
        image_hours=none.image_hours[:0],
    )
    with_some, without = model(batch).features["bottlenecks"], model(none).features["bottlenecks"]
    torch.testing.assert_close(with_some[~WITH_IMAGE], without[~WITH_IMAGE], atol=1e-6, rtol=0)
    assert (with_some[WITH_IMAGE] - without[WITH_IMAGE]).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.slow
def test_the_papers_patches_keep_the_contract():
    check_strategy("umse", {"image": "patches", "layers": 3})


@pytest.mark.parametrize(("key", "value"), [("layers", 1), ("bottlenecks", 0), ("span", 5), ("image", "swin")])
def test_an_impossible_value_is_named(key, value):
    with pytest.raises(InputError, match=rf"strategies\.umse: {key}: must be .*{value}"):
        made(**{key: value})


def test_the_records_token_hears_of_the_image_through_the_bottlenecks():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    images = batch.images.clone().requires_grad_()
    seen = []
    model.ehr_layers[-1].register_forward_hook(lambda *args: seen.append(args[-1]))
    model(dataclasses.replace(batch, images=images))
    (moved,) = torch.autograd.grad(seen[0][WITH_IMAGE, 3].square().sum(), images)  # of its class token
    assert (moved.flatten(1) != 0).any(dim=1).all()


def test_another_image_is_heard_before_anything_is_learned():
    model = made()
    batch = example_batch(model.shapes, 16, torch.ones(16).bool())
    other = dataclasses.replace(
        batch, images=torch.rand(batch.images.shape, generator=torch.Generator().manual_seed(1))
    )
    with torch.no_grad():
        moved = (model(other).logits - model(batch).logits).abs().mean()
    assert moved > 1e-3  # through the bottlenecks alone it was a hundredth of that


def test_a_kind_is_as_large_as_what_it_stands_beside():
    assert 0.8 < float(made().kind.weight.detach().std()) < 1.2


def test_an_image_is_learned_beside_kinds_of_usual_size():
    assert learned("umse", {}, 1).right == {"ehr", "cxr", "xor"}


@pytest.mark.parametrize("seed", [5, pytest.param(1, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)])
def test_a_faint_image_is_learned_from_initialisations_that_were_deaf(seed):
    """Behind a hidden layer with ReLU all its units died for the image's class token."""
    assert seen("umse", {}, seed, enough=0.2).use >= 0.2


def test_whatever_biases_the_head_has_learned_it_hears_the_image():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    with torch.no_grad():
        for layer in model.head[1:]:
            if getattr(layer, "bias", None) is not None:
                layer.bias.fill_(-10.0)
    images = batch.images.clone().requires_grad_()
    (moved,) = torch.autograd.grad(model(dataclasses.replace(batch, images=images)).logits.sum(), images)
    assert (moved.flatten(1) != 0).any(dim=1).all()
