"""mind: a student with a head a modality and a joint one learns from ensembles of unimodal networks of several sizes.

Paper: Guerra-Manzanares and Shamout, TMLR 2025 (arXiv 2502.01158).
Idea: what ensembles of trained unimodal networks know goes into a small multimodal student: each modality's head learns
from the labels and from its teachers' mean answer; pairs are answered by a joint head on both vectors.
Missing image: native, with nothing imputed or masked: the answer is the record's own head's, in training and at
inference (the image's where the record is absent), and each head learns from the stays that have its modality.
Changed: the paper could not be read beyond its abstract and has no code that could be had: losses, temperature, weights
and sizes are of our own choice, after the abstract's sentences. Teachers are the benchmark's runs of transformer and of
resnet at each of `sizes`, their probabilities averaged; a torchvision ResNet keeps its depth at every size. They teach
of the very stays that they have learned, and are surer there than elsewhere. The student is as large as every
strategy's encoders (`size`), so that strategies are compared, not sizes. With `teachers: base` a student of the matched
cohort is taught by networks that have learned from records which its competitors there never see: a variant, not the
row. The modalities are balanced by hand, by the weights of their distillation. Of the abstract, tests reproduce: that a
stay without an image is answered by its own encoder and head alone; that teachers' knowledge goes into the heads, and
that the record's head of 300 made-up pairs gains by teachers of 3,000 records. That a small student gains on five data
sets, and that its modalities are balanced by it, was not reproduced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Earlier, Output, Shapes, Strategy
from pipeline.modelling.losses import logits_of_mean, mean_where, sample_losses
from pipeline.modelling.sizes import require_teaching, scaled, sized

TAUGHT_BY = {EHR: "transformer", CXR: "resnet"}


def distance(logits: Tensor, taught: Tensor, kind: str, temperature: float, match: str) -> Tensor:
    """[B]: how far answers are from the teachers', both logits [B, K].

    `soft`: T² times the cross-entropy (of labels, their mean) or divergence (of classes) at the temperature T. `mse`:
    mean squared difference of logits, of classes after their mean is taken off, which says nothing.
    """
    if match == "mse":
        apart = logits - taught
        if kind == "multiclass":
            apart = apart - apart.mean(dim=1, keepdim=True)
        return apart.square().mean(dim=1)
    logits, taught = logits / temperature, taught / temperature
    if kind == "multiclass":
        log, told = logits.log_softmax(dim=1), taught.log_softmax(dim=1)
        return temperature**2 * (told.exp() * (told - log)).sum(dim=1)
    bce = nn.functional.binary_cross_entropy_with_logits
    return temperature**2 * bce(logits, torch.sigmoid(taught), reduction="none").mean(dim=1)


class MIND(Strategy):
    """Modality-informed distillation."""

    missing = "native"
    interaction = "joint"
    needs = ("transformer", "resnet")
    taught: Tensor
    teaches: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        size: float = 1.0,
        own: float = 1.0,
        distil_ehr: float = 1.0,
        distil_cxr: float = 1.0,
        temperature: float = 2.0,
        match: str = "soft",
        teachers: str = "same",
        sizes: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> None:
        super().__init__(shapes)
        require_teaching(teachers, sizes, size)
        if match not in ("soft", "mse"):
            raise ValueError(f"match: must be soft or mse, is {match!r}")
        if temperature <= 0:
            raise ValueError(f"temperature: must be above 0, is {temperature}")
        for key, value in {"own": own, "distil_ehr": distil_ehr, "distil_cxr": distil_cxr}.items():
            if value < 0:
                raise ValueError(f"{key}: must be at least 0, is {value}")
        self.own, self.distil = own, {EHR: distil_ehr, CXR: distil_cxr}
        self.temperature, self.match, self.sizes = temperature, match, tuple(sizes)
        small = dataclasses.replace(shapes, encoders=scaled(shapes.encoders, size))
        width, outputs = small.encoders.width, shapes.outputs
        self.series, self.image = TransformerEncoder(small), ImageEncoder(small)
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.head_ehr, self.head_cxr = nn.Linear(width, outputs), nn.Linear(width, outputs)
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, outputs))
        # Made anew from the teachers' runs whenever training begins or goes on: no part of the weights.
        self.register_buffer("taught", torch.zeros(2, shapes.stays, outputs), persistent=False)
        self.register_buffer("teaches", torch.zeros(2, dtype=torch.bool), persistent=False)

    def forward(self, batch: Batch) -> Output:
        """Logits of the joint head for pairs, of the one modality's own head else; in `unimodal` those of each head."""
        series, pooled = self.dropout(self.series(batch).pooled), self.dropout(self.image(batch.images).pooled)
        nothing = pooled.new_zeros(pooled.shape[1])
        ehr = self.head_ehr(series) + self.prior
        cxr = fill_absent(self.head_cxr(pooled) + self.prior, batch, self.prior)
        both = self.head(torch.cat([series, fill_absent(pooled, batch, nothing)], dim=1)) + self.prior
        with_ehr, with_cxr = batch.heard[:, :, None].unbind(dim=1)
        answer = torch.where(with_cxr, torch.where(with_ehr, both, cxr), ehr)
        return Output(answer, unimodal={"ehr": ehr, "cxr": cxr, "both": both})

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """`task` of the joint head on pairs; each head's own, and its distance to its teachers, where it has them."""
        task, there = self.shapes.task, batch.present
        found = {"task": mean_where(sample_losses(output.unimodal["both"], targets, task), there.all(dim=1))}
        for name, modality in (("ehr", EHR), ("cxr", CXR)):
            logits = output.unimodal[name]
            found[name] = self.own * mean_where(sample_losses(logits, targets, task), there[:, modality])
            taught = self.taught[modality, batch.index]
            apart = distance(logits.float(), taught, task.kind, self.temperature, self.match)
            asked = there[:, modality] & self.teaches[modality]
            found[f"distil_{name}"] = self.distil[modality] * mean_where(apart, asked)
        return found

    def learn_from(self, earlier: Mapping[str, Earlier]) -> None:
        """Keeps the teachers' mean answer of every stay."""
        for modality, name in TAUGHT_BY.items():
            logits = [earlier[key].logits() for key in (sized(name, x) for x in self.sizes) if key in earlier]
            if logits:
                self.taught[modality] = logits_of_mean(logits, self.shapes.task.kind)
                self.teaches[modality] = True
