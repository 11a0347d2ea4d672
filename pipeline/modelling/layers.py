"""What strategies are stacked from: attention, a transformer's layers, dropout; in the form that suits a CPU best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.params import Encoders

CHUNK = 2**18  # so many attention weights at once, that they stay in a processor's cache: 1 MiB
KEPT = 2**21  # beyond so many, 8 MiB, making them again in the derivative costs no more than to keep and fetch them


class Dropout(nn.Dropout):
    """torch's dropout; on a CPU from 32 random bits an entry, in half the time of its Bernoulli variables."""

    def forward(self, x: Tensor) -> Tensor:
        """x / (1 - p), with a share p of its entries zero; x itself outside of training."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty((x.numel() + 1) // 2, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int32)[: x.numel()].view(x.shape)
        bound = min(2**32 - 1, round((1 - self.p) * 2**32)) - 2**31
        kept = torch.lt(bits, bound, out=torch.empty(x.shape, dtype=x.dtype))
        return x * kept.div_(1 - self.p)


def _weights(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(queryᵀ · key + bias) [H, N, M] of heads [H, D, N] and [H, D, M], `bias` [H, 1, M]."""
    query = query.transpose(1, 2)
    return (torch.bmm(query, key) if bias is None else torch.baddbmm(bias, query, key)).softmax(dim=2)


class _Attend(torch.autograd.Function):
    """value · weightsᵀ [H, D, N], some heads at a time; the derivative's products in the layouts that are fastest."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        found, made = torch.empty_like(query), []
        for i in _chunks(query, key):
            made.append(_weights(query[i], key[i], None if bias is None else bias[i]))
            torch.bmm(value[i], made[-1].transpose(1, 2), out=found[i])
            if _count(query, key) > KEPT:
                made.clear()
        ctx.save_for_backward(query, key, value, bias, *made)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, *made = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            found = torch.bmm(value, _weights(query, key, bias).transpose(1, 2))
            return *torch.autograd.grad(found, (query, key, value), gradient, create_graph=True), None
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for n, i in enumerate(_chunks(query, key)):
            weights = made[n] if made else _weights(query[i], key[i], None if bias is None else bias[i])
            torch.bmm(gradient[i], weights, out=of_value[i])
            of_weights = torch.bmm(gradient[i].transpose(1, 2), value[i])
            of_scores = torch._softmax_backward_data(of_weights, weights, 2, weights.dtype)
            torch.bmm(key[i], of_scores.transpose(1, 2), out=of_query[i])
            torch.bmm(query[i], of_scores, out=of_key[i])
        return of_query, of_key, of_value, None


def _count(query: Tensor, key: Tensor) -> int:
    """H · N · M."""
    return len(query) * query.shape[2] * key.shape[2]


def _chunks(query: Tensor, key: Tensor) -> list[slice]:
    """Heads of at most CHUNK weights, or single ones."""
    size = max(1, CHUNK // (query.shape[2] * key.shape[2]))
    return [slice(first, first + size) for first in range(0, len(query), size)]


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of x [B, N, D] over context [B, M, E] (Vaswani et al. 2017).

    `real` [B, M] bool hides what is padding; each sample needs one real entry. No dropout on the weights: many are then
    never stored, and memory grows with N + M, not with N · M.
    """

    def __init__(self, width: int, heads: int, context: int | None = None, temperature: float = 1.0) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1 / (temperature * (width // heads) ** 0.5)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context or width, width, bias=False)  # a bias would cancel in the softmax
        self.value = nn.Linear(context or width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, real: Tensor | None = None) -> Tensor:
        """[B, N, D]."""
        query, key, value = self.query(x), self.key(context), self.value(context)
        found: Tensor = self.out((self._chunked if x.device.type == "cpu" else self._fused)(query, key, value, real))
        return found

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None) -> Tensor:
        query, key, value = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (query, key, value))
        mask = None if real is None else real[:, None, None, :]
        found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        joined: Tensor = found.transpose(1, 2).flatten(2)
        return joined

    def _chunked(self, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None) -> Tensor:
        """The same; torch's kernel is slow on a CPU. Heads are [B · H, D / H, N or M]: narrow ones multiply best so."""
        query, key, value = (
            each.transpose(1, 2).reshape(len(each) * self.heads, each.shape[2] // self.heads, each.shape[1])
            for each in (query * self.scale, key, value)
        )
        bias = None
        if real is not None:
            bias = torch.zeros_like(real, dtype=query.dtype).masked_fill_(~real, -torch.inf)
            bias = bias.repeat_interleave(self.heads, dim=0)[:, None]
        found: Tensor = _Attend.apply(query, key, value, bias)
        return found.reshape(len(found) // self.heads, self.heads * found.shape[1], found.shape[2]).transpose(1, 2)


class AttentionLayer(nn.Module):
    """Pre-norm transformer layer: self-attention and a feed-forward of width 4D, each with a residual."""

    def __init__(self, size: Encoders) -> None:
        super().__init__()
        width = size.width
        self.attention = Attention(width, size.heads)
        self.before = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Tensor, real: Tensor | None = None, first: int | None = None) -> Tensor:
        """[B, N, D], whose padding (`real` false) nothing attends to; where no more are needed, the `first` alone."""
        normed = self.before(x)
        x = x[:, :first] + self.dropout(self.attention(normed[:, :first], normed, real))
        x = x + self.dropout(self.feed(x))
        return x


class Transformer(nn.Module):
    """Pre-norm transformer layers [B, N, D] → [B, N, D], and a last norm."""

    def __init__(self, size: Encoders) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AttentionLayer(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)

    def forward(self, x: Tensor) -> Tensor:
        """As many tokens as came."""
        for layer in self.layers:
            x = layer(x)
        normed: Tensor = self.norm(x)
        return normed
