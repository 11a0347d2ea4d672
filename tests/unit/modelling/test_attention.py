"""Attention against a naive loop, its padding and its derivatives; dropout against its law."""

import numpy as np
import pytest
import torch

from pipeline.modelling import layers
from pipeline.modelling.examples import SMALL
from pipeline.modelling.layers import Attention, AttentionLayer


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


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_in_chunks_has_the_formulas_first_and_second_derivatives(padded, kept, monkeypatch):
    monkeypatch.setattr(layers, "CHUNK", 2 * 3 * 5)  # two of the three heads, then one
    monkeypatch.setattr(layers, "KEPT", 3 * 3 * 5 if kept else 3 * 3 * 5 - 1)
    torch.manual_seed(0)
    query, key, value = heads = [torch.randn(3, 2, n, dtype=torch.float64, requires_grad=True) for n in (3, 5, 5)]
    hidden = torch.tensor([[False] * 5, [False] + [True] * 4, [True, False, False, True, False]])[:, None]
    bias = torch.zeros(3, 1, 5, dtype=torch.float64).masked_fill(hidden, -torch.inf) if padded else None

    def attend(*heads):
        return layers._Attend.apply(*heads, bias)

    scores = (query.transpose(1, 2) @ key).masked_fill(hidden & padded, -torch.inf)
    expected = value @ torch.softmax(scores, dim=2).transpose(1, 2)
    found = attend(*heads)
    assert len(found.grad_fn.saved_tensors) == 4 + 2 * kept  # the weights of two chunks, or none
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    for ours, naive in zip(
        torch.autograd.grad(found.square().sum(), heads),
        torch.autograd.grad(expected.square().sum(), heads),
        strict=True,
    ):
        torch.testing.assert_close(ours, naive, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(attend, heads)
    assert torch.autograd.gradgradcheck(attend, heads)


@pytest.mark.parametrize("padded", [False, True])
def test_a_cpu_attends_as_torchs_kernel_does_in_training_and_at_inference(padded):
    torch.manual_seed(0)
    attention = layers.Attention(8, 2, context=5, temperature=0.5)
    x, context = torch.randn(3, 4, 8), torch.randn(3, 6, 5)
    real = torch.tensor([[True] * 6, [True] + [False] * 5, [False, True, True] * 2]) if padded else None
    parts = attention.query(x), attention.key(context), attention.value(context)
    expected = attention.out(attention._fused(*parts, real))
    torch.testing.assert_close(attention(x, context, real), expected, atol=1e-6, rtol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(attention(x, context, real), expected.detach(), atol=1e-6, rtol=1e-6)
    assert attention(x[:0], context[:0], None if real is None else real[:0]).shape == (0, 4, 8)


def test_dropout_zeroes_its_share_and_scales_the_rest_forwards_and_backwards():
    torch.manual_seed(0)
    dropout, x = layers.Dropout(0.2), torch.full((401, 1001), 3.0, requires_grad=True)
    found = dropout(x)
    kept = found > 0
    assert float(kept.float().mean()) == pytest.approx(0.8, abs=0.002)  # three standard deviations are 0.0019
    for lag in (1, 2, 1001):  # neighbours, words, rows: what is kept says nothing of what else is
        both = kept.flatten()[lag:] & kept.flatten()[:-lag]
        assert float(both.float().mean()) == pytest.approx(0.64, abs=0.003)
    assert torch.equal(found[kept], torch.full_like(found[kept], 3.0 / 0.8))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, kept / 0.8)
    assert not torch.equal(dropout(x), found)
    assert dropout.eval()(x) is x
    assert dropout.train()(x[:0]).shape == (0, 1001)
    assert layers.Dropout(0.0)(x) is x
    assert float(layers.Dropout(1e-12)(x.detach()).sum()) == pytest.approx(3.0 * x.numel())
