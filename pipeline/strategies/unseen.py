"""unseen: every modality's tokens are shared out to common slots, whose sum one reader reads, in pairs never seen too.

Paper: Zhang, Doughty & Snoek, NeurIPS 2023 (arXiv 2306.12795).
Idea: each token spends a mass of 1 over slots that all modalities share; a slot is the weighted sum of its tokens, and
slots are summed over the modalities that are there. A transformer reads them in two branches of the same weights: one
learns the labels, the other what the modalities' own models say, lest the louder one is all that is heard; the answer
is the mean of their probabilities. The reader sends no gradient to the encoders, which learn from their own heads.
Missing image: native. Its slots are left out of the sum, in training and at inference; so are an absent record's.
Changed: the paper's body could not be read: the source is the authors' code, which does not run as released. Encoders
and heads are trained in the same run, on the task's loss; the authors' are finished and frozen, and so are the
probabilities that serve as pseudo-labels. The divergence is summed over classes (mean over labels), so its weight is
0.8 where the code's mean over 3806 classes has 3000. The code draws slots' means to a vector a class; but before they
are embedded that mean is the tokens' own, however they were shared out, so here the embedded slots are drawn. For
labels, which the code has not, that vector is a sum over those that are true, and smoothing moves targets to 0.05 and
0.95: both of our own choice. One layer shares out, two read, where the code has six; tokens have the encoders'
positions and no further ones. By default pairs are seen; `unpaired` shows a fixed half of them as images alone, the
rest as records alone, which is the paper's setting: an interaction is then in no training stay, and is not learned. The
tests reproduce, in small, that pairs never seen are told better than by either modality where effects add up; not that
they are told better than by late_average, to which it comes no more than near, nor that pseudo-labels guard against the
less reliable modality.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import AttentionLayer, Transformer
from pipeline.modelling.losses import mean_logits, mean_where, sample_losses
from pipeline.modelling.views import keep_images, keep_records
from pipeline.params import Encoders
from pipeline.tasks import Task

MODALITIES = {"ehr": EHR, "cxr": CXR}


def divergence(said: Tensor, logits: Tensor, kind: str) -> Tensor:
    """[B]: Kullback-Leibler divergence of what logits `said` from what `logits` [B, K] say; its mean over labels."""
    said, logits = said.float(), logits.float()
    if kind == "multiclass":
        a, b = said.log_softmax(dim=1), logits.log_softmax(dim=1)
        return (a.exp() * (a - b)).sum(dim=1)
    yes, no = logsigmoid(said), logsigmoid(-said)
    return (yes.exp() * (yes - logsigmoid(logits)) + no.exp() * (no - logsigmoid(-logits))).mean(dim=1)


def smoothed_loss(logits: Tensor, targets: Tensor, task: Task, smoothing: float) -> Tensor:
    """The task's loss against targets of which a share is spread evenly over all classes, or over 0 and 1."""
    if task.kind == "multiclass":
        return cross_entropy(logits, targets[:, 0].long(), label_smoothing=smoothing)
    return binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)


def embedding(width: int) -> nn.Sequential:
    """A linear layer between two norms."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.LayerNorm(width))


class Slots(nn.Module):
    """A modality's tokens [P, n, D] in N slots [P, N, D] of the space that all modalities share."""

    def __init__(self, size: Encoders, slots: int) -> None:
        super().__init__()
        self.embed = embedding(size.width)
        self.layer = AttentionLayer(size)
        self.place = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, slots))
        self.enter = embedding(size.width)

    def weights(self, tokens: Tensor) -> Tensor:
        """[P, n, N]: how each token's mass of 1 is spread over the slots."""
        return torch.softmax(self.place(self.layer(self.embed(tokens))), dim=2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embedded weighted sums of the tokens."""
        entered: Tensor = self.enter(self.weights(tokens).transpose(1, 2) @ tokens)
        return entered


class Unseen(Strategy):
    """Feature projection into common slots, a sum of what is there, dual-branch prediction."""

    missing = "native"
    image_alone: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        slots: int = 16,
        layers: int = 2,
        pseudo: float = 0.8,
        align: float = 0.001,
        smoothing: float = 0.1,
        unpaired: bool = False,
    ) -> None:
        super().__init__(shapes)
        if slots < 2 or slots % 2:
            raise ValueError(f"slots must be an even number above 0, half of them a branch's; is {slots}")
        if layers < 1:
            raise ValueError(f"layers must be at least 1, is {layers}")
        for key, weight in (("pseudo", pseudo), ("align", align)):
            if weight < 0:
                raise ValueError(f"{key} must be at least 0, is {weight}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1, is {smoothing}")
        self.pseudo, self.align, self.smoothing, self.unpaired = pseudo, align, smoothing, unpaired
        size, width = shapes.encoders, shapes.encoders.width
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.heads = nn.ModuleDict({name: nn.Linear(width, shapes.outputs) for name in MODALITIES})
        self.dropout = nn.Dropout(size.dropout)
        self.slots = nn.ModuleDict({name: Slots(size, slots) for name in MODALITIES})
        self.positions = nn.Parameter(torch.randn(slots, width) * 0.02)
        self.classes = nn.Parameter(torch.randn(2, width) * 0.02)  # a branch's token, of which it answers
        self.reader = Transformer(dataclasses.replace(size, layers=layers))
        self.head = nn.Linear(width, shapes.outputs)
        self.anchor, self.anchors = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(shapes.outputs, width))
        self.register_buffer(
            "image_alone", torch.rand(shapes.stays) < 0.5
        )  # the half of pairs of which `unpaired` tells

    def forward(self, batch: Batch) -> Output:
        """The mean of both branches' probabilities; theirs and those of each modality alone in `unimodal`."""
        series, image = self.series(batch), self.image(batch.images)
        own = {name: self.heads[name](self.dropout(x.pooled)) for name, x in (("ehr", series), ("cxr", image))}
        own["cxr"] = fill_absent(own["cxr"], batch, own["cxr"].new_zeros(self.shapes.outputs))
        filled = {
            "ehr": self.slots["ehr"](series.tokens.detach()),
            "cxr": self.scattered(self.slots["cxr"](image.tokens.detach()), batch),
        }
        there = batch.heard[:, :, None, None]
        first, second = self.read(sum(there[:, i] * filled[name] for name, i in MODALITIES.items())).unbind(dim=1)
        unimodal = {**own, "first": first, "second": second}
        unimodal = {name: (logits + self.prior).float() for name, logits in unimodal.items()}
        return Output(
            mean_logits(unimodal["first"], unimodal["second"], self.shapes.task.kind),
            unimodal=unimodal,
            features={name: slots.mean(dim=1) for name, slots in filled.items()},
        )

    def scattered(self, slots: Tensor, batch: Batch) -> Tensor:
        """[B, N, D]: slots [P, N, D] of the images that are there at their samples, zeros elsewhere."""
        return slots.new_zeros((batch.size, *slots.shape[1:])).index_copy(0, batch.image_sample, slots)

    def read(self, summed: Tensor) -> Tensor:
        """[B, 2, K]: logits, less the prior, of both branches; each reads its half of the slots [B, N, D]."""
        halves = (summed + self.positions).unflatten(1, (2, -1))
        tokens = torch.cat([self.classes[:, None].expand(len(halves), -1, -1, -1), halves], dim=2)
        told = self.reader(tokens.flatten(0, 1))[:, 0]
        logits: Tensor = self.head(self.dropout(told)).unflatten(0, (-1, 2))
        return logits

    def shown(self, batch: Batch) -> Batch:
        """What `unpaired` shows of the batch: of a pair the image alone or the record alone, always the same one."""
        pairs, image_alone = batch.present.all(dim=1), self.image_alone[batch.index]
        return keep_records(keep_images(batch, ~pairs | image_alone), ~pairs | ~image_alone)

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Of the first branch the task loss, of the second the divergence from each modality's own model.

        Those models' losses and the slots' distance to their anchor, each where the modality is there.
        """
        if self.unpaired and self.training:
            batch = self.shown(batch)
            output = self(batch)
        task, told, there = self.shapes.task, output.unimodal, batch.present
        anchors = self.anchor + self.marks(targets) @ self.anchors
        found = {"task": smoothed_loss(told["first"], targets, task, self.smoothing)}
        pseudo, apart = [], []
        for name, i in MODALITIES.items():
            found[name] = mean_where(sample_losses(told[name], targets, task), there[:, i])
            pseudo.append((divergence(told[name].detach(), told["second"], task.kind) * there[:, i]).mean())
            apart.append((output.features[name] - anchors).square().mean(dim=1))
        found["pseudo"] = self.pseudo * torch.stack(pseudo).sum()
        found["align"] = self.align * mean_where(torch.stack(apart, dim=1), there)
        return found

    def marks(self, targets: Tensor) -> Tensor:
        """[B, K]: labels that are true, or the class."""
        if self.shapes.task.kind == "multiclass":
            return nn.functional.one_hot(targets[:, 0].long(), self.shapes.outputs).to(self.anchors.dtype)
        return targets.to(self.anchors.dtype)
