"""DAFT's transform against plain loops; it is the identity where the image is missing."""

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.checks import check_strategy
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.registry import build

WITH_IMAGE = torch.tensor([1, 0, 1, 0, 1]).bool()


def made(**hyper):
    torch.manual_seed(0)
    model = build("daft", small_shapes("phenotype"), {"lr": 1e-3, **hyper}).eval()
    torch.nn.init.normal_(model.transform.excite.weight)  # far from the identity that training starts at
    return model


def naive(model, pooled, other):
    """Scale and shift of one sample."""
    w1 = model.transform.squeeze.weight.detach().numpy().astype(float)
    w2 = model.transform.excite.weight.detach().numpy().astype(float)
    hidden = [max(0.0, float(row @ np.concatenate([pooled, other]))) for row in w1]
    found = [sum(w * h for w, h in zip(row, hidden, strict=True)) for row in w2]
    return 1 + np.array(found[: len(pooled)]), np.array(found[len(pooled) :])


def test_the_series_is_scaled_and_shifted_where_there_is_an_image_and_untouched_elsewhere():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    features = {key: value.detach() for key, value in model(batch).features.items()}
    assert torch.equal(features["before"], model.series(batch).tokens)
    assert torch.equal(features["after"][~WITH_IMAGE], features["before"][~WITH_IMAGE])
    for place, i in enumerate(torch.nonzero(WITH_IMAGE).squeeze(1).tolist()):
        before = features["before"][i].numpy().astype(float)
        scale, shift = naive(model, before.mean(axis=0), features["other"][place].numpy().astype(float))
        np.testing.assert_allclose(features["after"][i], before * scale + shift, atol=1e-5)
        assert np.abs(features["after"][i].numpy() - before).max() > 0.1


def test_the_map_is_scaled_and_shifted_by_the_record():
    model = made(target="image")
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    features = {key: value.detach().numpy().astype(float) for key, value in model(batch).features.items()}
    ehr = model.series(batch).pooled.detach().numpy()
    for place, i in enumerate(torch.nonzero(WITH_IMAGE).squeeze(1).tolist()):
        before = features["before"][place]
        scale, shift = naive(model, before.mean(axis=(1, 2)), ehr[i].astype(float))
        expected = np.stack([row * a + b for row, a, b in zip(before, scale, shift, strict=True)])
        np.testing.assert_allclose(features["after"][place], expected, atol=1e-5)


def test_a_prediction_without_an_image_is_that_of_the_series_alone():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    plain = model.head(model.after(model.series(batch).tokens).mean(dim=1)) + model.prior
    logits = model(batch).logits
    torch.testing.assert_close(logits[~WITH_IMAGE], plain[~WITH_IMAGE], atol=1e-5, rtol=0)
    assert not torch.allclose(logits[WITH_IMAGE], plain[WITH_IMAGE], atol=1e-3)


def test_training_starts_near_the_identity_and_yet_hears_the_image():
    torch.manual_seed(0)
    model = build("daft", small_shapes("los"), {"lr": 1e-3}).eval()
    scale, shift = (found.detach() for found in model.transform(torch.randn(99, 16), torch.randn(99, 16)))
    for found in (scale - 1, shift):
        assert 0.1 < found.std() < 0.5


def test_the_bottleneck_is_that_of_an_ehr_target():
    torch.manual_seed(0)
    model = build("daft", small_shapes("los"), {"lr": 1e-3})
    assert model.transform.squeeze.out_features == (16 + 256) // 7


@pytest.mark.slow
def test_the_papers_direction_keeps_the_contract():
    check_strategy("daft", {"target": "image", "series": "lstm"})


@pytest.mark.parametrize(("key", "value"), [("target", "both"), ("bottleneck", 0)])
def test_an_impossible_value_is_named(key, value):
    with pytest.raises(InputError, match=rf"strategies\.daft: {key}: must be .*{value}"):
        made(**{key: value})
