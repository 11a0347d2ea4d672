"""ehr_presence: the EHR transformer that is also told whether there is an image. A control: it sees no pixel.

Paper: none. That an image was taken tells of a patient by itself (informative presence).
Idea: the pooled series and `has_cxr`, one hidden layer. What fusion gains over this is what the pixels are worth.
Missing image: that it is missing is an input, after natural absence and removal, in training and at inference.
Changed: nothing.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.modelling.encoders import TransformerEncoder
from pipeline.modelling.interface import CXR, Batch, Output, Shapes, Strategy


class EHRPresence(Strategy):
    """EHR and whether there is an image."""

    modalities = frozenset({"ehr", "presence"})

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        width = shapes.encoders.width
        self.series = TransformerEncoder(shapes)
        self.head = nn.Sequential(
            nn.Linear(width + 1, width),
            nn.GELU(),
            nn.Dropout(shapes.encoders.dropout),
            nn.Linear(width, shapes.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        """Logits from the pooled series and one bit."""
        pooled = self.series(batch).pooled
        there = batch.present[:, CXR, None].to(pooled.dtype)
        return Output(self.head(torch.cat([pooled, there], dim=1)) + self.prior)
