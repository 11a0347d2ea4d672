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
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
