"""A strategy built around another one, of any name: the base class, which hands everything on to what it wraps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.modelling.cards import parts
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Batch, Earlier, Epoch, Output, Shapes, Strategy
from pipeline.modelling.registry import build

AS_WRITTEN: Mapping[str, Any] = MappingProxyType({})  # the base's knobs are those that it has by itself


class Wrapper(Strategy):
    """Base of the strategies that wrap another. A subclass changes what its idea is about, and calls super() else.

    It declares `wraps = "base"`: that knob names the other, `base_hyper` holds those of that one's knobs that are not
    at their defaults; the settings of a run fill in what was chosen for the base alone. A card is read without building
    anything, so the base must declare what the class does; it is given the latest images, whatever it reads by itself.
    Raises ValueError, naming the knob, where it does not, or is fitted.
    """

    def __init__(self, shapes: Shapes, *, base: str, base_hyper: Mapping[str, Any]) -> None:
        super().__init__(shapes)
        name = type(self).__module__.rpartition(".")[2]
        try:
            parts(name, {self.wraps: base})
        except InputError as error:
            raise ValueError(str(error).removeprefix(f"strategies.{name}.")) from None
        try:
            self.base = build(base, dataclasses.replace(shapes, images=1), dict(base_hyper))
        except InputError as error:
            raise ValueError(f"base_hyper: {error}") from None
        if isinstance(self.base, Fitted):
            raise ValueError(f"base: {base} is fitted, not descended: there are no epochs to change")
        for what in ("modalities", "missing", "interaction"):
            own, its = getattr(self, what), getattr(self.base, what)
            if own != its:
                told = [", ".join(sorted(each)) if isinstance(each, frozenset) else each for each in (its, own)]
                raise ValueError(f"base: {base} declares {what} {told[0]}, {name} {told[1]}")

    def forward(self, batch: Batch) -> Output:
        """The base's answer."""
        output: Output = self.base(batch)
        return output

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """The base's."""
        return self.base.losses(output, batch, targets)

    def between_epochs(self, epoch: Epoch) -> None:
        """The base's."""
        self.base.between_epochs(epoch)

    def draw(self, rows: Tensor, rng: np.random.Generator) -> Tensor:
        """As the base draws."""
        return self.base.draw(rows, rng)

    def diagnostics(self) -> dict[str, float]:
        """The base's."""
        return self.base.diagnostics()

    def after_backward(self) -> None:
        """The base's."""
        self.base.after_backward()

    def learn_from(self, earlier: Mapping[str, Earlier]) -> None:
        """The base learns."""
        self.base.learn_from(earlier)

    def waiting(self) -> Iterable[nn.Parameter]:
        """The base's."""
        return self.base.waiting()

    def set_prior(self, prior: Tensor) -> None:
        """Its own, and the base's."""
        super().set_prior(prior)
        self.base.set_prior(prior)
