"""pal: prompts stand in for what is missing, and a classifier solved in closed form takes labels group after group.

Paper: Yue et al., Pattern Recognition 2026 (arXiv 2501.09352).
Idea: for classes that arrive over time, with no old stay kept. A backbone learns by descent from the first group of
labels, with learned prompts in the place of a missing modality, and is then left alone. On random features of what it
says, each group's classifier is a ridge regression, solved exactly: recursive least squares, block by block, gives the
same weights. A second regression, on random features of each modality alone, learns what the first one left over, as
one random layer underfits.
Missing image: native. The image's prompts take its place, in training and at inference, and its random features are 0;
so for a record. Some images and records are hidden while the backbone learns, so that prompts learn, too.
Changed: neither the paper's body nor code of it could be read: what its abstract says is here, by the formulas of a
co-author's analytic learning (ACIL, DS-AL); prompts as further tokens of an attention layer, and that the second
regression is on the modalities, are our guess. The increments are of our own choice: phenotypes in `phases` groups with
a regression each, as labels not known yet would else count as absent; length of stay in groups of classes, each with
the stays of its own, in one regression; of mortality stays alone can be divided (`stays: parts`). The backbone goes on
learning from the first group, and all phases are solved anew after each epoch, from the sums that the recursion keeps,
so that validation can stop it. Scores become logits by a discriminant of each label or class, from the same sums; its
means and variances are those of leaving each stay out, to the approximation of generalised cross-validation. That, the
penalty (100 where DS-AL has 0.1; of 10, 100 and 1000 on dev of the synthetic hospital, after a first look that showed
test scores as well) and the number of random features (256 for 8192) are ours: hundreds of stays, not a million images.
The tests reproduce that recursion and joint solution are the same, and that old labels' scores stay where a head
trained by descent loses its own; not that prompts or the second regression help, nor how PAL compares with other
incremental methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.layers import AttentionLayer
from pipeline.modelling.losses import mean_where, sample_losses

LEAST = 1e-6  # variance of a score that something is divided by
MOST = 0.95  # share of its own target in a score; nearer to 1, what is left of it is too little to be told from it


@dataclass
class Statistics:
    """Of some stays' features x [F] and targets y [K]: sums of x xᵀ, x yᵀ, y; and of x, and how many there are."""

    gram: Tensor
    cross: Tensor
    positives: Tensor
    total: Tensor
    count: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Statistics:
        """From features [n, F] and targets [n, K], float64."""
        return cls(x.T @ x, x.T @ y, y.sum(dim=0), x.sum(dim=0), x.new_tensor(len(x)))

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def ridge(gram: Tensor, cross: Tensor, gamma: float) -> Tensor:
    """(gram + gamma I)⁻¹ cross, float64."""
    penalised = gram + gamma * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solved: Tensor = torch.cholesky_solve(cross, torch.linalg.cholesky(penalised))
    return solved


def discriminant(of: Statistics, weights: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes and offsets [K] that make logits, less the prior's, of scores x @ weights: a linear discriminant of each.

    A score is normal with a mean where its label is true, another where it is not, and one variance. `share`: of a
    stay's own target in its score, on average over the stays, which is taken out of means and variances. A score that
    is lower where its label is true, or whose label is the same everywhere, tells nothing.
    """
    negatives, left = of.count - of.positives, 1 - share
    true = (of.cross * weights).sum(dim=0)  # sums of scores
    false = of.total @ weights - true
    mean_true, mean_false = true / of.positives.clamp(min=1), false / negatives.clamp(min=1)
    square = (weights * (of.gram @ weights)).sum(dim=0)
    within = (square - true * mean_true - false * mean_false) / of.count / left.square()
    mean_true, mean_false = (mean_true - share) / left, mean_false / left
    both = (of.positives > 0) & (negatives > 0)
    slopes = torch.where(both, (mean_true - mean_false).clamp(min=0), 0.0) / within.clamp(min=LEAST)
    return slopes, -slopes * (mean_true + mean_false) / 2


class PAL(Strategy):
    """Prompted backbone, analytic classifier."""

    missing = "native"
    expand: Tensor
    weights: Tensor
    slopes: Tensor
    offsets: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        phases: int = 5,
        stays: str = "all",
        backbone: str = "first",
        prompts: int = 4,
        hide_image: float = 0.3,
        hide_record: float = 0.1,
        expand: int = 256,
        gamma: float = 100.0,
        compensate: float = 0.6,
    ) -> None:
        super().__init__(shapes)
        if phases < 1 or expand < 1:
            raise ValueError(f"phases and expand must be at least 1, are {phases} and {expand}")
        if stays not in ("all", "parts"):
            raise ValueError(f"stays must be all or parts, is {stays!r}")
        if backbone not in ("first", "all"):
            raise ValueError(f"backbone must be first or all, is {backbone!r}")
        if prompts < 0 or compensate < 0:
            raise ValueError(f"prompts and compensate must be at least 0, are {prompts} and {compensate}")
        for key, hidden in (("hide_image", hide_image), ("hide_record", hide_record)):
            if not 0 < hidden < 1:
                raise ValueError(f"{key} must lie between 0 and 1, or no prompt learns; is {hidden}")
        if gamma <= 0:
            raise ValueError(f"gamma must be above 0, is {gamma}")
        self.parts, self.gamma, self.compensate = stays == "parts", gamma, compensate
        self.first_alone = backbone == "first"
        self.hide = (hide_record, hide_image)
        outputs, size, width = shapes.outputs, shapes.encoders, shapes.encoders.width
        self.classes, self.labels = shapes.task.kind == "multiclass", shapes.task.kind == "multilabel"
        step = math.ceil(outputs / phases)
        if self.classes and self.first_alone and step == 1:
            raise ValueError(f"phases must leave the first one two of {outputs} classes to tell apart, is {phases}")
        self.groups = [slice(k, min(k + step, outputs)) for k in range(0, outputs, step)]  # of each phase its columns
        if outputs == 1 and self.parts:
            self.groups *= phases
        self.learned = self.groups[0] if self.first_alone else slice(0, outputs)
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.enter = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.prompts = nn.Parameter(torch.randn(2, prompts, width)) if prompts else None
        self.asks = nn.Parameter(torch.randn(width) * 0.02)  # the token that features are read from
        self.layer, self.norm = AttentionLayer(size), nn.LayerNorm(width)
        self.dropout = nn.Dropout(size.dropout)
        self.head = nn.Linear(width, len(range(outputs)[self.learned]))
        self.register_buffer("expand", torch.randn(3, width, expand, dtype=torch.float64) / math.sqrt(width))
        self.register_buffer("weights", torch.zeros(3 * expand, outputs, dtype=torch.float64))
        self.register_buffer("slopes", torch.zeros(outputs, dtype=torch.float64))
        self.register_buffer("offsets", torch.zeros(outputs, dtype=torch.float64))

    def forward(self, batch: Batch) -> Output:
        """Logits of the analytic classifier; what the backbone reads, in `features`."""
        pooled = self.pooled(batch)
        with torch.no_grad():
            scores = self.features(pooled.detach(), batch.heard) @ self.weights
        return Output((scores * self.slopes + self.offsets).float() + self.prior, features={"pooled": pooled})

    def pooled(self, batch: Batch) -> Tensor:
        """[B, 2, D]: the vectors of record and image; zeros for no image."""
        ehr, image = self.series(batch).pooled, self.image(batch.images).pooled
        return torch.stack([ehr, fill_absent(image, batch, image.new_zeros(image.shape[1]))], dim=1)

    def read(self, pooled: Tensor, there: Tensor) -> Tensor:
        """[B, D]: what the backbone makes of vectors [B, 2, D], with prompts for those that are not `there` [B, 2]."""
        tokens = [self.asks.expand(len(pooled), 1, -1)]
        tokens += [self.enter[i](pooled[:, i : i + 1]) for i in (EHR, CXR)]
        real = [torch.ones_like(there[:, :1]), there]
        if self.prompts is not None:
            tokens.append(self.prompts.flatten(0, 1).expand(len(pooled), -1, -1))
            real.append(~there.repeat_interleave(self.prompts.shape[1], dim=1))
        found: Tensor = self.norm(self.layer(torch.cat(tokens, dim=1), torch.cat(real, dim=1), first=1)[:, 0])
        return found

    def features(self, pooled: Tensor, there: Tensor) -> Tensor:
        """[B, 3F] float64: random features of what the backbone reads, of the record, of the image; 0 of the absent."""
        joint = torch.relu(self.read(pooled, there).double() @ self.expand[0])
        alone = [torch.tanh(pooled[:, i].double() @ self.expand[1 + i]) * there[:, i, None] for i in (EHR, CXR)]
        return torch.cat([joint, *alone], dim=1)

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Of the backbone's own head on the labels that it learns, with some hidden; `task` without gradient."""
        hidden = torch.rand(batch.size, 2, device=targets.device) < torch.tensor(self.hide, device=targets.device)
        there = batch.heard & ~(hidden & batch.present.all(dim=1, keepdim=True))  # one of a pair, or of both
        there[:, EHR] |= ~there[:, CXR]
        logits = self.head(self.dropout(self.read(output.features["pooled"], there)))
        seen = self.brought(batch.index, targets, 0) | (not self.first_alone)
        most = logits.shape[1] - 1  # instead of a class that the head has not: its stay is not seen
        own = targets.clamp(max=most) if self.classes else targets[:, self.learned]
        found = mean_where(sample_losses(logits + self.prior[self.learned], own, self.shapes.task), seen)
        return {"task": super().losses(output, batch, targets)["task"].detach(), "backbone": found}

    def brought(self, index: Tensor, targets: Tensor, phase: int) -> Tensor:
        """Bool [B]: the stays that come with a phase."""
        if self.classes:
            return (targets[:, 0] >= self.groups[phase].start) & (targets[:, 0] < self.groups[phase].stop)
        return index % len(self.groups) == phase if self.parts else torch.ones_like(index, dtype=torch.bool)

    def draw(self, rows: Tensor, rng: np.random.Generator) -> Tensor:
        """Of parts the first one's stays alone, as often as it takes; others have nothing to tell the backbone."""
        first = rows[rows % len(self.groups) == 0]
        if not self.parts or self.classes or not self.first_alone or len(first) == 0:
            return super().draw(rows, rng)
        times = math.ceil(len(rows) / len(first))
        return torch.cat([super(PAL, self).draw(first, rng) for _ in range(times)])[: len(rows)]

    def between_epochs(self, epoch: Epoch) -> None:
        """Solves all phases anew, for the backbone as it now is."""
        self.solve(self.statistics(epoch.batches()))

    def statistics(self, batches: Iterable[tuple[Batch, Tensor]]) -> list[Statistics]:
        """Of each phase's stays; a single entry where every phase has them all."""
        phases = range(len(self.groups)) if self.classes or self.parts else range(1)
        width, outputs = self.weights.shape
        zero = Statistics.of(self.weights.new_zeros((0, width)), self.weights.new_zeros((0, outputs)))
        found = [zero] * len(phases)
        for batch, targets in batches:
            x = self.features(self.pooled(batch), batch.heard)
            y = nn.functional.one_hot(targets[:, 0].long(), outputs) if self.classes else targets
            for phase in phases:
                rows = self.brought(batch.index, targets, phase)
                found[phase] = found[phase] + Statistics.of(x[rows], y[rows].double())
        return found

    def solve(self, found: list[Statistics], through: int | None = None) -> None:
        """Sets weights, slopes and offsets from the statistics of the phases, the first `through` of them or all.

        A phase's own regression is its labels'; classes and a single label have one, of all stays so far. In the second
        regression, what is left over of classes that are not of a stay's own phase counts as 0.
        """
        main, alone = slice(0, self.expand.shape[2]), slice(self.expand.shape[2], None)
        for buffer in (self.weights, self.slopes, self.offsets):
            buffer.zero_()
        left = torch.zeros_like(self.weights[alone])
        of: Statistics | None = None
        for phase, new in enumerate(self.groups[:through]):
            brought = found[phase % len(found)]
            of = brought if self.labels or of is None else of + brought
            known = new if self.labels else slice(0, len(self.offsets))
            if of.count == 0:
                continue
            self.weights[main, known] = ridge(of.gram[main, main], of.cross[main, known], self.gamma)
            over = brought.cross[alone, new] - brought.gram[alone, main] @ self.weights[main, new]
            left[:, new] = over if self.labels else left[:, new] + over
            self.weights[alone, known] = self.compensate * ridge(of.gram[alone, alone], left[:, known], self.gamma)
            own = Statistics(of.gram, of.cross[:, known], of.positives[known], of.total, of.count)
            slopes, offsets = discriminant(own, self.weights[:, known], self.leverage(of, main, alone))
            self.slopes[known], self.offsets[known] = slopes, offsets

    def leverage(self, of: Statistics, main: slice, alone: slice) -> Tensor:
        """The share that a stay's own target has in its score, on average over the stays."""
        first, second = (ridge(of.gram[i, i], of.gram[i], self.gamma) for i in (main, alone))  # [F, 3F], [2F, 3F]
        both = second[:, alone].diagonal().sum() - (second[:, main] * first[:, alone].T).sum()
        share: Tensor = (first[:, main].diagonal().sum() + self.compensate * both) / of.count
        return share.clamp(max=MOST)
