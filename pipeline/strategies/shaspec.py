"""shaspec: one shared encoder and a specific one a modality; a missing image is stood in for by the shared feature.

Paper: Wang et al., CVPR 2023 (arXiv 2307.14126).
Idea: shared features of a sample are pulled together, specific ones must tell which modality they come from; each
modality's feature is shared + W [shared; specific], and where a modality is missing, the other's shared feature.
Missing image: native. Its feature is the EHR's shared one, in training and at inference; an absent record's is the
image's. Neither alignment nor the domain loss sees what is not there.
Changed: the raw inputs differ in kind, so the shared encoder is one transformer with the same weights for both
modalities, behind a light stem for each (the linear embedding of the hours; a CNN, whose grid gives tokens). The
specific encoders are those of all strategies and share no stem with it, as the authors': what draws the shared
features together leaves the specific ones alone. The domain classifier sees specific features (in CareBench it sees
shared ones). A two-layer head replaces the decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent, series_channels
from pipeline.modelling.interface import CXR, EHR, Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import Transformer
from pipeline.modelling.losses import mean_where


class ShaSpec(Strategy):
    """Shared-specific features."""

    missing = "native"

    def __init__(self, shapes: Shapes, *, align: float = 0.1, domain: float = 0.02) -> None:
        super().__init__(shapes)
        for key, weight in (("align", align), ("domain", domain)):
            if weight < 0:
                raise ValueError(f"{key} must be at least 0, is {weight}")
        self.align, self.domain = align, domain
        size = shapes.encoders
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)  # the specific ones
        self.hours = nn.Linear(shapes.channels + 2 * shapes.variables, size.width)  # stems of the shared one
        self.positions = nn.Parameter(torch.randn(shapes.hours, size.width) * 0.02)
        self.grid = ImageEncoder(shapes)
        self.shared = Transformer(size)
        self.compose = nn.Linear(2 * size.width, size.width)
        self.classify_domain = nn.Linear(size.width, 2)
        self.head = nn.Sequential(
            nn.Dropout(size.dropout),
            nn.Linear(2 * size.width, size.width),
            nn.ReLU(),
            nn.Dropout(size.dropout),
            nn.Linear(size.width, shapes.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        """Logits from both composed features; shared and specific ones in `features`, [B, D] each."""
        hours = self.hours(series_channels(batch)) + self.positions
        grid, image = self.grid(batch.images).tokens, self.image(batch.images).pooled
        nothing = image.new_zeros(image.shape[1])
        shared = {
            "ehr": self.shared(hours).mean(dim=1),
            "cxr": fill_absent(self.shared(grid).mean(dim=1), batch, nothing),
        }
        specific = {"ehr": self.series(batch).pooled, "cxr": fill_absent(image, batch, nothing)}
        there = {"cxr": batch.present[:, CXR], "ehr": batch.present[:, EHR] | ~batch.present[:, CXR]}
        fused = [
            torch.where(there[key][:, None], self.composed(shared[key], specific[key]), shared[other])
            for key, other in (("ehr", "cxr"), ("cxr", "ehr"))
        ]
        features = {f"shared_{key}": value for key, value in shared.items()}
        features |= {f"specific_{key}": value for key, value in specific.items()}
        return Output(self.head(torch.cat(fused, dim=1)) + self.prior, features=features)

    def composed(self, shared: Tensor, specific: Tensor) -> Tensor:
        """[B, D]: the shared feature and a residual from both."""
        residual: Tensor = self.compose(torch.cat([shared, specific], dim=1))
        return shared + residual

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss; L1 distance of the shared features of pairs; cross-entropy of which modality a specific one is."""
        features = output.features
        pairs = batch.present[:, EHR] & batch.present[:, CXR]
        distance = (features["shared_ehr"] - features["shared_cxr"]).abs().mean(dim=1)
        specific = torch.cat([features["specific_ehr"], features["specific_cxr"]])
        modality = torch.tensor([EHR, CXR], device=specific.device).repeat_interleave(batch.size)
        guess = nn.functional.cross_entropy(self.classify_domain(specific), modality, reduction="none")
        return {
            **super().losses(output, batch, targets),
            "align": self.align * mean_where(distance, pairs),
            "domain": self.domain * mean_where(guess, batch.present.T.flatten()),
        }
