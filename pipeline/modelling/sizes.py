"""The shared encoders at a share of their size, for students and their teachers; and what such runs are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pipeline.params import Encoders

TEACHERS = ("none", "same", "base")  # whose runs teach: nobody's, the cohort's own, those of the base cohort


def require_teaching(teachers: str, sizes: Sequence[float], size: float) -> None:
    """Raises ValueError, naming the knob, where one of the three is impossible."""
    if teachers not in TEACHERS:
        raise ValueError(f"teachers: must be one of {', '.join(TEACHERS)}, is {teachers!r}")
    if not isinstance(sizes, list | tuple) or not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(f"sizes: must be a list of different numbers, is {sizes!r}")
    for name, value in (("size", size), *(("sizes", each) for each in sizes)):
        if not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"{name}: must be above 0, is {value!r}")


def _near(wanted: float, step: int) -> int:
    """The multiple of `step` nearest to what is wanted, at least one."""
    return step * max(1, round(wanted / step))


def scaled(encoders: Encoders, size: float) -> Encoders:
    """Encoders `size` times as wide: a width that the heads divide, CNN channels that its GroupNorm divides.

    A torchvision ResNet has the channels that it has: of it the projection to the width alone follows.
    """
    if size == 1:
        return encoders
    channels = size * encoders.cnn_width
    step = 2 if channels < 8 else 4 if channels < 16 else 8
    width = _near(size * encoders.width, encoders.heads)
    return dataclasses.replace(encoders, width=width, cnn_width=_near(channels, step))


def sized(strategy: str, size: float) -> str:
    """What RunSpec.needs calls a run of the strategy that teaches, its encoders being `size` times as wide."""
    return f"{strategy} x{size:g}"
