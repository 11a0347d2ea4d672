"""hypermm: one extractor for all modalities, with weights made from the modality's name; what is there is a set.

Paper: Chaptoukaev et al., MMMI workshop at MICCAI 2024 (arXiv 2407.20768); formulas after the authors' code.
Idea: a small network makes, of a modality's embedding, the weights of the map that brings its vector into the one space
of all. This is learned first, from each modality alone: its vector must be rebuilt, and tell the label. Then encoders
and maps are frozen, and a network is learned of the mean over the set of what is there: it needs no order, no number
and nothing imputed.
Missing image: native. The set is smaller, in training and at inference; a set without a record is the image alone.
Changed: the paper's body could not be read. Encoders of both modalities are trained in the first phase (the authors'
are frozen, pretrained ones of images alone), by the labels, not by what is rebuilt: else encoder and decoder agree on
zero. In it the mean of the modalities' own answers is what is answered, since validation looks from the first epoch;
they come from a linear head: behind the authors' two layers nothing of check_strategy's faint image was learned in 500
steps. The phase takes 0.4 of the epochs (`first_share`; the authors': 50 of 150). Made weights are divided by the root
of the width. The mean follows the code, where the paper is said to have a sum. The last hidden layer is twice as wide
as the encoders; dropout is the scale's (0.5 there). One step sees a batch, not a stay; optimiser and schedule are the
loop's. Groups of variables as further modalities are left out. Reproduced on planted pairs, of being robust to what is
missing: trained on complete sets, it tells more without images than the same network without its first phase. Not
reproduced: that it loses less than others; late_fusion lost as little there. Not tested: sets of more than two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, mean_of_present
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.layers import Dropout
from pipeline.modelling.losses import mean_where, sample_losses


class Universal(nn.Module):
    """An affine map of vectors [N, D] a modality, its weights made from the modality's embedding."""

    def __init__(self, width: int, embedding: int, hidden: int, modalities: int = 2) -> None:
        super().__init__()
        self.width = width
        self.names = nn.Parameter(torch.randn(modalities, embedding))
        self.make = nn.Sequential(nn.Linear(embedding, hidden), nn.ReLU(), nn.Linear(hidden, width * (width + 1)))

    def forward(self, x: Tensor, modality: int) -> Tensor:
        """[N, D]."""
        made = self.make(self.names[modality])
        weight, bias = made.split([self.width**2, self.width])
        mapped: Tensor = nn.functional.linear(x, weight.view(self.width, self.width) / self.width**0.5, bias)
        return mapped


class HyperMM(Strategy):
    """Universal extractor by a hypernetwork, and a network of sets."""

    missing = "native"
    second: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        embedding: int = 5,
        hidden: int = 20,
        first_share: float = 0.4,
        freeze: bool = True,
    ) -> None:
        super().__init__(shapes)
        for key, count in (("embedding", embedding), ("hidden", hidden)):
            if count < 1:
                raise ValueError(f"{key}: must be at least 1, is {count}")
        if not 0 < first_share < 1:
            raise ValueError(f"first_share: must lie between 0 and 1, is {first_share}")
        self.first_share, self.freeze = first_share, freeze
        width, dropout = shapes.encoders.width, shapes.encoders.dropout
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.extract = Universal(width, embedding, hidden)
        self.rebuild = nn.Linear(width, width)
        self.alone = nn.Linear(width, shapes.outputs)
        self.together = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), Dropout(dropout), nn.Linear(2 * width, shapes.outputs)
        )
        self.register_buffer("second", torch.zeros((), dtype=torch.bool))  # whether the second phase has begun

    def forward(self, batch: Batch) -> Output:
        """Logits of the set; in the first phase the mean of what its members answer, each alone.

        `features` of the first phase: the vectors [B, D] and [P, D] of both encoders.
        """
        second = bool(self.second)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not (second and self.freeze)):
            vectors = {"ehr": self.series(batch).pooled, "cxr": self.image(batch.images).pooled}
            sets = {name: self.extract(vectors[name], number) for name, number in (("ehr", EHR), ("cxr", CXR))}
        if second:
            return Output(self.together(mean_of_present(sets["ehr"], sets["cxr"], batch)) + self.prior)
        logits = {name: self.alone(each) + self.prior for name, each in sets.items()}
        unimodal = {"ehr": logits["ehr"], "cxr": self.prior.to(logits["cxr"].dtype).expand_as(logits["ehr"])}
        unimodal["cxr"] = unimodal["cxr"].index_copy(0, batch.image_sample, logits["cxr"])
        return Output(mean_of_present(logits["ehr"], logits["cxr"], batch), unimodal=unimodal, features=vectors)

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """First phase: of each modality its own task loss, and that it is rebuilt; `task` shown. Then `task` alone."""
        found = super().losses(output, batch, targets)
        names = (("ehr", EHR), ("cxr", CXR))
        if self.second:
            zero = torch.zeros_like(found["task"])
            return found | {f"{kind}{name}": zero for kind in ("", "rebuild_") for name, _ in names}
        found["task"] = found["task"].detach()
        there = {"ehr": batch.present[:, EHR], "cxr": torch.ones_like(batch.image_sample, dtype=torch.bool)}
        for name, modality in names:
            own = sample_losses(output.unimodal[name], targets, self.shapes.task)
            found[name] = mean_where(own, batch.present[:, modality])
            vector = output.features[name].detach()
            apart = (self.rebuild(self.extract(vector, modality)) - vector).square().mean(dim=1)
            found[f"rebuild_{name}"] = mean_where(apart, there[name])
        return found

    def between_epochs(self, epoch: Epoch) -> None:
        """The second phase begins."""
        self.second.fill_(epoch.done >= self.first_share * epoch.count)

    def waiting(self) -> list[nn.Parameter]:
        """The network of sets, until then."""
        return [] if self.second else list(self.together.parameters())
