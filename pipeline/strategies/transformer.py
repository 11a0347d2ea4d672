"""transformer: a transformer encoder on the hourly series. EHR alone.

Paper: none (the unimodal baseline of CareBench, arXiv 2602.23614).
Idea: self-attention over the 48 hours with learned positions, the mean of the tokens, one linear head.
Missing image: never looks at one, in training or at inference.
Changed: pre-norm layers; every strategy's input also holds `observed` and hours since observed for all variables.
"""

from __future__ import annotations

from torch import nn

from pipeline.modelling.encoders import TransformerEncoder
from pipeline.modelling.interface import Batch, Output, Shapes, Strategy


class Transformer(Strategy):
    """Unimodal EHR baseline."""

    modalities = frozenset({"ehr"})
    interaction = "additive"

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        self.encoder = TransformerEncoder(shapes)
        self.head = nn.Linear(shapes.encoders.width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """Logits from the pooled series."""
        return Output(self.head(self.encoder(batch).pooled) + self.prior)
