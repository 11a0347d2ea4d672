"""late_fusion: pooled vectors of the two encoders, concatenated, one linear head.

Paper: none (CareBench's LateFusion, arXiv 2602.23614: concatenation of features, not an average of decisions).
Idea: logits = W [e; c] + b, so they are a sum of an EHR part and an image part.
Missing image: the shared treatment, a learned vector in place of the image's vector, in training and at inference.
Several images: their vectors' mean by attention (encoders.OverImages), where images.per_stay is above 1.
Changed: CareBench encodes a blank image through BatchNorm; here an absent image is never encoded.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.modelling.encoders import ImageEncoder, OverImages, TransformerEncoder, fill_absent
from pipeline.modelling.interface import Batch, Output, Shapes, Strategy
from pipeline.modelling.views import latest_images


class LateFusion(Strategy):
    """Concatenation of pooled features."""

    missing = "complete"
    interaction = "additive"
    every_image = True

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        width = shapes.encoders.width
        self.series = TransformerEncoder(shapes)
        self.image = ImageEncoder(shapes)
        self.absent = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.head = nn.Linear(2 * width, shapes.outputs)
        self.over = OverImages(width) if shapes.images > 1 else None

    def forward(self, batch: Batch) -> Output:
        """Logits from both vectors."""
        image = self.image(batch.images).pooled
        if self.over:
            image, batch = self.over(image, batch), latest_images(batch)
        image = fill_absent(image, batch, self.absent)
        joint = torch.cat([self.series(batch).pooled, image], dim=1)
        return Output(self.head(self.dropout(joint)) + self.prior)
