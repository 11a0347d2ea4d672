"""ehr_presence: the EHR transformer that is also told whether there is an image. A control: it sees no pixel.

Paper: none. That an image was taken tells of a patient by itself (informative presence).
Idea: the network of `transformer`, whose hours have one vector added where there is an image. What fusion gains over
this is what the pixels are worth.
Missing image: that it is missing is an input, after natural absence and removal, in training and at inference.
Changed: nothing.
"""

from __future__ import annotations

from torch import nn

from pipeline.modelling.encoders import TransformerEncoder, series_channels
from pipeline.modelling.interface import CXR, Batch, Output, Shapes, Strategy


class EHRPresence(Strategy):
    """EHR and whether there is an image."""

    modalities = frozenset({"ehr", "presence"})

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        width = shapes.encoders.width
        self.encoder = TransformerEncoder(shapes)
        self.told = nn.Linear(1, width, bias=False)
        self.head = nn.Linear(width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """Logits from the pooled series, of which each hour is told one bit."""
        told = self.told(batch.present[:, CXR, None].to(batch.ehr.dtype))
        encoder = self.encoder
        hours = encoder.embed(series_channels(batch)) + encoder.positions + told[:, None]
        return Output(self.head(encoder.layers(hours).mean(dim=1)) + self.prior)
