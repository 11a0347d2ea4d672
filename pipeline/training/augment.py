"""Augmentation of a batch of images: one affine map each (rotation, shift, scale; no flip: hearts are on the left)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.params import Augment


def augment(images: Tensor, rules: Augment, generator: torch.Generator) -> Tensor:
    """Images [P, 1, H, W], each turned, shifted and scaled at random; outside of the image is black.

    Numbers are drawn on the CPU, so that they are the same on every device.
    """
    if len(images) == 0:
        return images
    draw = (torch.rand(len(images), 4, generator=generator) * 2 - 1).to(images.device)
    angle = draw[:, 0] * math.radians(rules.rotation_degrees)
    zoom = 1 + draw[:, 1] * rules.scale
    shift = draw[:, 2:] * 2 * rules.shift  # grid coordinates span 2
    # pixels as complex numbers: one multiplication turns and scales them (affine_grid takes ten times as long)
    turn, move = torch.polar(1 / zoom, angle)[:, None, None], torch.complex(*shift.unbind(1))[:, None, None]
    down, across = (_centres(side, images.device) for side in images.shape[-2:])
    grid = torch.view_as_real(torch.complex(*torch.broadcast_tensors(across, down[:, None])) * turn + move)
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _centres(pixels: int, device: torch.device) -> Tensor:
    """Where the pixels of a side that reaches from -1 to 1 have their centres."""
    return (torch.arange(pixels, device=device) * 2 + 1) / pixels - 1
