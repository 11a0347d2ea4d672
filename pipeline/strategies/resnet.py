"""resnet: a ResNet on the chest radiograph. CXR alone.

Paper: He et al., CVPR 2016 (arXiv 1512.03385); the unimodal baseline of CareBench, arXiv 2602.23614.
Idea: the pooled features of the last stage, one linear head.
Missing image: without one it predicts the training prevalence, a constant, in training and at inference: it learns from
the stays that have one, each with the same weight. Its numbers in the base cohort mix a classifier with that constant,
and the report says so.
Changed: CareBench trains and scores it on blank images for the three in four stays without one; GroupNorm from scratch.
"""

from __future__ import annotations

from torch import nn

from pipeline.modelling.encoders import ImageEncoder
from pipeline.modelling.interface import Batch, Output, Shapes, Strategy


class ResNet(Strategy):
    """Unimodal image baseline."""

    modalities = frozenset({"cxr"})
    missing = "native"
    interaction = "additive"

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        self.encoder = ImageEncoder(shapes)
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.head = nn.Linear(shapes.encoders.width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """Logits from the image; the prior's where there is none."""
        logits = self.head(self.dropout(self.encoder(batch.images).pooled)) + self.prior
        base = self.prior.to(logits.dtype).expand(batch.size, -1)
        return Output(base.index_copy(0, batch.image_sample, logits))
