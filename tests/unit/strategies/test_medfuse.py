"""MedFuse's state against a packed LSTM, sample by sample; its sequence has length one without an image."""

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_record

WITH_IMAGE = torch.tensor([1, 0, 1, 0, 0]).bool()


def made(series="transformer", task="phenotype"):
    torch.manual_seed(0)
    return build("medfuse", small_shapes(task), {"lr": 1e-3, "series": series}).eval()


def naive_state(model, steps):
    """The last hidden state over a list of vectors, gate by gate."""
    cell = model.cell
    w_in, w_state = cell.weight_ih.detach().numpy().astype(float), cell.weight_hh.detach().numpy().astype(float)
    bias = (cell.bias_ih + cell.bias_hh).detach().numpy().astype(float)
    hidden = memory = np.zeros(cell.hidden_size)
    for step in steps:
        i, f, g, o = np.split(w_in @ step + w_state @ hidden + bias, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        memory = f * memory + i * np.tanh(g)
        hidden = o * np.tanh(memory)
    return hidden


@pytest.mark.parametrize("series", ["transformer", "lstm"])
@pytest.mark.parametrize("ehr", [True, False])
def test_the_state_is_that_of_a_sequence_of_the_modalities_that_are_there(series, ehr):
    model = made(series)
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    if not ehr:
        batch = without_record(batch)
    output = model(batch)
    features = {key: value.detach().numpy().astype(float) for key, value in output.features.items()}
    images = iter(features["image"])
    for i in range(5):
        steps = [features["ehr"][i]] * ehr + ([next(images)] if WITH_IMAGE[i] else [])
        assert len(steps) == ehr + int(WITH_IMAGE[i])
        np.testing.assert_allclose(features["state"][i], naive_state(model, steps), atol=1e-5)
    expected = model.head(output.features["state"]) + model.prior
    torch.testing.assert_close(output.logits, expected)


def test_without_an_image_the_image_encoder_does_not_matter():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    before = model(batch).logits
    with torch.no_grad():
        for parameter in model.image.parameters():
            parameter.add_(0.1)
    after = model(batch).logits
    torch.testing.assert_close(after[~WITH_IMAGE], before[~WITH_IMAGE], atol=0, rtol=0)
    assert (after[WITH_IMAGE] != before[WITH_IMAGE]).any(dim=1).all()


def test_another_encoder_is_named():
    with pytest.raises(InputError, match=r"strategies\.medfuse: series: must be transformer or lstm, is 'gru'"):
        made("gru")
