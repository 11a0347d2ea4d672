"""climd: a curriculum around another strategy, from balanced classes and telling stays to training as it is.

Paper: Han et al., MICCAI 2025 (arXiv 2508.01594).
Idea: a measurer scores each training stay by how sure its single modalities are of the truth and by how much they
complement one another; a scheduler draws the stays of an epoch, at first evenly from the classes and most of each class
from its best scores, step by step more like the training data, which imbalanced as they are make the last epochs.
Missing image: native, the base's, in training and at inference. Scores are ranked among stays of one class that all
have an image, or all have none, so that the curriculum decides nothing about the share of pairs.
Changed: the paper could not be read beyond its abstract and has no code: every formula, schedule and constant is of our
own choice, after the abstract's sentences. Confidence is the probability of the truth, complementarity how far the two
modalities' answers diverge; the class of a stay with several labels is its rarest. The pace is that of dynamic
curriculum learning (Wang et al., ICCV 2019), run towards the training distribution. Losses are the base's, and so is
every knob of it; what is drawn changes alone. Bases are those that declare what this card does: native and joint.
`measure: none` with `pace: step` is sampling by inverse frequency, for comparison. Of the abstract, tests reproduce:
that training moves by class distribution to the real one, that any base is left as it is (bit for bit once the
curriculum is over), that stays whose modalities miss the truth come late. That it beats other treatments of imbalance
is an empirical claim on other data, and was not reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.modelling.interface import CXR, Batch, Epoch, Output, Shapes
from pipeline.modelling.losses import divergence, truth
from pipeline.modelling.wrapping import AS_WRITTEN, Wrapper

LEAST = 2  # stays of a group that are admitted however few the share is
KEPT = 0.5  # of a score, when it is measured anew
TOLD = ("progress", "score_rarest", "score", "drawn_rarest", "drawn_pairs")


def classes(targets: Tensor, kind: str) -> Tensor:
    """[n] long: of targets [n, labels] the class; or a stay's rarest label, the number of labels for none."""
    if kind == "multiclass":
        return targets[:, 0].long()
    true = targets > 0.5
    count = true.sum(dim=0)
    rarest = torch.where(true, count, len(targets) + 1).argmin(dim=1)
    return torch.where(true.any(dim=1), rarest, targets.shape[1])


def sampling(klass: Tensor, group: Tensor, score: Tensor, even: float, admitted: float, rest: float) -> Tensor:
    """[n] float64, sums to 1: how likely each stay is drawn.

    Classes [n] get shares as n_k ** (1 - even): 1 is even, 0 as they are. Within a class each group [n] (bool) gets its
    own share. Of class and group the `admitted` share with the highest scores [n] weighs 1 (at least LEAST), others
    `rest`.
    """
    weight = torch.zeros(len(klass), dtype=torch.float64, device=klass.device)
    for k in klass.unique():
        members = klass == k
        size = float(members.sum())
        for inside in (members & group, members & ~group):
            count = int(inside.sum())
            if count == 0:
                continue
            best = score[inside].argsort(descending=True, stable=True)[: max(LEAST, math.ceil(admitted * count - 1e-9))]
            own = torch.full((count,), rest, dtype=torch.float64, device=klass.device)
            own[best] = 1.0
            weight[inside] = size ** (1 - even) * (count / size) * own / own.sum()
    return weight / weight.sum()


class CLIMD(Wrapper):
    """Curriculum for imbalanced multimodal data."""

    missing = "native"
    wraps = "base"
    score: Tensor
    weight: Tensor
    told: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        base: str = "drfuse",
        base_hyper: Mapping[str, Any] = AS_WRITTEN,
        measure: str = "both",
        complement: str = "divergence",
        alpha: float = 0.5,
        pace: str = "cosine",
        share: float = 0.7,
        admitted: float = 0.5,
        rest: float = 0.1,
    ) -> None:
        for key, value, known in (
            ("measure", measure, ("both", "none")),
            ("complement", complement, ("divergence", "gain")),
            ("pace", pace, ("cosine", "linear", "step")),
        ):
            if value not in known:
                raise ValueError(f"{key}: must be one of {', '.join(known)}, is {value!r}")
        for key, number in {"alpha": alpha, "share": share, "admitted": admitted}.items():
            if not 0 <= number <= 1:
                raise ValueError(f"{key}: must be between 0 and 1, is {number}")
        if not 0 < rest <= 1:
            raise ValueError(f"rest: must be above 0 and at most 1, is {rest}")
        super().__init__(shapes, base=base, base_hyper=base_hyper)
        self.measured, self.complement, self.alpha = measure == "both", complement, alpha
        self.pace, self.share, self.admitted, self.rest = pace, share, admitted, rest
        self.register_buffer("score", torch.zeros(shapes.stays))
        self.register_buffer("weight", torch.ones(shapes.stays, dtype=torch.float64))
        self.register_buffer("told", torch.zeros(7))  # TOLD, and what the last two are of the stays as they are

    def progress(self, epoch: Epoch) -> float:
        """0 before the first epoch, 1 from the one on where training is ordinary."""
        ordinary = self.share * epoch.count
        return min(1.0, epoch.done / ordinary) if ordinary > 0 else 1.0

    def evenness(self, progress: float) -> float:
        """How evenly classes are drawn: 1 (all alike) to 0 (as often as they are)."""
        if self.pace == "step":
            return float(progress < 1)
        return 1 - progress if self.pace == "linear" else math.cos(math.pi / 2 * progress)

    def scores(self, output: Output, batch: Batch, targets: Tensor) -> Tensor:
        """[B] in [0, 1]: alpha times the confidence of the modalities that are there, and the rest complementarity."""
        kind, heard = self.shapes.task.kind, batch.heard
        whole = truth(output.logits.float(), targets, kind)
        alone = [name for name in ("ehr", "cxr") if name in output.unimodal]
        if not alone:
            return self.alpha * whole
        logits = [output.unimodal[name].float() for name in alone]
        there = torch.stack([heard[:, ("ehr", "cxr").index(name)] for name in alone])
        sure = torch.stack([truth(each, targets, kind) for each in logits])
        told = there.any(dim=0)
        confidence = torch.where(told, (sure * there).sum(dim=0) / there.sum(dim=0).clamp(min=1), whole)
        if self.complement == "gain":
            apart = (whole - sure.where(there, 0.0).amax(dim=0)).clamp(min=0)
        elif len(alone) == 2:
            apart = (
                divergence(logits[0], logits[1], kind) / math.log(2) / (1 if kind == "multiclass" else targets.shape[1])
            )
        else:
            apart = torch.zeros_like(whole)
        return self.alpha * confidence + (1 - self.alpha) * apart * batch.present.all(dim=1)

    def measure(self, batch: Batch, targets: Tensor) -> Tensor:
        """[B]: the scores of stays as the base answers now; zeros where nothing is measured."""
        if not self.measured:
            return batch.ehr.new_zeros(batch.size)
        return self.scores(self(batch), batch, targets)

    def between_epochs(self, epoch: Epoch) -> None:
        """Measures the training stays while the curriculum lasts, and weighs them for the next epoch."""
        super().between_epochs(epoch)
        progress = self.progress(epoch)
        self.told[0] = progress
        if progress == 1:
            self.weight.fill_(1.0)
            self.told[3:5] = self.told[5:]
            return
        found = [(batch, targets, self.measure(batch, targets)) for batch, targets in epoch.batches()]
        if not found:
            return
        index, pictured, new = (
            torch.cat(each)
            for each in zip(*((b.index, b.present[:, CXR], score) for b, _, score in found), strict=True)
        )
        kept = KEPT if epoch.done > 0 else 0.0
        score = kept * self.score[index] + (1 - kept) * new
        self.score[index] = score
        klass = classes(torch.cat([targets for _, targets, _ in found]), self.shapes.task.kind)
        part = self.admitted + (1 - self.admitted) * progress if self.measured else 1.0
        weight = sampling(klass, pictured, score, self.evenness(progress), part, self.rest)
        self.weight[index] = weight
        numbers, count = klass.unique(return_counts=True)
        rare = klass == numbers[count.argmin()]
        drawn = [weight[which].sum() for which in (rare, pictured)]
        there = [which.double().mean() for which in (rare, pictured)]
        self.told[1:] = torch.stack([score[rare].mean(), score.mean(), *drawn, *there])

    def draw(self, rows: Tensor, rng: np.random.Generator) -> Tensor:
        """By weight, with repeats; once the curriculum is over, as the base draws."""
        if float(self.told[0]) == 1:
            return super().draw(rows, rng)
        weight = self.weight[rows].cpu().numpy()
        drawn = rng.choice(len(rows), size=len(rows), p=weight / weight.sum())
        return rows[torch.from_numpy(drawn).to(rows.device)]

    def diagnostics(self) -> dict[str, float]:
        """The base's; where the curriculum stands, its last scores, which shares of draws are rarest and pairs."""
        own = dict(zip(TOLD, self.told.tolist(), strict=False)) if self.share > 0 else {}
        return {**super().diagnostics(), **own}
