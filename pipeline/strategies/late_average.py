"""late_average: the probabilities of the two unimodal models, averaged over the modalities that are present.

Paper: none (decision-level fusion; Kittler et al., TPAMI 1998, the sum rule).
Idea: an EHR transformer and a ResNet, each trained on its own loss alone and on the samples where it is present; they
meet in the answer, p = (p_ehr + p_cxr) / 2.
Missing image: complete; the answer is then the EHR's alone, in training and at inference (the image's alone where the
record is absent; the prior where both are).
Changed: trained in one run: both share early stopping (on the average) and the bound on the norm of the gradient.
`task` is the loss of the average, shown and not trained on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Output, Shapes, Strategy
from pipeline.modelling.losses import mean_logits, mean_where, sample_losses


class LateAverage(Strategy):
    """Average of two models' probabilities."""

    missing = "complete"
    interaction = "additive"

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        width = shapes.encoders.width
        self.series = TransformerEncoder(shapes)
        self.series_head = nn.Linear(width, shapes.outputs)
        self.image = ImageEncoder(shapes)
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.image_head = nn.Linear(width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """The mean of both where both are there; the one that is there; the prior."""
        ehr = (self.series_head(self.series(batch).pooled) + self.prior).float()
        image = (self.image_head(self.dropout(self.image(batch.images).pooled)) + self.prior).float()
        cxr = fill_absent(image, batch, self.prior)
        there = batch.present[:, :, None]
        one = torch.where(there[:, EHR], ehr, cxr)  # cxr is the prior where there is no image
        both = mean_logits(ehr, cxr, self.shapes.task.kind)
        return Output(torch.where(there.all(dim=1), both, one), unimodal={"ehr": ehr, "cxr": cxr})

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Each model's own loss, where its modality is present; `task` without gradient."""
        own = {
            name: mean_where(
                sample_losses(output.unimodal[name], targets, self.shapes.task), batch.present[:, modality]
            )
            for name, modality in (("ehr", EHR), ("cxr", CXR))
        }
        return {"task": super().losses(output, batch, targets)["task"].detach(), **own}
