"""moddrop: every subset of the modalities is trained in every step, with learned tokens for what is left out.

Paper: Gu, Saito and Ma, MICCAI 2025 (arXiv 2509.18284), read in abstract; formulas after a mirror of the authors' code.
Idea: modalities are not dropped at random. One fusion network sees record and image, the record with a token in the
image's place, and the image with a token in the record's; all three answers are trained. A stay's three representations
are told from those of other stays, the fused one among them, where others contrast single modalities alone.
Missing image: native. The learned token stands in its place, in training and at inference; an absent record has one,
too. The token is trained by every stay, in the matched cohort as well, for one of its views has none of its image.
Changed: of the paper only the abstract could be read, and the mirror lacks the training: which views are contrasted
(each two, both ways), the weights of the losses and one training in place of two stages are of our own choice; the
contrast fades to nothing over the epochs, so that the fine-tuning of the second stage comes last. One more hidden layer
in the fusion (`hidden: 0`: as published, which from one of two starts did not learn an exclusive or in 600 steps).
No memory of 2,048 keys: negatives are the batch's other pairs; labels do not say who is alike. The contrast's softmax
is of the own stay against others, as a mean over pairs (the authors' divides it by the number of stays of the class).
Reproduced on planted pairs, of "particularly where only a single modality is available": with its image taken away,
the record tells more than after training on the fused view alone. Not tested: that this beats dropping at random (in a
toy it did not), the state of the art, the foundation model of computed tomography.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.layers import Dropout
from pipeline.modelling.losses import mean_where, sample_losses

SHARPNESS, SHARPEST = 10.0, 100.0  # of the contrast: at the start, and at most
BIAS = -10.0  # of the sigmoid contrast at the start: most are not the same stay
VIEWS = ("ehr", "cxr", "fused")


class Contrast(nn.Module):
    """How well unit vectors [n, D] of the same stays in two views find each other, by `pairs`: softmax or sigmoid."""

    def __init__(self, pairs: str) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        self.bias = nn.Parameter(torch.tensor(BIAS)) if pairs == "sigmoid" else None

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Mean over stays, both ways; 0 where there is none. Row i of both is the same stay."""
        likeness = self.log_sharpness.exp().clamp(max=SHARPEST) * (one @ other.T).float()
        count = max(1, len(one))
        if self.bias is not None:
            same = torch.eye(len(one), device=one.device)
            return binary_cross_entropy_with_logits(likeness + self.bias, same, reduction="sum") / count**2
        own = torch.arange(len(one), device=one.device)
        both = (cross_entropy(scores, own, reduction="sum") for scores in (likeness, likeness.T))
        return sum(both, start=likeness.new_zeros(())) / (2 * count)


class ModDrop(Strategy):
    """Simultaneous modality dropout with learned tokens and contrast of all views."""

    missing = "native"
    contrast_left: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        hidden: int = 1,
        contrast: float = 1.0,
        projection: int = 128,
        pairs: str = "softmax",
    ) -> None:
        super().__init__(shapes)
        if hidden < 0:
            raise ValueError(f"hidden: must be at least 0, is {hidden}")
        if contrast < 0:
            raise ValueError(f"contrast: must be at least 0, is {contrast}")
        if projection < 1:
            raise ValueError(f"projection: must be at least 1, is {projection}")
        if pairs not in ("softmax", "sigmoid"):
            raise ValueError(f"pairs: must be softmax or sigmoid, is {pairs!r}")
        self.weight = contrast
        width, dropout = shapes.encoders.width, shapes.encoders.dropout
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.no_series, self.no_image = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.norm_series, self.norm_image = nn.LayerNorm(width), nn.LayerNorm(width)
        layers: list[nn.Module] = []
        for out in (2 * width,) * hidden + (width,):
            layers += [nn.LayerNorm(2 * width), nn.ReLU(), Dropout(dropout), nn.Linear(2 * width, out)]
        self.fusion = nn.Sequential(*layers, nn.LayerNorm(width))
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(width, shapes.outputs)
        self.project = nn.Sequential(nn.Linear(width, width), nn.Linear(width, projection))
        self.contrast = Contrast(pairs)
        self.register_buffer("contrast_left", torch.ones(()))

    def fused(self, series: Tensor, image: Tensor) -> Tensor:
        """[N, D]: one representation of vectors or tokens [N or 1, D] of both modalities."""
        series, image = torch.broadcast_tensors(series, image)
        joint: Tensor = self.fusion(torch.cat([self.norm_series(series), self.norm_image(image)], dim=1))
        return joint

    def answer(self, joint: Tensor) -> Tensor:
        """Logits [N, K] of representations [N, D], without the prior."""
        logits: Tensor = self.head(self.dropout(joint))
        return logits

    def forward(self, batch: Batch) -> Output:
        """Logits of what is there; of the record alone; of the image alone, the prior where there is none.

        `features` holds the representations [B, D] of the three views.
        """
        series, image = self.series(batch).pooled, self.image(batch.images).pooled
        told = torch.where(batch.heard[:, EHR, None], series, self.no_series.to(series.dtype))
        views = {
            "ehr": self.fused(series, self.no_image[None]),
            "cxr": self.fused(self.no_series[None], image),  # [P, D]
            "fused": self.fused(told, fill_absent(image, batch, self.no_image)),
        }
        logits = {name: self.answer(view) for name, view in views.items()}
        for each in (views, logits):
            each["cxr"] = fill_absent(each["cxr"], batch, each["cxr"].new_zeros(each["cxr"].shape[1]))
        unimodal = {name: logits[name] + self.prior for name in ("ehr", "cxr")}
        return Output(logits["fused"] + self.prior, unimodal=unimodal, features=views)

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss of all; of each modality alone, where it is there; contrast of the pairs' views, each two."""
        found = super().losses(output, batch, targets)
        for name, modality in (("ehr", EHR), ("cxr", CXR)):
            each = sample_losses(output.unimodal[name], targets, self.shapes.task)
            found[name] = mean_where(each, batch.present[:, modality])
        pairs = batch.present.all(dim=1)
        vectors = [normalize(self.project(output.features[name][pairs]), dim=1) for name in VIEWS]
        contrasts = torch.stack([self.contrast(one, other) for one, other in itertools.combinations(vectors, 2)])
        found["contrast"] = self.weight * self.contrast_left * contrasts.mean()
        return found

    def between_epochs(self, epoch: Epoch) -> None:
        """The contrast fades."""
        self.contrast_left.fill_(1 - epoch.done / epoch.count)
