"""A frozen encoder's embeddings of the images, in the place of pixels: standardised, and as a map.

Packed, an image is [N, E]: its pooled vector, and then the S² tokens of a square grid, row by row; [1, E] where the
model gives a pooled vector alone, which is then also the one token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, Any]
CHUNK = 256  # images at a time: bounds the temporaries


class Standardised(nn.Module):
    """Embeddings less their mean, by their spread, over the training images: features of a frozen model have neither.

    Moments are of each of the E features, of pooled vectors and of tokens apart; 0 and 1 until `learn`.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("centre", torch.zeros(2, width))
        self.register_buffer("spread", torch.ones(2, width))

    def learn(self, embeddings: Array, rows: Array) -> None:
        """Takes the moments of the images `rows` of `embeddings` float16 [M, N, E]; none changes nothing."""
        if not len(rows):
            return
        for place, part in enumerate((slice(0, 1), slice(-(self.side**2), None))):
            count, total, square = 0, 0.0, 0.0
            for start in range(0, len(rows), CHUNK):
                x = embeddings[rows[start : start + CHUNK], part].astype(np.float64).reshape(-1, embeddings.shape[2])
                count, total, square = count + len(x), total + x.sum(axis=0), square + (x * x).sum(axis=0)
            mean = total / count
            spread = np.sqrt(np.maximum(square / count - mean * mean, 0.0))
            spread[spread <= 1e-6 * np.abs(mean)] = 1.0  # the same in every image, but for rounding
            self.centre[place], self.spread[place] = torch.from_numpy(mean), torch.from_numpy(spread)

    def forward(self, images: Tensor) -> Tensor:
        """The pooled vectors [P, E] of embeddings [P, N, E], standardised."""
        return (images[:, 0].float() - self.centre[0]) / self.spread[0]

    def grid(self, images: Tensor) -> Tensor:
        """The tokens of embeddings [P, N, E] as a map [P, E, S, S], standardised."""
        tokens = (images[:, -(self.side**2) :].float() - self.centre[1]) / self.spread[1]
        found: Tensor = tokens.mT.unflatten(2, (self.side, self.side))
        return found
