"""medfuse: an LSTM over the short sequence of the modalities that are there.

Paper: Hayat, Geras & Shamout, MLHC 2022 (arXiv 2207.07027).
Idea: the EHR vector and the image vector are two steps of an LSTM, whose last state predicts: a missing modality makes
the sequence shorter, and nothing is imputed.
Missing image: the sequence is the EHR step alone, in training and at inference; a missing EHR is left out likewise.
Changed: the shared encoders, where the paper has a two-layer LSTM (`series: lstm` is the nearest) and a ResNet-34, and
their width for the fusion LSTM, where the paper has 512; one training from the start, where the paper first trains each
encoder alone; dropout of the state that predicts, where the authors' is of the EHR's vector. CareBench sends blank
images through the CNN, and its train configs cannot be built.
"""

from __future__ import annotations

from torch import nn

from pipeline.modelling.encoders import ImageEncoder, series_encoder
from pipeline.modelling.interface import EHR, Batch, Output, Shapes, Strategy


class MedFuse(Strategy):
    """LSTM fusion."""

    missing = "native"

    def __init__(self, shapes: Shapes, *, series: str = "transformer") -> None:
        super().__init__(shapes)
        width = shapes.encoders.width
        self.series = series_encoder(series, shapes)
        self.image = ImageEncoder(shapes)
        self.cell = nn.LSTMCell(width, width)
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.head = nn.Linear(width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """Logits from the state after the last step that a sample has; `features` holds the steps' inputs."""
        ehr, image = self.series(batch).pooled, self.image(batch.images).pooled
        there = batch.present[:, EHR, None].to(ehr.dtype)
        hidden, memory = (there * state for state in self.cell(ehr))  # no step leaves the initial state, zero
        rows = batch.image_sample
        second, _ = self.cell(image, (hidden[rows], memory[rows]))
        last = hidden.index_copy(0, rows, second.to(hidden.dtype))
        logits = self.head(self.dropout(last)) + self.prior
        return Output(logits, features={"ehr": ehr, "image": image, "state": last})
