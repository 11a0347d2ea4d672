"""A sparse mixture of experts: noisy top-k gate (Shazeer et al. 2017, arXiv 1701.06538), load, and how even it is."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, softplus

NOISE_FLOOR = 0.01  # of the gate's noise


def unevenness(amounts: Tensor) -> Tensor:
    """Squared coefficient of variation of amounts [E]; 0 where they are all 0."""
    return amounts.var() / (amounts.mean() ** 2 + 1e-10)


def chance_of_choice(clean: Tensor, noisy: Tensor, deviation: Tensor, k: int) -> Tensor:
    """[N, E]: how likely each expert is among the k of largest logit, were its noise alone drawn again.

    (Shazeer et al. 2017, equations 8 and 9.)
    """
    top = noisy.topk(k + 1, dim=1).values
    chosen = noisy > top[:, k:]
    bar = torch.where(chosen, top[:, k:], top[:, k - 1 : k])
    chance: Tensor = torch.special.ndtr((clean - bar) / deviation)
    return chance


class Routed(NamedTuple):
    """What a router says of tokens, each [N, E]: `gates` weigh the experts, `load` is what they expect of tokens."""

    logits: Tensor
    gates: Tensor
    load: Tensor


class Router(nn.Module):
    """Noisy top-k gate of tokens [N, D], noise in training alone.

    `gate`: an expert's logit is the inner product with its vector (softmax), or the distance to it, negative and plain
    (laplace) or squared (gaussian): Han et al. 2024, arXiv 2402.03226.
    """

    def __init__(self, width: int, count: int, chosen: int, gate: str = "softmax") -> None:
        super().__init__()
        self.chosen, self.kind = chosen, gate
        scale = 1.0 if gate == "laplace" else 1 / math.sqrt(width)  # so that logits differ by about 1 between experts
        self.gate = nn.Parameter(torch.randn(width, count) * scale)
        self.noise = nn.Parameter(torch.zeros(width, count))

    def clean(self, tokens: Tensor) -> Tensor:
        """Logits [N, E] without noise."""
        if self.kind == "softmax":
            return tokens @ self.gate
        # Not by a matrix product: that loses the digits by which near distances differ.
        exact = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(tokens.float(), self.gate.T.float(), compute_mode=exact)
        return -distance if self.kind == "laplace" else -distance.square()

    def forward(self, tokens: Tensor) -> Routed:
        """Of each token the softmax over its k largest logits."""
        clean = self.clean(tokens)
        noisy, deviation = clean, None
        if self.training:
            deviation = softplus(tokens @ self.noise) + NOISE_FLOOR
            noisy = clean + torch.randn_like(clean) * deviation
        top, place = noisy.topk(self.chosen, dim=1)
        gates = torch.zeros_like(noisy).scatter(1, place, torch.softmax(top, dim=1).to(noisy.dtype))
        if deviation is None or self.chosen == clean.shape[1]:
            return Routed(noisy, gates, (gates > 0).to(gates.dtype))
        return Routed(noisy, gates, chance_of_choice(clean, noisy, deviation, self.chosen))


class Experts(nn.Module):
    """Two-layer perceptrons. An expert sees the tokens that chose it alone."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.first = nn.Parameter(torch.empty(count, width, 2 * width).uniform_(-bound, bound))
        self.first_bias = nn.Parameter(torch.zeros(count, 1, 2 * width))
        self.second = nn.Parameter(torch.empty(count, 2 * width, width).uniform_(-bound, bound))
        self.second_bias = nn.Parameter(torch.zeros(count, 1, width))

    def forward(self, tokens: Tensor, gates: Tensor) -> Tensor:
        """Mixture [N, D] of tokens [N, D] by their gates [N, E]."""
        expert, token = gates.T.nonzero(as_tuple=True)  # in the order of the experts
        counts = torch.bincount(expert, minlength=gates.shape[1]).tolist()
        weights = zip(self.first, self.first_bias, self.second, self.second_bias, strict=True)
        asked = tokens.index_select(0, token).split(counts)
        answers = torch.cat([gelu(x @ w + a) @ v + b for x, (w, a, v, b) in zip(asked, weights, strict=True)])
        answers = answers * gates[token, expert].to(answers.dtype)[:, None]
        return torch.zeros_like(tokens, dtype=answers.dtype).index_add(0, token, answers)
