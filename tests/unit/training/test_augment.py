"""Augmentation of a batch's images."""

import numpy as np
import torch

from pipeline.params import Augment
from pipeline.training.augment import augment


def test_augmentation_is_small_seeded_and_never_a_flip():
    images = torch.zeros(8, 1, 32, 32)
    images[:, :, 8:24, 4:10] = 1.0  # a bar on the left
    rules = Augment(rotation_degrees=10, shift=0.05, scale=0.05)
    a = augment(images, rules, torch.Generator().manual_seed(1))
    b = augment(images, rules, torch.Generator().manual_seed(1))
    assert torch.equal(a, b)
    assert not torch.equal(a[0], a[1])
    assert (a[..., :16].sum(dim=(1, 2, 3)) > 20 * a[..., 16:].sum(dim=(1, 2, 3))).all()
    still = augment(images, Augment(rotation_degrees=0, shift=0, scale=0), torch.Generator().manual_seed(1))
    torch.testing.assert_close(still, images)
    assert augment(images[:0], rules, torch.Generator()).shape == (0, 1, 32, 32)


def test_augmentation_samples_where_affine_grid_would():
    images = torch.rand(5, 1, 20, 30, generator=torch.Generator().manual_seed(0))
    rules = Augment(rotation_degrees=30, shift=0.1, scale=0.2)
    draw = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    angle, zoom, shift = draw[:, 0] * 30 * np.pi / 180, 1 + draw[:, 1] * 0.2, draw[:, 2:] * 2 * 0.1
    rows = [torch.cos(angle) / zoom, -torch.sin(angle) / zoom, shift[:, 0]]
    rows += [torch.sin(angle) / zoom, torch.cos(angle) / zoom, shift[:, 1]]
    theta = torch.stack(rows, dim=1).view(5, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [5, 1, 20, 30], align_corners=False)
    expected = torch.nn.functional.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(augment(images, rules, torch.Generator().manual_seed(1)), expected, atol=1e-4, rtol=0)
