"""gbm_image and gbm_late: what they see of the image, whose encoder it is, and the weight that validation chooses."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.fitted import features
from pipeline.modelling.interface import Earlier
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_images
from pipeline.training.settings import needed

BOTH = ["gbm_image", "gbm_late"]


def made(name, task="mortality", **hyper):
    torch.manual_seed(0)
    return build(name, small_shapes(task, 32), {"max_iter": 20, "min_samples_leaf": 5, **hyper}).eval()


def told(model, count=200, seed=0):
    """Every record tells something of the truth; where there is an image, it tells twice as much (first features)."""
    batch = example_batch(model.shapes, count, torch.arange(count) % 2 == 1, seed)
    y = (np.random.default_rng(seed).random(count) < 0.5).astype(np.float64)
    with torch.no_grad():
        x = model.summary(batch).numpy()
    record, image = features(model.shapes), np.arange(count) % 2 == 1
    x[:, 0] = 2 * y + np.random.default_rng(seed + 1).normal(size=count)
    x[image, record] = 4 * y[image] + np.random.default_rng(seed + 2).normal(size=image.sum())
    return x, y[:, None]


@pytest.mark.parametrize("name", BOTH)
def test_its_encoder_is_that_of_the_image_run_and_is_not_trained(name):
    model = made(name)
    assert needed(name, {}, "scratch") == ("resnet",)
    torch.manual_seed(1)
    resnet = build("resnet", model.shapes, {}).eval()
    model.learn_from({"resnet": Earlier(resnet, lambda: torch.zeros(0))})
    batch = example_batch(model.shapes, 5, torch.tensor([1, 0, 1, 0, 0]).bool())
    summary = model.summary(batch)
    record = features(model.shapes)
    pooled = resnet.encoder(batch.images).pooled
    assert torch.equal(summary[batch.image_sample, record:-1], pooled)
    assert summary[:, -1].tolist() == [1, 0, 1, 0, 0]
    assert not summary[1, record:].any()
    assert torch.equal(summary[:, :record], model.summary(without_images(batch))[:, :record])
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", BOTH)
def test_the_image_adds_to_what_the_record_tells(name):
    model = made(name)
    model.fit(*told(model), *told(model, seed=7))
    x, y = told(model, 400, seed=13)
    image, truth = x[:, -1] > 0, y[:, 0] > 0
    right = (model.scores(torch.from_numpy(x))[:, 0].numpy() > 0) == truth
    assert right[image].mean() > right[~image].mean() + 0.05


def test_without_an_image_the_blend_is_the_trees_alone_and_with_one_the_mean_of_probabilities():
    model = made("gbm_late")
    model.fit(*told(model), *told(model, seed=7))
    x, _ = told(model, 40, seed=13)
    x = torch.from_numpy(x)
    ehr, cxr = model.halves(x)
    share = float(model.share[0])
    assert 0 < share <= 1
    p = torch.sigmoid(model.scores(x))
    there = x[:, -1] > 0
    torch.testing.assert_close(p[~there], torch.sigmoid(ehr[~there]))
    expected = (1 - share) * torch.sigmoid(ehr[there]) + share * torch.sigmoid(cxr[there])
    torch.testing.assert_close(p[there], expected)


def test_the_share_has_the_lowest_loss_on_validation():
    model = made("gbm_late")
    x_val, y_val = told(model, seed=7)
    model.fit(*told(model), x_val, y_val)
    chosen = float(model.share[0])
    seen = torch.from_numpy(x_val[x_val[:, -1] > 0])
    truth = torch.from_numpy(y_val[x_val[:, -1] > 0])

    def loss(share):
        model.share[0] = share
        return float(torch.nn.functional.binary_cross_entropy_with_logits(model.scores(seen), truth))

    losses = {share: loss(share) for share in np.linspace(0, 1, 21)}
    assert min(losses, key=losses.get) == pytest.approx(chosen)


def test_without_an_image_on_validation_the_trees_answer_alone():
    model = made("gbm_late")
    x_val, y_val = told(model, seed=7)
    none = x_val[:, -1] == 0
    model.fit(*told(model), x_val[none], y_val[none])
    assert not model.share.any()
    batch = example_batch(model.shapes, 4, torch.ones(4).bool())
    other = dataclasses.replace(batch, images=1 - batch.images)
    assert torch.equal(model(batch).logits, model(other).logits)
