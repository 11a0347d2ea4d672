"""What blocks of params.yaml ask of their values: a ValueError names the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.strict import meant


def require(condition: bool, message: str) -> None:
    """Raises ValueError where the condition does not hold."""
    if not condition:
        raise ValueError(message)


def proportion(name: str, value: float) -> None:
    """It is in [0, 1)."""
    require(0 <= value < 1, f"{name}: must be in [0, 1), is {value}")


def at_least(low: float, **values: float) -> None:
    """None is below `low`."""
    for name, value in values.items():
        require(value >= low, f"{name}: must be at least {low}, is {value}")


def distinct(name: str, values: tuple[Any, ...]) -> None:
    """There is something, and nothing twice."""
    require(len(values) > 0, f"{name}: must not be empty")
    unrepeated(name, values)


def unrepeated(name: str, values: tuple[Any, ...]) -> None:
    """Nothing is there twice."""
    require(len(set(values)) == len(values), f"{name}: holds an item twice: {list(values)}")


def require_blocks(key: str, names: Sequence[str], under: str, blocks: dict[str, Any]) -> None:
    """`blocks`, which stand under the key `under`, has one of every name that stands under `key`."""
    for name in names:
        if name not in blocks:  # the words take longer than all that is right: every stage is a process that reads this
            there = f"has no block under {under}, which holds {', '.join(sorted(blocks)) or 'none'}"
            raise ValueError(f"{key}: {name!r} {there}{meant(name, blocks)}")
