"""flexmoe: a learned stand-in for what is missing, and experts that samples are routed to by what they have.

Paper: Yun et al., NeurIPS 2024 (arXiv 2410.08245).
Idea: tokens of both modalities pass a transformer layer whose feed-forward part is a sparse mixture of experts;
complete samples spread over all experts evenly (the general router), a combination with something missing is pushed to
an expert of its own (the special router).
Missing image: native. Its tokens come from the missing modality bank (here a single entry: the image's, given the EHR),
in training and at inference, and the sample's tokens are routed to expert 1. Records are never missing in training:
one that is removed at inference enters as a record in which nothing was charted.
Changed: tokens are hours and cells of the image's grid, not linear views of a pooled vector; pre-norm with true
residuals. The loop draws the samples' order, so the warm-up (complete samples first) is that the special router waits.
With one incomplete combination, an even load over the other experts would oppose the special router and is left out.
Load is counted over both modalities' tokens at once, where the authors' code calls the experts once a modality. In
the matched cohort no image is missing in training: the bank is then not trained, and an image removed at inference is
replaced by its random start. The full paper could not be read: the source is a description of the authors' code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, gelu, softplus

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder
from pipeline.modelling.interface import CXR, Batch, Epoch, Output, Shapes, Strategy, mean_where
from pipeline.modelling.layers import Attention, Dropout

EHR_ALONE = 1  # the combination without an image, and the number of its expert; 0 is the complete one
NOISE_FLOOR = 0.01  # of the gate's noise (Shazeer et al. 2017, arXiv 1701.06538)


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


class FlexMoE(Strategy):
    """Missing modality bank and mixture of experts."""

    missing = "native"
    warm: torch.Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        experts: int = 16,
        chosen: int = 4,
        patches: int = 16,
        gate: float = 0.01,
        warm_up_epochs: int = 5,
    ) -> None:
        super().__init__(shapes)
        if not 1 <= chosen <= experts or experts < 2:
            raise ValueError(f"chosen must lie between 1 and experts (at least 2), is {chosen} of {experts}")
        if patches < 1 or math.isqrt(patches) ** 2 != patches:
            raise ValueError(f"patches must be a square number, is {patches}")
        if gate < 0 or warm_up_epochs < 0:
            raise ValueError(f"gate and warm_up_epochs must be at least 0, are {gate} and {warm_up_epochs}")
        self.patches, self.gate, self.warm_up_epochs = patches, gate, warm_up_epochs
        size = shapes.encoders
        self.series = TransformerEncoder(shapes)
        self.image = ImageEncoder(shapes)
        self.bank = nn.Parameter(torch.randn(patches, size.width))
        self.positions = nn.Parameter(torch.zeros(2 * patches, size.width))
        self.norm, self.norm_experts = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.attention = Attention(size.width, size.heads)
        self.experts = Experts(size.width, experts, chosen)
        self.dropout = Dropout(size.dropout)
        self.head = nn.Linear(2 * size.width, shapes.outputs)
        self.register_buffer("warm", torch.zeros((), dtype=torch.bool))

    def tokens(self, batch: Batch) -> Tensor:
        """[B, 2·patches, D]: means of equal stretches of the hours, means of the image's grid or the bank's entry."""
        hours = adaptive_avg_pool1d(self.series(batch).tokens.transpose(1, 2), self.patches).transpose(1, 2)
        grid = self.image(batch.images).tokens.transpose(1, 2)
        side = math.isqrt(grid.shape[2])
        cells = (
            adaptive_avg_pool2d(grid.unflatten(2, (side, side)), math.isqrt(self.patches)).flatten(2).transpose(1, 2)
        )
        filled = self.bank.to(cells.dtype).expand(batch.size, -1, -1).index_copy(0, batch.image_sample, cells)
        return torch.cat([hours, filled], dim=1) + self.positions

    def forward(self, batch: Batch) -> Output:
        """Logits from both modalities' mean tokens; `features` holds what the gate did, [B, 2·patches, E]."""
        tokens = self.tokens(batch)
        normed = self.norm(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed))
        flat = self.norm_experts(tokens).flatten(0, 1)
        mixture, *routed = self.experts(flat)
        tokens = tokens + self.dropout(mixture.unflatten(0, (batch.size, -1)))
        pooled = tokens.unflatten(1, (2, self.patches)).mean(dim=2).flatten(1)
        names = ("gate_logits", "gates", "load")
        features = {name: value.unflatten(0, (batch.size, -1)) for name, value in zip(names, routed, strict=True)}
        return Output(self.head(self.dropout(pooled)) + self.prior, features=features)

    def between_epochs(self, epoch: Epoch) -> None:
        """The special router starts when the warm-up is over."""
        self.warm.fill_(epoch.done >= self.warm_up_epochs)

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss; evenness of the complete samples' routing; the incomplete ones' cross-entropy to their expert."""
        full = batch.present[:, CXR]
        gates, load = (output.features[key] * full[:, None, None] for key in ("gates", "load"))
        balance = unevenness(gates.sum(dim=(0, 1))) + unevenness(load.sum(dim=(0, 1)))
        logits = output.features["gate_logits"]
        expert = torch.full(logits.shape[:2], EHR_ALONE, device=logits.device)
        miss = nn.functional.cross_entropy(logits.transpose(1, 2), expert, reduction="none").mean(dim=1)
        return {
            **super().losses(output, batch, targets),
            "general_router": self.gate * balance,
            "special_router": self.gate * self.warm * mean_where(miss, ~full),
        }
