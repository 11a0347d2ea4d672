"""The answer of late_average is the average of probabilities taken by hand, and its two models never meet before it."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.interface import CXR, EHR
from pipeline.modelling.losses import mean_logits, probabilities, task_loss
from pipeline.modelling.registry import build
from pipeline.tasks import get_task

TASKS = ["mortality", "phenotype", "los"]


def made(task):
    torch.manual_seed(0)
    model = build("late_average", small_shapes(task), {"lr": 1e-3})
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    return model


def naive(logits, kind):
    """Probabilities of one sample's logits, in plain NumPy."""
    x = np.asarray(logits, float)
    if kind == "multiclass":
        e = np.exp(x - x.max())
        return e / e.sum()
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_the_average_over_the_modalities_that_are_there(task):
    model = made(task).eval()
    batch = example_batch(model.shapes, 6, torch.tensor([1, 1, 0, 0, 1, 0]).bool())
    present = batch.present.clone()
    present[:, EHR] = torch.tensor([1, 0, 1, 0, 1, 1]).bool()
    batch = dataclasses.replace(batch, present=present)
    with torch.no_grad():
        output = model(batch)
        p = probabilities(output.logits, model.shapes.task).numpy()
        pooled = model.image(batch.images).pooled
        image = dict(zip(batch.image_sample.tolist(), model.image_head(pooled) + model.prior, strict=True))
        series = model.series_head(model.series(batch).pooled) + model.prior
    kind = model.shapes.task.kind
    for i in range(6):
        there = [naive(series[i], kind)] if present[i, EHR] else []
        there += [naive(image[i], kind)] if present[i, CXR] else []
        expected = np.mean(there, axis=0) if there else naive(model.prior, kind)
        np.testing.assert_allclose(p[i], expected, atol=1e-5)


@settings(deadline=None)
@given(st.lists(st.floats(-200, 200), min_size=7, max_size=7), st.lists(st.floats(-200, 200), min_size=7, max_size=7))
def test_the_mean_is_right_where_models_are_sure(a, b):
    for task in map(get_task, ("phenotype", "los")):
        logits = mean_logits(torch.tensor([a]), torch.tensor([b]), task.kind)
        expected = (naive(np.float32(a), task.kind) + naive(np.float32(b), task.kind)) / 2
        np.testing.assert_allclose(probabilities(logits, task)[0], expected, rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize("task", TASKS)
def test_each_model_learns_from_its_own_loss_on_the_samples_where_it_is_present(task):
    model = made(task).eval()  # no dropout: losses can be compared
    batch = example_batch(model.shapes, 6, torch.tensor([1, 1, 0, 0, 1, 0]).bool())
    targets = example_targets(model.shapes, 6)
    output = model(batch)
    losses = model.losses(output, batch, targets)
    assert not losses["task"].requires_grad
    task_ = model.shapes.task
    torch.testing.assert_close(losses["ehr"], task_loss(output.unimodal["ehr"], targets, task_))
    imaged = batch.image_sample
    torch.testing.assert_close(losses["cxr"], task_loss(output.unimodal["cxr"][imaged], targets[imaged], task_))
    for loss, other in (("ehr", "image"), ("cxr", "series")):
        model.zero_grad()
        losses[loss].backward(retain_graph=True)
        moved = [key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()]
        assert moved
        assert not [key for key in moved if key.startswith(other)]


def test_without_a_record_the_ehr_model_learns_nothing():
    model = made("mortality")
    batch = example_batch(model.shapes, 4, torch.ones(4).bool())
    present = batch.present.clone()
    present[:, EHR] = False
    batch = dataclasses.replace(batch, present=present)
    assert model.losses(model(batch), batch, example_targets(model.shapes, 4))["ehr"] == 0
