"""MMTM's gates against plain loops; those at stage 2 change stage 3's input."""

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
    return build("mmtm", small_shapes("phenotype"), {"lr": 1e-3, **hyper}).eval()


def linear(layer, x):
    return layer.weight.detach().numpy().astype(float) @ x + layer.bias.detach().numpy().astype(float)


def gate(x):
    return 2 / (1 + np.exp(-x))


def test_both_streams_are_gated_by_both_means():
    model = made()
    module = model.transfer[0]
    torch.nn.init.normal_(module.absent)
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    maps, series = torch.randn(3, len(module.absent), 4, 3), torch.randn(5, 48, 16)
    assert module.squeeze.out_features == (len(module.absent) + 16) // 2  # 2 (C + D) / ratio
    new_maps, new_series = (found.detach().numpy() for found in module(maps, series, batch))
    place = 0
    for i in range(5):
        mean = maps[place].numpy().astype(float).mean(axis=(1, 2)) if WITH_IMAGE[i] else module.absent.detach().numpy()
        joint = linear(module.squeeze, np.concatenate([mean, series[i].numpy().astype(float).mean(axis=0)]))
        joint = np.maximum(joint, 0)
        expected = series[i].numpy() * gate(linear(module.excite_series, joint))
        np.testing.assert_allclose(new_series[i], expected, atol=1e-5)
        if WITH_IMAGE[i]:
            expected = maps[place].numpy() * gate(linear(module.excite_map, joint))[:, None, None]
            np.testing.assert_allclose(new_maps[place], expected, atol=1e-5)
            place += 1
    assert place == 3


def test_the_gates_at_stage_2_change_the_input_of_stage_3_and_the_record_is_in_them():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    seen = []
    model.image.stages[3].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    before = model(batch).features
    with torch.no_grad():
        model.transfer[0].excite_map.bias.add_(1.0)
    after = model(batch).features
    assert torch.equal(before["stage 2"], after["stage 2"])
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)
    assert not torch.allclose(before["stage 3"], after["stage 3"], atol=1e-3)
    other = example_batch(model.shapes, 5, WITH_IMAGE, seed=1)
    batch.ehr.copy_(other.ehr)
    moved = model(batch).features
    assert torch.equal(moved["stage 2"], after["stage 2"])
    assert not torch.allclose(moved["stage 3"], after["stage 3"], atol=1e-4)


def test_every_module_learns():
    model = made(first_stage=0).train()
    assert len(model.transfer) == 5
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    model(batch).logits.square().sum().backward()
    for module in model.transfer:
        assert bool((module.excite_map.weight.grad != 0).any())
        assert bool((module.excite_series.weight.grad != 0).any())


def test_without_an_image_the_learned_vectors_stand_in():
    model = made()
    batch = example_batch(model.shapes, 5, WITH_IMAGE)
    before = model(batch).logits
    for vector in (model.absent, model.transfer[0].absent):
        with torch.no_grad():
            vector.add_(1.0)
        after = model(batch).logits
        torch.testing.assert_close(after[WITH_IMAGE], before[WITH_IMAGE], atol=1e-6, rtol=0)
        assert (after[~WITH_IMAGE] - before[~WITH_IMAGE]).abs().amax(dim=1).min() > 1e-5
        before = after


@pytest.mark.slow
def test_gates_from_the_stem_on_an_lstm_keep_the_contract():
    check_strategy("mmtm", {"first_stage": 0, "series": "lstm"})


@pytest.mark.parametrize(("key", "value"), [("ratio", 0), ("first_stage", 5)])
def test_an_impossible_value_is_named(key, value):
    with pytest.raises(InputError, match=rf"strategies\.mmtm: {key}: must be .*{value}"):
        made(**{key: value})
