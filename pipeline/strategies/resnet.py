"""resnet: a ResNet on the chest radiograph. CXR alone.

Paper: He et al., CVPR 2016 (arXiv 1512.03385); the unimodal baseline of CareBench, arXiv 2602.23614.
Idea: the pooled features of the last stage, one linear head.
Missing image: trains on the stays that have one; without one it predicts the training prevalence. So its numbers in
the base cohort mix a classifier with a constant, and the report says so.
Changed: CareBench trains and scores it on blank images for the three in four stays without one; GroupNorm from scratch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.strategies.encoders import ImageEncoder
from pipeline.strategies.interface import CXR, Batch, Output, Shapes, Strategy, task_loss


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

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """The task loss over samples that have an image; 0 in a batch without one."""
        rows = torch.nonzero(batch.present[:, CXR]).squeeze(1)
        if len(rows) == 0:
            return {"task": output.logits.sum() * 0.0}
        return {"task": task_loss(output.logits[rows], targets[rows], self.shapes.task)}
