"""Radiographs made up for tests, as JPEGs."""

import numpy as np
from PIL import Image


def radiograph(width, height, seed=0):
    """A smooth grey image: dark above left, bright below right, on no account black."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.linspace(0, 1, height), np.linspace(0, 1, width)) / 2
    return Image.fromarray((60 + 150 * ramp + 20 * rng.random()).astype(np.uint8))


def jpeg(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=95, **options)
    return path


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-400])


def _noise(path):
    path.write_bytes(b"this is no image at all" * 20)
