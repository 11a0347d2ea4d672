"""The contract notices whose image is starved, and who imputes the same for everybody."""

import pytest
import torch
from torch import nn

from pipeline.modelling import checks, registry
from pipeline.modelling.checks import check_strategy
from pipeline.modelling.encoders import fill_absent
from pipeline.modelling.examples import small_shapes
from pipeline.modelling.interface import CXR, Output
from pipeline.strategies.late_fusion import LateFusion


class FaintImage(LateFusion):
    """The image's vector reaches the head a ten-thousandth as loud; nothing else is wrong."""

    def forward(self, batch):
        image = 0.0001 * fill_absent(self.image(batch.images).pooled, batch, self.absent)
        return Output(self.head(torch.cat([self.series(batch).pooled, image], dim=1)) + self.prior)


class FrozenImage(LateFusion):
    """The image's encoder is not trained, and does not say so: what the head reads is random features."""

    def __init__(self, shapes):
        super().__init__(shapes)
        self.image.requires_grad_(False)


class Imputes(LateFusion):
    """What stands for an absent image is a vector of the record's."""

    missing = "native"

    def __init__(self, shapes):
        super().__init__(shapes)
        width = shapes.encoders.width
        del self.absent
        self.guess = nn.Linear(width, width)

    def of_batch(self, batch, series):
        return self.guess(series)  # [B, D]

    def forward(self, batch):
        series = self.series(batch).pooled
        there = batch.present[:, CXR, None]
        own = fill_absent(self.image(batch.images).pooled, batch, series.new_zeros(series.shape[1]))
        image = torch.where(there, own, self.of_batch(batch, series))
        logits = self.head(self.dropout(torch.cat([series, image], dim=1))) + self.prior
        return Output(logits, features={"imputed": image})


class ImputesTheMean(Imputes):
    """As a graph in which everybody is everybody's neighbour: it hardly differs between patients."""

    def of_batch(self, batch, series):
        return self.guess.bias + 1e-4 * super().of_batch(batch, series)


class ImputesByPlace(Imputes):
    """It differs between patients, but by their place in the data and not by their record."""

    def of_batch(self, batch, series):
        place = torch.sin(batch.index[:, None] + torch.arange(series.shape[1]))
        return self.guess(place) + 0 * series


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (FaintImage, r"its image is starved: .* of AUROC hang on it, .* of late_fusion's \(500 steps, seed 2\)"),
        (FrozenImage, "its image is starved"),
        (ImputesTheMean, "imputed images hardly differ: .* over patients, where real ones have"),
        (ImputesByPlace, "imputed images do not go with the records"),
    ],
)
def test_what_is_learned_of_a_faint_image_and_imputed_is_asked(planted, monkeypatch, cls, message):
    planted(cls)
    monkeypatch.setattr(checks, "_check_task", lambda *_: registry.build("planted", small_shapes("phenotype"), {}))
    monkeypatch.setattr(checks, "_check_memory", lambda *_: None)
    monkeypatch.setattr(checks, "_check_learning", lambda *_: None)
    with pytest.raises(AssertionError, match=f"^planted: {message}"):
        check_strategy("planted", tasks=["phenotype"])
    check_strategy("planted", tasks=["phenotype"], faint=False)  # nobody asks


def test_one_that_imputes_from_the_record_passes(planted):
    planted(Imputes)
    check_strategy("planted")
