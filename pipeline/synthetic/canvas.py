"""The drawing tools of radiograph.py: a jittered frame of coordinates, soft edges, bands, blobs and smooth noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]  # float32, [H, W]


@dataclass(frozen=True)
class Canvas:
    """Coordinates of every pixel, [H, W]: u, v in [0, 1] of the picture; x, y of the patient, slightly turned."""

    u: Field
    v: Field
    x: Field
    y: Field

    @staticmethod
    def of(height: int, width: int, rng: np.random.Generator) -> Canvas:
        """A frame for a picture of that size, with the pose drawn from `rng`."""
        rows, columns = (
            (np.arange(height, dtype=np.float32) + 0.5) / height,
            (np.arange(width, dtype=np.float32) + 0.5) / width,
        )
        v, u = np.meshgrid(rows, columns, indexing="ij")
        turn, scale = rng.normal(0, 0.015), 1 + rng.normal(0, 0.02)
        wide = 2 * u - 1
        tall = v - 0.5
        # a portrait picture cuts the shoulders rather than squeezing the chest: half of the difference in shape each
        shape = (width / height) ** 0.5
        x = scale * (wide * shape - turn * tall * 2)
        y = 0.5 + scale * (turn * wide / 2 + tall) + rng.normal(0, 0.008)
        return Canvas(u, v, x + rng.normal(0, 0.010), y)


def edge(distance: Field, width: float) -> Field:
    """0 outside (distance below 0), 1 inside, over a soft border of about 4 `width`."""
    return np.asarray(0.5 * (1 + np.tanh(distance / (2 * width))))


def band(distance: Field, width: float) -> Field:
    """1 on the line distance = 0, falling off like a bell of that width."""
    return np.asarray(np.exp(-((distance / width) ** 2)))


def blob(dx: Field, dy: Field, wide: float, tall: float) -> Field:
    """A soft patch around dx = dy = 0."""
    return np.asarray(np.exp(-((dx / wide) ** 2) - (dy / tall) ** 2))


def softplus(value: float) -> float:
    """Smooth max(0, value)."""
    return float(np.logaddexp(0.0, value))


def grain(canvas: Canvas, cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise of about unit variance with about `cells` cells across the picture (smooth between random knots)."""
    knots = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    row, column = canvas.v * cells, canvas.u * cells
    i, j = np.minimum(row.astype(np.int32), cells - 1), np.minimum(column.astype(np.int32), cells - 1)
    a, b = row - i, column - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    top = knots[i, j] * (1 - b) + knots[i, j + 1] * b
    low = knots[i + 1, j] * (1 - b) + knots[i + 1, j + 1] * b
    return np.asarray(1.5 * (top * (1 - a) + low * a))
