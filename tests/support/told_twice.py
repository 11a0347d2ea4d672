"""Pairs whose label the record tells as surely as the image: what is left without images was learned of the record."""

import dataclasses

import torch

from pipeline.modelling.examples import example_batch, small_shapes

SHAPES = dataclasses.replace(small_shapes("mortality"), channel_variable=(0, 1, 2, 2), hours=12)


def told_twice(size, seed):
    """(batch, targets [size, 1]): the image tells the label at once, bright or dark, the record by its slope."""
    batch = example_batch(SHAPES, size, torch.ones(size).bool(), seed)
    truth = torch.arange(size) % 2
    ehr = batch.ehr.clone()
    ehr[:, :, 0] += (2 * truth - 1)[:, None] * torch.linspace(-1, 1, SHAPES.hours)
    images = 0.5 * batch.images + 0.5 * truth[:, None, None, None]
    return dataclasses.replace(batch, ehr=ehr, images=images), truth[:, None].float()
