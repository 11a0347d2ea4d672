"""qmf: late fusion whose weights are energies of the unimodal logits, a stay at a time; ranking them makes them honest.

Paper: Zhang et al., ICML 2023 (arXiv 2306.02050).
Idea: logits = the sum over modalities of a weight and the modality's own logits; the weight is a tenth of their
logsumexp, which is small where nothing is sure. Of two stays, the one whose modality has lost more over all epochs so
far is to have the smaller weight.
Missing image: native. Its weight is 0, in training and at inference, and its history of losses does not grow; an absent
record is treated the same way. Where nothing at all is there, the record of medians speaks.
Changed: a label that is there or not counts as two classes, so that a sure no is as sure as a yes; weights of a length
of stay are not below 0. A stay that is new has no history, and is not ranked. The paper's body could not be read: the
source is the authors' code, whose ranking has the sign of its margin turned (a slack: it seldom acts); `margin: code`
is that, `intended` what the loss is said to be. As theirs, weights do not sum to 1: a label's starts at 0.07, so that
sums are less sure than the branches are, most so without an image; look at the calibration. history.csv has the
correlation of weight and own loss over the training stays, which the theory wants negative; the theory is about unseen
stays. Reproduced by a test: the weight of an unseen image falls where what it tells fades. Not reproduced: that it
falls under noise, and that fusion then gains: noise makes logits larger as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.losses import mean_where, sample_losses

ENERGY = 0.1  # a weight's share of the energy, as the authors'
NAMES = {EHR: "ehr", CXR: "cxr"}


def energies(logits: Tensor, kind: str, per_label: bool = False) -> Tensor:
    """Weights [B, 1], or [B, K] a label, of logits [B, K] without a prior: log(exp(z/2) + exp(-z/2)) of a label."""
    z = logits.float()
    if kind == "multiclass":
        return ENERGY * z.logsumexp(dim=1, keepdim=True).clamp(min=0)
    even = ENERGY * (softplus(z) - z / 2)
    return even if per_label else even.mean(dim=1, keepdim=True)


def ranking(weight: Tensor, history: Tensor, known: Tensor, sign: float = 1.0) -> Tensor:
    """Mean hinge over neighbours of the batch, in a ring: who has lost more weighs less, by the difference at least.

    Of weights, histories in [0, 1] and bool `known` [B]; pairs count where both are known. With `sign` -1 it may weigh
    more, by the difference at most.
    """
    gap = history - history.roll(-1)
    hinge = torch.relu(gap.sign() * (weight - weight.roll(-1)) + sign * gap.abs())
    return mean_where(hinge, known & known.roll(-1))


class QMF(Strategy):
    """Quality-aware multimodal fusion."""

    missing = "native"
    interaction = "additive"
    lost: Tensor
    known: Tensor
    moments: Tensor
    correlation: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        rank: float = 0.1,
        margin: str = "intended",
        per_label: bool = False,
        detach: bool = False,
    ) -> None:
        super().__init__(shapes)
        if rank < 0:
            raise ValueError(f"rank must be at least 0, is {rank}")
        if margin not in ("intended", "code"):
            raise ValueError(f"margin must be intended or code, is {margin!r}")
        self.rank, self.sign = rank, 1.0 if margin == "intended" else -1.0
        self.per_label, self.detach = per_label, detach
        width = shapes.encoders.width
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.series_head, self.image_head = (nn.Linear(width, shapes.outputs) for _ in range(2))
        self.register_buffer("lost", torch.zeros(2, shapes.stays))  # a modality and stay, the sum over epochs
        self.register_buffer("known", torch.zeros(2, shapes.stays, dtype=torch.bool))
        self.register_buffer("moments", torch.zeros(2, 6, dtype=torch.float64))  # of this epoch's weights and losses
        self.register_buffer("correlation", torch.zeros(2, dtype=torch.float64))  # of the last one's

    def forward(self, batch: Batch) -> Output:
        """The weighted sum of both modalities' logits; each one's own in `unimodal`."""
        ehr = self.series_head(self.dropout(self.series(batch).pooled))
        image = self.image_head(self.dropout(self.image(batch.images).pooled))
        logits = torch.stack([ehr, fill_absent(image, batch, image.new_zeros(image.shape[1])).to(ehr.dtype)])
        weights = torch.stack([energies(each, self.shapes.task.kind, self.per_label) for each in logits])
        weights = weights * batch.heard.T[:, :, None]  # [2, B, 1 or K]
        fused = ((weights.detach() if self.detach else weights) * logits).sum(dim=0)
        return Output(
            fused + self.prior,
            unimodal={name: logits[modality] + self.prior for modality, name in NAMES.items()},
            features={f"weight_{name}": weights[modality].mean(dim=1) for modality, name in NAMES.items()},
        )

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss of the sum and of each modality alone; the ranking of weights by histories up to now."""
        found = super().losses(output, batch, targets)
        for modality, name in NAMES.items():
            there, weight = batch.present[:, modality], output.features[f"weight_{name}"]
            loss = sample_losses(output.unimodal[name], targets, self.shapes.task).float()
            found[name] = mean_where(loss, there)
            history, known = self.history(modality, batch.index[there])
            found[f"rank_{name}"] = self.rank * ranking(weight[there], history, known, self.sign)
            if self.training:
                self.note(modality, batch.index[there], weight[there].detach(), loss[there].detach())
        return found

    def history(self, modality: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """[B]: what the stays have lost so far, from 0 for who lost least of all to 1 for who lost most; if known."""
        lost, known = self.lost[modality], self.known[modality]
        least = lost.masked_fill(~known, torch.inf).min()
        most = lost.masked_fill(~known, -torch.inf).max()
        scaled = (lost[index] - least) / (most - least).clamp(min=1e-12)
        return torch.where(known[index], scaled, 0.0), known[index]

    def note(self, modality: int, index: Tensor, weight: Tensor, loss: Tensor) -> None:
        """Adds the losses [B] to their stays' histories, and to the epoch's moments, those of weights and losses."""
        self.lost[modality].index_add_(0, index, loss)
        self.known[modality].index_fill_(0, index, True)
        x, y = weight.double(), loss.double()
        sums = [torch.ones_like(x), x, y, x * x, y * y, x * y]
        self.moments[modality] += torch.stack([each.sum() for each in sums])

    def between_epochs(self, epoch: Epoch) -> None:
        """Files how weights went with losses over the epoch."""
        _, x, y, xx, yy, xy = (self.moments / self.moments[:, :1].clamp(min=1)).unbind(dim=1)
        spread = ((xx - x * x) * (yy - y * y)).clamp(min=0).sqrt()
        self.correlation.copy_(torch.where(spread > 1e-12, (xy - x * y) / spread.clamp(min=1e-12), 0.0))
        self.moments.zero_()

    def diagnostics(self) -> dict[str, float]:
        """Of the last epoch's training stays, weight against own loss (Pearson): the mechanism wants it below 0."""
        return {f"correlation_{name}": float(self.correlation[modality]) for modality, name in NAMES.items()}
