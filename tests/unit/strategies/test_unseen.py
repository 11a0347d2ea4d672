"""Unseen interaction: slots, sum, branches and losses by hand; pairs never seen are told where effects add up."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import SMALL, example_batch, example_targets, select, small_shapes
from pipeline.modelling.faint import auroc
from pipeline.modelling.interface import Shapes
from pipeline.modelling.learning import optimiser_of, take_step
from pipeline.modelling.losses import probabilities, sample_losses
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_images, without_record
from pipeline.strategies.unseen import divergence, smoothed_loss
from pipeline.tasks import get_task

TASKS = ["mortality", "phenotype", "los"]


def model_of(task="phenotype", **hyper):
    torch.manual_seed(0)
    model = build("unseen", small_shapes(task, 32), {"lr": 1e-3, **hyper})
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    return model


def batch_of(model, with_image=(1, 0, 1, 1), without_record=()):
    batch = example_batch(model.shapes, len(with_image), torch.tensor(with_image).bool())
    present = batch.present.clone()
    present[list(without_record), 0] = False
    return dataclasses.replace(batch, present=present)


def test_each_token_spends_a_mass_of_one_and_a_slot_is_a_weighted_sum():
    slots = model_of().slots["ehr"].eval()
    tokens = torch.randn(2, 5, 16)
    with torch.no_grad():
        weights, entered = slots.weights(tokens), slots(tokens)
        np.testing.assert_allclose(weights.sum(dim=2).numpy(), 1, atol=1e-6)
        for i in range(2):
            for n in range(16):
                summed = sum(weights[i, t, n] * tokens[i, t] for t in range(5))
                np.testing.assert_allclose(entered[i, n].numpy(), slots.enter(summed).numpy(), atol=1e-5)


def test_the_mean_of_slots_that_are_not_embedded_is_a_mean_of_tokens():
    """So the published alignment would say nothing of how tokens are shared out."""
    slots = model_of().slots["ehr"].eval()
    tokens = torch.randn(2, 5, 16)
    summed = slots.weights(tokens).transpose(1, 2) @ tokens
    np.testing.assert_allclose(summed.mean(dim=1).detach().numpy(), tokens.sum(dim=1).numpy() / 16, atol=1e-5)


def test_the_reader_reads_the_sum_of_what_is_there():
    model = model_of().eval()
    batch = batch_of(model, (1, 0, 1, 1), without_record=(2,))
    with torch.no_grad():
        ehr = model.slots["ehr"](model.series(batch).tokens)
        cxr = model.slots["cxr"](model.image(batch.images).tokens)
        summed = [ehr[0] + cxr[0], ehr[1], cxr[1], ehr[3] + cxr[2]]
        first, second = (model.read(torch.stack(summed)) + model.prior).unbind(dim=1)
        found = model(batch)
    p = (probabilities(first, model.shapes.task) + probabilities(second, model.shapes.task)) / 2
    np.testing.assert_allclose(probabilities(found.logits, model.shapes.task).numpy(), p.numpy(), atol=1e-5)
    assert not torch.allclose(first, second, atol=1e-3)


def test_where_nothing_is_there_the_record_of_medians_speaks():
    model = model_of().eval()
    batch = without_record(without_images(batch_of(model)))
    with torch.no_grad():
        told = model.read(model.slots["ehr"](model.series(batch).tokens))[:, 0] + model.prior
        np.testing.assert_allclose(model(batch).unimodal["first"].numpy(), told.numpy(), atol=1e-5)


def test_a_branch_does_not_depend_on_the_others_slots():
    model = model_of().eval()
    summed = torch.randn(2, 16, 16)
    changed = torch.cat([summed[:, :8], torch.randn(2, 8, 16)], dim=1)
    with torch.no_grad():
        one, other = model.read(summed), model.read(changed)
    assert torch.equal(one[:, 0], other[:, 0])
    assert (one[:, 1] != other[:, 1]).all()


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_the_divergence_is_kullback_leiblers(kind):
    torch.manual_seed(1)
    said, logits = torch.randn(3, 4), torch.randn(3, 4)
    found, p, q = divergence(said, logits, kind).numpy(), said.double().numpy(), logits.double().numpy()
    for i in range(3):
        if kind == "multiclass":
            a, b = (np.exp(x[i]) / np.exp(x[i]).sum() for x in (p, q))
            expected = sum(a * np.log(a / b))
        else:
            a, b = (1 / (1 + np.exp(-x[i])) for x in (p, q))
            expected = np.mean(a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b)))
        assert found[i] == pytest.approx(expected, abs=1e-5)
    sure = torch.full((1, 4), 1e4)
    assert divergence(sure, -sure, kind).isfinite().all()


def test_smoothing_spreads_a_share_of_the_target():
    z = np.array([1.0, -0.5, 0.3, 0, 0.2, -1, 2])
    logs = z - math.log(np.exp(z).sum())
    los, label = get_task("los"), get_task("mortality")
    found = float(smoothed_loss(torch.tensor(z)[None], torch.tensor([[2.0]]), los, 0.1))
    assert found == pytest.approx(-0.9 * logs[2] - 0.1 * logs.mean(), abs=1e-6)
    found = float(smoothed_loss(torch.tensor([[0.7]]), torch.tensor([[1.0]]), label, 0.1))
    p = 1 / (1 + math.exp(-0.7))
    assert found == pytest.approx(-0.95 * math.log(p) - 0.05 * math.log(1 - p), abs=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_losses_are_of_branches_modalities_and_slots(task):
    model = model_of(task, pseudo=0.5, align=2.0).eval()
    batch, targets = batch_of(model, (1, 0, 1, 1), without_record=(2,)), example_targets(model.shapes, 4)
    with torch.no_grad():
        model.anchor += torch.randn(16)
        model.anchors += torch.randn(model.anchors.shape)
        output = model(batch)
        losses = {key: float(value) for key, value in model.losses(output, batch, targets).items()}
    kind, told = model.shapes.task.kind, output.unimodal
    assert losses["task"] == pytest.approx(float(smoothed_loss(told["first"], targets, model.shapes.task, 0.1)))
    pseudo, apart = 0.0, []
    for name, rows in (("ehr", [0, 1, 3]), ("cxr", [0, 2, 3])):
        own = sample_losses(told[name], targets, model.shapes.task)[rows].mean()
        assert losses[name] == pytest.approx(float(own), abs=1e-5)
        pseudo += len(rows) / 4 * float(divergence(told[name], told["second"], kind)[rows].mean())
        for i in rows:
            true = [int(targets[i, 0])] if kind == "multiclass" else torch.nonzero(targets[i]).flatten().tolist()
            anchor = model.anchor + sum(model.anchors[k] for k in true)
            apart.append(float((output.features[name][i] - anchor.detach()).square().mean()))
    assert losses["pseudo"] == pytest.approx(0.5 * pseudo, abs=1e-5)
    assert losses["align"] == pytest.approx(2.0 * np.mean(apart), rel=1e-5)


def test_encoders_learn_from_their_own_heads_alone():
    model = model_of()
    batch, targets = batch_of(model), example_targets(model.shapes, 4)
    losses = model.losses(model(batch), batch, targets)
    for loss, learns in (("task", ()), ("pseudo", ()), ("align", ()), ("ehr", ("series",)), ("cxr", ("image",))):
        model.zero_grad()
        losses[loss].backward(retain_graph=True)
        moved = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved & {"series", "image"} == set(learns)
        assert moved


def test_unpaired_shows_a_fixed_half_of_a_pair_and_what_has_no_partner_as_it_is():
    model = model_of(unpaired=True)
    model.image_alone[:4] = torch.tensor([True, True, False, False])
    shown = model.shown(batch_of(model, (1, 0, 1, 1)))
    assert shown.present.tolist() == [[False, True], [True, False], [True, False], [True, False]]
    assert shown.image_sample.tolist() == [0]
    assert not shown.observed[0].any()
    assert shown.observed[1:].flatten(1).any(dim=1).all()
    share = float(build("unseen", dataclasses.replace(model.shapes, stays=4000), {}).image_alone.float().mean())
    assert 0.45 < share < 0.55


def test_in_training_alone_losses_are_of_what_unpaired_shows():
    model = model_of(unpaired=True).eval()
    batch, targets = batch_of(model), example_targets(model.shapes, 4)
    with torch.no_grad():
        shown = model.shown(batch)
        whole, hidden = (model.losses(model(each), each, targets) for each in (batch, shown))
        model.train()
        for module in model.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        trained = model.losses(model(batch), batch, targets)
    for key in whole:
        torch.testing.assert_close(trained[key], hidden[key])
    assert not torch.allclose(whole["task"], hidden["task"], atol=1e-4)


SHAPES = Shapes(get_task("mortality"), hours=12, channel_variable=(0, 1, 2, 2), px=16, encoders=SMALL)


def planted(size, seed, synergy):
    """Stays with an image; the label from the sum of what record and image show, or from their exclusive or."""
    g = torch.Generator().manual_seed(seed)
    batch = example_batch(SHAPES, size, torch.ones(size).bool(), seed)
    record, image = 2 * torch.randint(2, (2, size), generator=g) - 1
    ehr = batch.ehr.clone()
    ehr[:, :, 0] += record[:, None]
    stripe = torch.where(torch.arange(16) < 8, 0.2, -0.2)
    noise = 0.1 * torch.randn(batch.images.shape, generator=g)
    images = (0.5 + noise + image[:, None, None, None] * stripe).clamp(0, 1)
    odds = -8.0 * record * image if synergy else 2.0 * (record + image)
    y = (torch.rand(size, generator=g) < torch.sigmoid(odds)).float()[:, None]
    return dataclasses.replace(batch, ehr=ehr, images=images), y


def scores(unpaired, synergy, steps=200):
    """AUROC on fresh pairs, on their records alone, on their images alone; and the model."""
    batch, y = planted(512, 2, synergy)
    torch.manual_seed(1)
    model = build("unseen", SHAPES, {"unpaired": unpaired, "slots": 8})
    optimiser = optimiser_of(model)
    for rows in torch.cat([torch.randperm(512) for _ in range(steps // 16 + 1)]).split(32)[:steps]:
        take_step(model, optimiser, [(select(batch, rows), y[rows])])
    model.eval()
    fresh, truth = planted(1024, 99, synergy)
    with torch.no_grad():
        views = (fresh, without_images(fresh), without_record(fresh))
        return [float(auroc(model(view).logits, truth)[0]) for view in views], model


def test_pairs_never_seen_are_told_better_than_by_either_modality_where_effects_add_up():
    (pairs, record, image), model = scores(unpaired=True, synergy=False)
    assert pairs > 0.05 + max(record, image)
    assert min(record, image) > 0.65
    assert float(model.anchor.detach().norm()) > 0.2  # the slots' means have not collapsed to zero
    assert float(model.anchors.detach().norm()) > 0.2


def test_an_interaction_is_learned_from_pairs_that_are_seen_and_not_without_them():
    assert scores(unpaired=False, synergy=True)[0][0] > 0.6  # 0.5 is chance
    assert abs(scores(unpaired=True, synergy=True)[0][0] - 0.5) < 0.1  # chance


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"slots": 3}, "slots must be an even number"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"pseudo": -1.0}, "pseudo must be at least 0"),
        ({"align": -1.0}, "align must be at least 0"),
        ({"smoothing": 1.0}, "smoothing must be at least 0 and below 1"),
    ],
)
def test_impossible_knobs_are_refused(hyper, message):
    with pytest.raises(InputError, match=rf"strategies\.unseen: {message}"):
        model_of(**hyper)
