"""ehr_metadata: the EHR transformer that is told of the image's hour, view and number. A control: it sees no pixel.

Paper: none. Who is radiographed when, how often and whether lying down (AP) tells of a patient without the picture.
Idea: the network of `transformer`, whose hours have a vector added of what is known of a radiograph without seeing it:
whether there is one, its hour, AP or PA, and how many were eligible. What fusion gains over this is what the pixels are
worth.
Missing image: that it is missing is an input, and all else about it is zero, in training and at inference.
Changed: nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import TransformerEncoder, series_channels
from pipeline.modelling.interface import Batch, Output, Shapes, Strategy


def metadata(batch: Batch) -> Tensor:
    """[B, 4]: 1, hours from intime / 48, 1 where PA, log of the number of images; all 0 where there is no image."""
    hours = batch.image_hours
    number = batch.image_count.to(hours.dtype).log()
    told = torch.stack([torch.ones_like(hours), hours, batch.image_view.to(hours.dtype), number], dim=1)
    return told.new_zeros((batch.size, 4)).index_copy(0, batch.image_sample, told)


class EHRMetadata(Strategy):
    """EHR and what is known of the image apart from its pixels."""

    modalities = frozenset({"ehr", "presence", "metadata"})

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        width = shapes.encoders.width
        self.encoder = TransformerEncoder(shapes)
        self.told = nn.Linear(4, width, bias=False)
        self.head = nn.Linear(width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """Logits from the pooled series, of which each hour is told four numbers."""
        told = self.told(metadata(batch).to(batch.ehr.dtype))
        encoder = self.encoder
        hours = encoder.embed(series_channels(batch)) + encoder.positions + told[:, None]
        return Output(self.head(encoder.layers(hours).mean(dim=1)) + self.prior)
