"""Seeded randomness by name: each table draws from a stream of its own, so that a new draw leaves the others alone."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def entropy(seed: int, *names: str | int) -> list[int]:
    """The numbers that seed the stream called `names`; numbers of at most 32 bits, so that they travel as JSON."""
    return [seed, *(name if isinstance(name, int) else zlib.crc32(name.encode()) for name in names)]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent generator for `names` (a table, a chunk of it, ...) of the hospital with that seed."""
    return np.random.default_rng(entropy(seed, *names))


def identifiers(rng: np.random.Generator, low: int, high: int, count: int, taken: Ints | None = None) -> Ints:
    """`count` different numbers in [low, high), in random order; none of those in `taken`."""

    def free(numbers: Ints) -> Ints:
        return np.unique(numbers) if taken is None else np.setdiff1d(numbers, taken)

    drawn = free(rng.integers(low, high, size=count + count // 5 + 100))
    while drawn.size < count:
        drawn = free(np.concatenate([drawn, rng.integers(low, high, size=count)]))
    return rng.permutation(drawn)[:count]


def pick(rng: np.random.Generator, weights: Mapping[Any, float], count: int) -> NDArray[np.object_]:
    """`count` keys of `weights`, each with a chance in proportion to its weight."""
    keys = np.empty(len(weights), dtype=object)
    keys[:] = list(weights)
    chance = np.asarray(list(weights.values()), dtype=float)
    return keys[rng.choice(len(keys), size=count, p=chance / chance.sum())]


def sigmoid(value: Floats) -> Floats:
    """1 / (1 + exp(-value)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * value)))
