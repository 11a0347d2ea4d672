"""A sparse mixture of experts: noisy top-k gate (Shazeer et al. 2017, arXiv 1701.06538), load, and how even it is."""

from __future__ import annotations

import math

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


class Experts(nn.Module):
    """Noisy top-k gate and its experts, two-layer perceptrons. An expert sees the tokens that chose it alone."""

    def __init__(self, width: int, count: int, chosen: int) -> None:
        super().__init__()
        self.chosen = chosen
        self.gate = nn.Parameter(torch.randn(width, count) / math.sqrt(width))
        self.noise = nn.Parameter(torch.zeros(width, count))
        bound = 1 / math.sqrt(width)
        self.first = nn.Parameter(torch.empty(count, width, 2 * width).uniform_(-bound, bound))
        self.first_bias = nn.Parameter(torch.zeros(count, 1, 2 * width))
        self.second = nn.Parameter(torch.empty(count, 2 * width, width).uniform_(-bound, bound))
        self.second_bias = nn.Parameter(torch.zeros(count, 1, width))

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, gates and load [N, E] of tokens [N, D]: noise in training alone."""
        clean = tokens @ self.gate
        noisy, deviation = clean, None
        if self.training:
            deviation = softplus(tokens @ self.noise) + NOISE_FLOOR
            noisy = clean + torch.randn_like(clean) * deviation
        top, place = noisy.topk(self.chosen, dim=1)
        gates = torch.zeros_like(noisy).scatter(1, place, torch.softmax(top, dim=1).to(noisy.dtype))
        if deviation is None or self.chosen == clean.shape[1]:
            return noisy, gates, (gates > 0).to(gates.dtype)
        return noisy, gates, chance_of_choice(clean, noisy, deviation, self.chosen)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixture [N, D] and what `route` gives."""
        logits, gates, load = self.route(tokens)
        expert, token = gates.T.nonzero(as_tuple=True)  # in the order of the experts
        counts = torch.bincount(expert, minlength=gates.shape[1]).tolist()
        weights = zip(self.first, self.first_bias, self.second, self.second_bias, strict=True)
        asked = tokens.index_select(0, token).split(counts)
        answers = torch.cat([gelu(x @ w + a) @ v + b for x, (w, a, v, b) in zip(asked, weights, strict=True)])
        answers = answers * gates[token, expert].to(answers.dtype)[:, None]
        return torch.zeros_like(tokens, dtype=answers.dtype).index_add(0, token, answers), logits, gates, load
