"""late_fusion: pooled vectors of the two encoders, concatenated, one linear head.

Paper: none (CareBench's LateFusion, arXiv 2602.23614: concatenation of features, not an average of decisions).
Idea: logits = W [e; c] + b, so they are a sum of an EHR part and an image part.
Missing image: the shared treatment, a learned vector in place of the image's vector, in training and at inference.
Changed: CareBench encodes a blank image through BatchNorm; here an absent image is never encoded.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import Batch, Output, Shapes, Strategy


class LateFusion(Strategy):
    """Concatenation of pooled features."""

    missing = "complete"
    interaction = "additive"

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        width = shapes.encoders.width
        self.series = TransformerEncoder(shapes)
        self.image = ImageEncoder(shapes)
        self.absent = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.head = nn.Linear(2 * width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """Logits from both vectors."""
        image = fill_absent(self.image(batch.images).pooled, batch, self.absent)
        joint = torch.cat([self.series(batch).pooled, image], dim=1)
        return Output(self.head(self.dropout(joint)) + self.prior)
