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

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, even_tokens
from pipeline.modelling.experts import Experts, Router, unevenness
from pipeline.modelling.interface import CXR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.layers import Attention, Dropout
from pipeline.modelling.losses import mean_where

EHR_ALONE = 1  # the combination without an image, and the number of its expert; 0 is the complete one


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
        self.router, self.experts = Router(size.width, experts, chosen), Experts(size.width, experts)
        self.dropout = Dropout(size.dropout)
        self.head = nn.Linear(2 * size.width, shapes.outputs)
        self.register_buffer("warm", torch.zeros((), dtype=torch.bool))

    def tokens(self, batch: Batch) -> Tensor:
        """[B, 2·patches, D]: means of equal stretches of the hours, means of the image's grid or the bank's entry."""
        hours, cells = even_tokens(self.series(batch), self.image(batch.images), self.patches)
        filled = self.bank.to(cells.dtype).expand(batch.size, -1, -1).index_copy(0, batch.image_sample, cells)
        return torch.cat([hours, filled], dim=1) + self.positions

    def forward(self, batch: Batch) -> Output:
        """Logits from both modalities' mean tokens; `features` holds what the gate did, [B, 2·patches, E]."""
        tokens = self.tokens(batch)
        normed = self.norm(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed))
        flat = self.norm_experts(tokens).flatten(0, 1)
        routed = self.router(flat)
        mixture = self.experts(flat, routed.gates)
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
