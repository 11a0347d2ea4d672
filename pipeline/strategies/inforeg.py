"""inforeg: early in training, the encoder of the stronger modality is held back, so that the weaker one can learn.

Paper: Huang et al., CVPR 2025 (arXiv 2503.18595).
Idea: concatenated features and one linear head, whose halves also predict alone; while the Fisher information of the
stronger encoder still grows (its prime learning window), beta (theta - theta at the epoch's start) pulls it back.
Missing image: the shared treatment, a learned vector in place of the image's vector, in training and at inference. The
image's own loss and the comparison of modalities see pairs alone.
Changed: the official code watches one modality's window and never holds back the visual one (its second branch repeats
the first one's condition); here the window and the hold are the stronger one's, whichever it is in the batch. Fisher
information is that of the losses alone. The pull is a step of its own, as long as in the authors' SGD (lr 0.002,
momentum 0.9), where theirs is part of the gradient: AdamW would scale it with the gradient. The full paper could not be
read: the source is the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.losses import mean_where, sample_losses, truth

PULL = 0.002 / (1 - 0.9)  # a step's share of the way back for beta = 1: the authors' lr, and their momentum


class InfoReg(Strategy):
    """Regulated acquisition of information."""

    missing = "complete"
    interaction = "additive"
    gap: Tensor
    fisher: Tensor
    hold: Tensor
    history: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        hold_ehr: float = 0.95,
        hold_cxr: float = 0.1,
        growth: float = 0.05,
        window: int = 10,
    ) -> None:
        super().__init__(shapes)
        if hold_ehr < 0 or hold_cxr < 0:
            raise ValueError(f"hold_ehr and hold_cxr must be at least 0, are {hold_ehr} and {hold_cxr}")
        if window < 1:
            raise ValueError(f"window must be at least 1, is {window}")
        self.growth = growth
        width = shapes.encoders.width
        self.series = TransformerEncoder(shapes)
        self.image = ImageEncoder(shapes)
        self.absent = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.head = nn.Linear(2 * width, shapes.outputs)
        self.register_buffer("hold", torch.tensor([hold_ehr, hold_cxr]), persistent=False)
        self.register_buffer("gap", torch.zeros(()))  # of the last batch: how much stronger the EHR is
        self.register_buffer("fisher", torch.zeros(2))  # of this epoch so far, a modality
        self.register_buffer("history", torch.zeros(window + 1, 2))  # of the last epochs
        for name, encoder in self.encoders().items():
            self.register_buffer(f"start_{name}", parameters_to_vector(encoder.parameters()).detach().clone())

    def encoders(self) -> dict[str, nn.Module]:
        """By modality, in the order of Batch.present."""
        return {"ehr": self.series, "cxr": self.image}

    def forward(self, batch: Batch) -> Output:
        """Logits from both vectors; each half of the head alone, with half of its bias, in `unimodal`."""
        image = fill_absent(self.image(batch.images).pooled, batch, self.absent)
        joint = self.dropout(torch.cat([self.series(batch).pooled, image], dim=1))
        parts = zip(("ehr", "cxr"), joint.chunk(2, dim=1), self.head.weight.chunk(2, dim=1), strict=True)
        alone = {name: part @ weight.T + self.head.bias / 2 for name, part, weight in parts}
        return Output(
            alone["ehr"] + alone["cxr"] + self.prior,
            unimodal={name: logits + self.prior for name, logits in alone.items()},
        )

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss of the sum and of each modality alone; notes which one is the stronger on this batch's pairs."""
        task, there = self.shapes.task, batch.present
        if self.training:
            with torch.no_grad():
                ehr, cxr = (truth(output.unimodal[name], targets, task.kind) for name in ("ehr", "cxr"))
                self.gap.copy_(((ehr - cxr) * there.all(dim=1)).sum())
        return {
            **super().losses(output, batch, targets),
            "ehr": mean_where(sample_losses(output.unimodal["ehr"], targets, task), there[:, EHR]),
            "cxr": mean_where(sample_losses(output.unimodal["cxr"], targets, task), there[:, CXR]),
        }

    def between_epochs(self, epoch: Epoch) -> None:
        """Files the epoch's Fisher information and remembers where the encoders stand."""
        if epoch.done > 0:
            self.history.copy_(torch.cat([self.history[1:], self.fisher[None]]))
        self.fisher.zero_()
        for name, encoder in self.encoders().items():
            self.get_buffer(f"start_{name}").copy_(parameters_to_vector(encoder.parameters()))

    def window_growth(self) -> Tensor:
        """[2]: relative growth of each modality's mean Fisher information over the window; 1 in the first epoch."""
        now, before = self.history[1:].mean(dim=0), self.history[:-1].mean(dim=0)
        return torch.where(now > 0, (now - before) / now.clamp(min=1e-30), 1.0)

    def held(self) -> Tensor:
        """[2]: beta of each modality: hold · exp(tanh(lead)) of the leading one inside its window, else 0."""
        lead = torch.stack([self.gap, -self.gap])
        regulated = (lead > 0) & (self.window_growth() > self.growth)
        return torch.where(regulated, self.hold * torch.exp(torch.tanh(lead)), 0.0)

    def after_backward(self) -> None:
        """Adds up squared gradients, a mean a tensor; and pulls the stronger encoder back to the epoch's start."""
        beta = self.held()
        with torch.no_grad():
            for modality, (name, encoder) in enumerate(self.encoders().items()):
                start, offset = self.get_buffer(f"start_{name}"), 0
                for parameter in encoder.parameters():
                    part = start[offset : offset + parameter.numel()].view_as(parameter)
                    offset += parameter.numel()
                    if parameter.grad is not None:
                        self.fisher[modality] += parameter.grad.square().mean()
                        parameter.lerp_(part, PULL * beta[modality])
