"""What strategies are stacked from: attention, a transformer's layers, dropout; in the form that suits a CPU best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.params import Encoders

KEPT = 2**24  # so many attention weights a CPU keeps, 64 MiB, and attends by matrix products: torch's kernel is slow
CHUNK = 2**18  # weights at once, so that they stay in a processor's cache: 1 MiB


class Dropout(nn.Module):
    """torch's dropout; on a CPU from 32 random bits an entry, in half the time of its Bernoulli variables."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.bound = min(2**32 - 1, round((1 - share) * 2**32)) - 2**31  # an entry is kept below, share > 0

    def forward(self, x: Tensor) -> Tensor:
        """x / (1 - share), with a share of its entries zero; x itself outside of training."""
        if not self.training or self.share == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.share)
        words = torch.empty((x.numel() + 1) // 2, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int32)[: x.numel()].view(x.shape)
        kept = torch.lt(bits, self.bound, out=torch.empty(x.shape, dtype=x.dtype))
        return x * kept.div_(1 - self.share)


def _attended(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, scale: float) -> Tensor:
    """value · softmax(scale · queryᵀ · key)ᵀ of heads [B · H, D / H, N or M], where `hidden` [B · H, 1, M] is false."""
    scores = torch.bmm(query.transpose(1, 2) * scale, key)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    return torch.bmm(value, scores.softmax(dim=2).transpose(1, 2))


class _Attend(torch.autograd.Function):
    """_attended, some heads at a time, with each product of its derivative in the layout that is multiplied fastest."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, scale: float) -> Tensor:
        found, weights = torch.empty_like(query), query.new_empty((len(query), query.shape[2], key.shape[2]))
        for i in _chunks(weights):
            scores = _scaled(query[i].transpose(1, 2), key[i], scale, weights[i])
            if hidden is not None:
                scores.masked_fill_(hidden[i], -torch.inf)
            torch.softmax(scores, 2, out=scores)
            torch.bmm(value[i], scores.transpose(1, 2), out=found[i])
        ctx.save_for_backward(query, key, value, hidden, weights)
        ctx.scale = scale
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, hidden, weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            found = _attended(query, key, value, hidden, ctx.scale)
            return *torch.autograd.grad(found, (query, key, value), gradient, create_graph=True), None, None
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for i in _chunks(weights):
            torch.bmm(gradient[i], weights[i], out=of_value[i])
            of_weights = torch.bmm(gradient[i].transpose(1, 2), value[i])
            of_scores = torch._softmax_backward_data(of_weights, weights[i], 2, weights.dtype)
            _scaled(key[i], of_scores.transpose(1, 2), ctx.scale, of_query[i])
            _scaled(query[i], of_scores, ctx.scale, of_key[i])
        return of_query, of_key, of_value, None, None


def _scaled(a: Tensor, b: Tensor, scale: float, out: Tensor) -> Tensor:
    """scale · a · b, into `out`."""
    return torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)


def _chunks(weights: Tensor) -> list[slice]:
    """Heads of at most CHUNK weights [B · H, N, M], or single ones."""
    size = max(1, CHUNK // max(1, weights.shape[1] * weights.shape[2]))
    return [slice(first, first + size) for first in range(0, len(weights), size)]


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of x [B, N, D] over context [B, M, E] (Vaswani et al. 2017).

    `real` [B, M] bool hides what is padding; each sample needs one real entry. No dropout on the weights: beyond KEPT
    they are then never stored, and memory grows with N + M, not with N · M.
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
        few = x.device.type == "cpu" and self.heads * x.shape[0] * x.shape[1] * context.shape[1] <= KEPT
        found: Tensor = self.out((self._few if few else self._many)(query, key, value, real))
        return found

    def _many(self, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None) -> Tensor:
        query, key, value = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (query, key, value))
        mask = None if real is None else real[:, None, None, :]
        found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        joined: Tensor = found.transpose(1, 2).flatten(2)
        return joined

    def _few(self, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None) -> Tensor:
        """The same with the weights in memory, and heads [B · H, D / H, N or M]: narrow ones are multiplied best so."""
        query, key, value = (
            each.transpose(1, 2).reshape(len(each) * self.heads, each.shape[2] // self.heads, each.shape[1])
            for each in (query, key, value)
        )
        hidden = None if real is None else ~real.repeat_interleave(self.heads, dim=0)[:, None]
        found: Tensor = _Attend.apply(query, key, value, hidden, self.scale)
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
