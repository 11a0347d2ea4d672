"""aug: the weaker modality is given more classifiers, one after the other, each boosting those before it.

Paper: Jiang et al., NeurIPS 2025 (arXiv 2502.20120).
Idea: each modality learns from its own loss alone; at intervals, adaptive classifier assignment compares how sure the
two are of the truth on the training stays, and gives the weaker one another layer, fitted to what is left over.
Missing image: complete; the ensemble is then of the EHR's classifiers alone, in training and at inference (and of the
image's alone where the record is absent). A modality's loss and the comparison see what is present.
Changed: layers are there from the start and wait without a gradient, so that the one optimiser trains each from its
assignment on as if it were new (in the official code added layers are in no optimiser). One step on the sum of the
losses instead of one a modality. Labels other than classes: the residual's weight 1 - residual · p(truth) is taken
label by label, so the loss is bounded below; assignment weighs positives and negatives alike. `task` is the fused loss,
shown and not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.losses import element_losses, mean_where

WAITING = -1  # the owner of a booster that no modality has been given yet


class AUG(Strategy):
    """Boosted classifiers for the weaker modality."""

    missing = "complete"
    interaction = "additive"
    owner: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        share_ehr: float = 0.4,
        residual: float = 0.5,
        balance: float = 1.0,
        margin: float = 0.01,
        checks: int = 10,
    ) -> None:
        super().__init__(shapes)
        for key, share in (("share_ehr", share_ehr), ("residual", residual)):
            if not 0 <= share <= 1:
                raise ValueError(f"{key} must lie between 0 and 1, is {share}")
        if not 0 <= margin < balance:
            raise ValueError(f"margin must be at least 0 and below balance, are {margin} and {balance}")
        if checks < 1:
            raise ValueError(f"checks must be at least 1, is {checks}")
        self.share_ehr, self.residual, self.balance, self.margin = share_ehr, residual, balance, margin
        self.checks = checks
        width = shapes.encoders.width
        self.series = TransformerEncoder(shapes)
        self.image = ImageEncoder(shapes)
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.embed = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        # One for each check, in the order of assignment, to whichever modality it is then given.
        layers = [nn.Linear(width, width) for _ in range(checks + 1)]
        for layer in layers:
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.boosters = nn.ModuleList(layers)
        self.head = nn.Linear(width, shapes.outputs)  # shared by both modalities and all layers
        self.register_buffer("owner", torch.full((checks + 1,), WAITING))

    def owned(self, modality: int) -> list[nn.Module]:
        """The boosters that it was given, in that order; those that nobody has yet: of WAITING."""
        return [booster for booster, owner in zip(self.boosters, self.owner.tolist(), strict=True) if owner == modality]

    def waiting(self) -> Iterator[nn.Parameter]:
        """Of the boosters that nobody has yet."""
        return (parameter for booster in self.owned(WAITING) for parameter in booster.parameters())

    def classify(self, features: Tensor, modality: int) -> dict[str, Tensor]:
        """[B, K]: `all` classifiers' sum, that without the last booster (`before`), and the last booster (`last`)."""
        features = self.dropout(features)
        everything: Tensor = self.head(torch.relu(self.embed[modality](features)))
        before, last = everything, torch.zeros_like(everything)
        for booster in self.owned(modality):
            before, last = everything, self.head(torch.relu(booster(features)))
            everything = before + last
        return {"all": everything, "before": before, "last": last}

    def forward(self, batch: Batch) -> Output:
        """Weighted sum of the two modalities' logits, or those of the one that is there."""
        image = self.image(batch.images).pooled
        image = fill_absent(image, batch, image.new_zeros(image.shape[1]))
        ehr, cxr = self.classify(self.series(batch).pooled, EHR), self.classify(image, CXR)
        share = torch.full_like(ehr["all"][:, :1], self.share_ehr)
        share = torch.where(batch.present[:, EHR, None], share, 0.0)
        share = torch.where(batch.present[:, CXR, None], share, 1.0)
        logits = share * ehr["all"] + (1 - share) * cxr["all"]
        unimodal = {
            name if key == "all" else f"{name}_{key}": value + self.prior
            for name, each in (("ehr", ehr), ("cxr", cxr))
            for key, value in each.items()
        }
        return Output(logits + self.prior, unimodal=unimodal)

    def boosted_loss(self, output: Output, targets: Tensor, name: str, modality: int) -> Tensor:
        """[B]: loss of all; with boosters also of those before the last, and of the last on what these left over."""
        kind = self.shapes.task.kind
        everything, before, last = (
            element_losses(output.unimodal[key], targets, kind) for key in (name, f"{name}_before", f"{name}_last")
        )
        left_over = 1 - self.residual * torch.exp(-before.detach())
        boosted = before + left_over * last
        return (everything + boosted * (self.owner == modality).any()).mean(dim=1)

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Each modality's own loss, where it is present; `task` without gradient."""
        own = {
            name: mean_where(self.boosted_loss(output, targets, name, modality), batch.present[:, modality])
            for name, modality in (("ehr", EHR), ("cxr", CXR))
        }
        return {"task": super().losses(output, batch, targets)["task"].detach(), **own}

    def between_epochs(self, epoch: Epoch) -> None:
        """After the first epoch and at each check, another booster for the weaker modality, if one clearly is."""
        if epoch.done == 0 or (epoch.done > 1 and epoch.done % max(1, epoch.count // self.checks)):
            return
        ratio = self.ratio(epoch)
        weaker = CXR if ratio > self.balance + self.margin else EHR if ratio < self.balance - self.margin else None
        if weaker is not None:
            free = (self.owner == WAITING).nonzero().flatten()
            self.owner[free[:1]] = weaker

    def ratio(self, epoch: Epoch) -> float:
        """How sure the EHR is of the truth, relative to the image, on the training pairs; balance where there is none.

        Of labels, the mean over positive cells and the mean over negative ones count the same.
        """
        kind = self.shapes.task.kind
        sums = self.prior.new_zeros((2, 2), dtype=torch.float64)  # modality, negative or positive
        counts = self.prior.new_zeros(2, dtype=torch.float64)
        for batch, targets in epoch.batches():
            output, pairs = self(batch), batch.present.all(dim=1)[:, None]
            positive = torch.ones_like(targets) if kind == "multiclass" else targets
            cells = torch.stack([pairs * (1 - positive), pairs * positive]).double()
            counts += cells.sum(dim=(1, 2))
            for modality, name in enumerate(("ehr", "cxr")):
                sure = torch.exp(-element_losses(output.unimodal[name], targets, kind).double())
                sums[modality] += (cells * sure).sum(dim=(1, 2))
        if counts.sum() == 0:
            return self.balance
        means = (sums / counts.clamp(min=1)).sum(dim=1)
        return float(means[EHR] / means[CXR].clamp(min=1e-12))
