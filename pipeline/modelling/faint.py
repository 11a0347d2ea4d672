"""What a strategy must still learn of an image that is faint beside a clear record, as images of patients are.

Four pairs free of noise (learning.py) are learned by heart even through an encoder that hardly reaches the answer. Here
every image is of its own noise, the learning rate is training's, and a stated number of steps must do: who lets the
image through faintly, or lets other losses outweigh it, has learned nothing of it by then. The measure is late_fusion.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.modelling.examples import example_batch, select
from pipeline.modelling.interface import Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.learning import by_signal, optimiser_of, set_rate, take_step
from pipeline.modelling.registry import build
from pipeline.modelling.views import keep_images, without_images
from pipeline.params import Encoders
from pipeline.tasks import get_task

SIZE = Encoders(width=32, heads=4, layers=1, dropout=0.1, cnn="narrow", cnn_width=8)  # of the scale `study`
SAMPLES, FRESH, BATCH = 2048, 512, 32  # of training; to be told afterwards; of a step
SHAPES = Shapes(
    get_task("phenotype"), hours=12, channel_variable=(0, 1, 2, 2), px=32, encoders=SIZE, stays=SAMPLES + FRESH
)
PICTURED = 0.75  # share of the training samples that have an image
STEPS, EPOCH, LR = 500, 50, 1e-3  # at 300 a gate that is as slow as the example of CONTRIBUTING.md has nothing yet
NOISE, SPOT = 0.15, 0.05  # of a pixel; height of the spot that tells, at its middle
SHARE = 0.5  # of late_fusion's use of the image
VARIED = (
    0.02  # spread over patients of imputed vectors, in that of seen ones; no more, as the record tells nothing of them
)


class Seen(NamedTuple):
    """`use`: AUROC of what the image alone tells, less the same with samples' images exchanged; both on fresh samples.

    `imputed`, `real`: standard deviation over patients of the images' vectors, where no image is there, where all are;
    None where the strategy tells of no imputation.
    """

    model: Strategy
    use: float
    steps: int
    imputed: float | None
    real: float | None


def faint_pairs(size: int, seed: int) -> tuple[Batch, Tensor]:
    """Samples, all with an image, and labels by SIGNALS: of a shift in the record, a spot in the noise, and of both."""
    g = torch.Generator().manual_seed(seed)
    batch = example_batch(SHAPES, size, torch.ones(size).bool(), seed)
    record, image = torch.randint(2, (2, size), generator=g)
    ehr = batch.ehr.clone()
    ehr[:, :, 0] += (2 * record - 1)[:, None]
    line = torch.linspace(-1, 1, SHAPES.px)
    spot = torch.exp(-((line[:, None] - 0.2).square() + (line[None] - 0.3).square()) / 0.08)
    noise = NOISE * torch.randn(batch.images.shape, generator=g)
    images = (0.5 + noise + SPOT * (2 * image - 1)[:, None, None, None] * spot).clamp(0, 1)
    return dataclasses.replace(batch, ehr=ehr, images=images), by_signal(record, image, SHAPES)


def auroc(scores: Tensor, truth: Tensor) -> Tensor:
    """[K]: of scores and truth [N, K], how often a positive lies above a negative; a tie is one half."""
    found = []
    for score, true in zip(scores.T, truth.T > 0.5, strict=True):
        apart = score[true][:, None] - score[~true][None]
        found.append((apart > 0).float().mean() + 0.5 * (apart == 0).float().mean())
    return torch.stack(found)


def _exchanged(batch: Batch) -> Batch:
    """All samples have an image, and get the next one's."""
    return dataclasses.replace(batch, images=batch.images.roll(1, 0))


def use_of_image(model: Strategy, fresh: Batch, truth: Tensor) -> float:
    """What exchanging the images costs in AUROC, the mean over the labels that the image alone tells."""
    model.eval()
    with torch.inference_mode():
        own, other = (auroc(model(batch).logits, truth)[1::3].mean() for batch in (fresh, _exchanged(fresh)))
    return float(own - other)


def imputed(model: Strategy, batch: Batch) -> Tensor | None:
    """[B, D]: the images' vectors as the answer is made of them, where the strategy tells."""
    model.eval()
    with torch.inference_mode():
        output: Output = model(batch)
    return output.features.get("imputed")


def _spread(vectors: Tensor | None) -> float | None:
    return None if vectors is None else float(vectors.std(dim=0).mean())


def seen(name: str, hyper: dict[str, Any], seed: int, enough: float | None = None) -> Seen:
    """What the strategy has learned of the image after STEPS steps, or at the end of an epoch when its use is `enough`.

    A quarter of the training samples has no image.
    """
    whole, targets = faint_pairs(SAMPLES, 2 * seed)
    there = torch.rand(SAMPLES, generator=torch.Generator().manual_seed(seed)) < PICTURED
    train = keep_images(whole, there)
    fresh, truth = faint_pairs(FRESH, 2 * seed + 1)
    fresh = dataclasses.replace(fresh, index=SAMPLES + fresh.index)  # none of the training stays
    torch.manual_seed(seed)
    model = build(name, SHAPES, hyper)
    optimiser = optimiser_of(model)
    rows = torch.cat([torch.randperm(SAMPLES) for _ in range(1 + STEPS * BATCH // SAMPLES)]).split(BATCH)
    use = 0.0
    for step in range(STEPS + 1):
        if step % EPOCH == 0:
            model.eval()
            with torch.no_grad():
                model.between_epochs(Epoch(step // EPOCH, STEPS // EPOCH, lambda: [(train, targets)]))
            use = use_of_image(model, fresh, truth)
            if step and enough is not None and use >= enough:
                break
            model.train()
        if step < STEPS:
            set_rate(optimiser, LR, step, STEPS)
            take_step(model, optimiser, [(select(train, rows[step]), targets[rows[step]])])
    spreads = (_spread(imputed(model, batch)) for batch in (without_images(fresh), fresh))
    return Seen(model, use, step, *spreads)


@functools.cache
def measure(seed: int) -> float:
    """The use that late_fusion makes of the image after STEPS steps."""
    return seen("late_fusion", {}, seed).use
