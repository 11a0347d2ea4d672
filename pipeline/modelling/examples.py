"""Random batches of small shapes, for the checks, the tests, cost and timing."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from pipeline.modelling.interface import Batch, Shapes
from pipeline.params import Encoders
from pipeline.tasks import get_task

SMALL = Encoders(width=16, heads=2, layers=1, dropout=0.1, cnn="narrow", cnn_width=4)


def small_shapes(task: str, px: int = 16) -> Shapes:
    """Shapes that make a check take seconds. The image's grid has one token at 16 px, four at 32."""
    categories = (10,) * 5 + (11,) * 5
    return Shapes(get_task(task), hours=48, channel_variable=(*range(10), *categories), px=px, encoders=SMALL)


def example_batch(shapes: Shapes, size: int, with_image: Tensor, seed: int = 0) -> Batch:
    """A random batch of `size` samples; `with_image` bool [size] says who has an image, or up to `shapes.images`."""
    g = torch.Generator().manual_seed(seed)
    number = torch.where(with_image, 1 + torch.arange(size) % shapes.images, 0)
    sample, place = torch.nonzero(torch.arange(shapes.images) < number[:, None], as_tuple=True)
    hours = (size, shapes.hours)
    ehr = torch.randn(*hours, shapes.channels, generator=g)
    for variable in {v for v, one_hot in zip(shapes.channel_variable, shapes.one_hot, strict=True) if one_hot}:
        entries = [i for i, each in enumerate(shapes.channel_variable) if each == variable]
        charted = torch.randint(len(entries), hours, generator=g)
        ehr[:, :, entries] = nn.functional.one_hot(charted, len(entries)).float()
    return Batch(
        ehr=ehr,
        observed=torch.rand(*hours, shapes.variables, generator=g) < 0.3,
        since=torch.rand(*hours, shapes.variables, generator=g),
        images=_images(shapes, len(sample), g),
        image_sample=sample,
        image_place=place,
        image_hours=torch.rand(len(sample), generator=g),
        image_view=torch.randint(2, (len(sample),), generator=g),
        image_count=torch.randint(1, 5, (len(sample),), generator=g),
        present=torch.stack([torch.ones(size, dtype=torch.bool), with_image], dim=1),
        index=torch.arange(size),
    )


def _images(shapes: Shapes, count: int, g: torch.Generator) -> Tensor:
    """Noise in the place of `count` pictures, or of their embeddings."""
    if shapes.embedding:
        return torch.randn(count, *shapes.image, generator=g).half()
    return torch.rand(count, *shapes.image, generator=g)


def example_targets(shapes: Shapes, size: int, seed: int = 0) -> Tensor:
    """Random targets [size, labels] of the task."""
    g = torch.Generator().manual_seed(seed)
    if shapes.task.kind == "multiclass":
        return torch.randint(shapes.outputs, (size, 1), generator=g).float()
    return (torch.rand(size, shapes.outputs, generator=g) < 0.4).float()


def select(batch: Batch, rows: Tensor) -> Batch:
    """The batch of some of its samples, in the order of `rows`."""
    place = torch.full((batch.size,), -1)
    place[batch.image_sample] = torch.arange(len(batch.image_sample))
    image = place[rows]
    chosen = image[image >= 0]
    return dataclasses.replace(
        batch,
        ehr=batch.ehr[rows],
        observed=batch.observed[rows],
        since=batch.since[rows],
        images=batch.images[chosen],
        image_sample=torch.nonzero(image >= 0).squeeze(1),
        image_place=batch.image_place[chosen],
        image_hours=batch.image_hours[chosen],
        image_view=batch.image_view[chosen],
        image_count=batch.image_count[chosen],
        present=batch.present[rows],
        index=batch.index[rows],
    )


def pairs(batch: Batch, record: Tensor, image: Tensor) -> Batch:
    """Samples with the record of one sample and the pixels of another, alike in all else; all samples have an image."""
    same = select(batch, torch.zeros_like(record))
    series = {key: getattr(batch, key)[record] for key in ("ehr", "observed", "since")}
    return dataclasses.replace(same, **series, images=batch.images[image], index=torch.arange(len(record)))
