"""Attention against a naive loop, and its padding."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch

from pipeline.modelling import encoders
from pipeline.modelling.encoders import Attention, AttentionLayer
from pipeline.modelling.examples import SMALL


def linear(layer, x):
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy().astype(float)
    return x @ layer.weight.detach().numpy().astype(float).T + bias


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_attention_is_what_the_loop_says(temperature):
    torch.manual_seed(0)
    attention = Attention(6, 2, context=5, temperature=temperature)
    x, context = torch.randn(2, 3, 6), torch.randn(2, 4, 5)
    real = torch.tensor([[True, True, False, True], [True, False, False, False]])
    found = attention(x, context, real).detach().numpy()
    for b in range(2):
        q, k, v = (
            linear(layer, part.numpy().astype(float))
            for layer, part in ((attention.query, x[b]), (attention.key, context[b]), (attention.value, context[b]))
        )
        for n in range(3):
            heads = []
            for h in (slice(0, 3), slice(3, 6)):
                weights = np.exp(k[:, h] @ q[n, h] / (np.sqrt(3) * temperature)) * real[b].numpy()
                heads.append(weights @ v[:, h] / weights.sum())
            np.testing.assert_allclose(found[b, n], linear(attention.out, np.concatenate(heads)), atol=1e-5)


def test_a_layer_does_not_see_padding():
    torch.manual_seed(0)
    layer = AttentionLayer(SMALL).eval()
    x = torch.randn(2, 5, SMALL.width)
    real = torch.ones(2, 5).bool()
    real[:, 3:] = False
    padded = x.clone()
    padded[:, 3:] = 9.0
    short = layer(x[:, :3])
    torch.testing.assert_close(layer(padded, real)[:, :3], short, atol=1e-5, rtol=0)
    assert not torch.allclose(layer(padded)[:, :3], short, atol=1e-3)


@pytest.mark.parametrize("padded", [False, True])
def test_few_entries_and_many_are_attended_to_alike(padded, monkeypatch):
    """A CPU multiplies matrices where entries are few; torch's kernel, which keeps no weights, does the rest."""
    torch.manual_seed(0)
    attention = Attention(8, 2, context=5)
    x, context = torch.randn(3, 4, 8, requires_grad=True), torch.randn(3, 6, 5)
    real = torch.tensor([[True] * 6, [True] + [False] * 5, [False, True, True] * 2]) if padded else None

    def attend():
        found = attention(x, context, real)
        return found, *torch.autograd.grad(found.square().sum(), [x, *attention.parameters()])

    few = attend()
    assert attention(x[:0], context[:0], None if real is None else real[:0]).shape == (0, 4, 8)
    kernel = Mock(wraps=torch.nn.functional.scaled_dot_product_attention)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", kernel)
    assert torch.equal(attend()[0], few[0])
    assert kernel.call_count == 0
    monkeypatch.setattr(encoders, "SHORT", 5)
    for one, other in zip(few, attend(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert kernel.call_count == 1
    monkeypatch.setattr(encoders, "SHORT", 6)
    with torch.no_grad():  # forwards the kernel is the faster one
        torch.testing.assert_close(attention(x, context, real), few[0], atol=1e-5, rtol=1e-5)
    assert kernel.call_count == 2
