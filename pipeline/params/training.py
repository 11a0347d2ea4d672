"""The blocks of params.yaml that say what is trained, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.params.rules import at_least, distinct, proportion, require, unrepeated

END_TO_END = "end_to_end"  # training.image: the image encoder is trained with the strategy


@dataclass(frozen=True)
class Grid:
    """What is trained, and which ensembles are made of it."""

    strategies: tuple[str, ...]
    tasks: tuple[Literal["mortality", "phenotype", "los"], ...]
    ensembles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        distinct("strategies", self.strategies)
        distinct("tasks", self.tasks)
        unrepeated("ensembles", self.ensembles)

    @property
    def scored(self) -> tuple[str, ...]:
        """All whose predictions are scored: the strategies, then the ensembles."""
        return (*self.strategies, *self.ensembles)


@dataclass(frozen=True)
class Ensemble:
    """A weighted mean of finished strategies' probabilities, whose weights are chosen on validation.

    `components`: strategies; those outside of the grid are left out. `trials`: weights that `tpe` tries, the first of
    them each component alone; of `greedy`, rounds. `top`: only the best so many on validation (0: all). `metric`: the
    task's monitor (AUPRC; length of stay: accuracy), or the log loss.
    """

    components: tuple[str, ...]
    search: Literal["tpe", "greedy"]
    trials: int
    top: int
    metric: Literal["monitor", "log_loss"]
    seed: int

    def __post_init__(self) -> None:
        distinct("components", self.components)
        at_least(0, top=self.top, seed=self.seed)
        least, what = len(self.components), "each component alone is one"
        require(self.trials >= least, f"trials: must be at least {least}: {what}; is {self.trials}")


@dataclass(frozen=True)
class Augment:
    """Affine augmentation of training images, drawn per image and batch; shift and scale are shares of the side."""

    rotation_degrees: float
    shift: float
    scale: float

    def __post_init__(self) -> None:
        at_least(0, rotation_degrees=self.rotation_degrees)
        proportion("shift", self.shift)
        proportion("scale", self.scale)


@dataclass(frozen=True)
class Embedding:
    """Frozen image models, each with a card in encoders/, and how their features of all images are computed.

    `batch` images at a time go through a GPU; a CPU takes them one by one, in each of `workers` processes, which read
    the JPEGs in either case.
    """

    encoders: tuple[str, ...]
    device: Literal["auto", "cpu", "cuda"]
    batch: int
    workers: int

    def __post_init__(self) -> None:
        unrepeated("encoders", self.encoders)
        for name in self.encoders:  # a folder of data/embeddings, and a stage
            told = f"encoders: must be names of cards (letters, digits, -, _), not {END_TO_END}; holds {name!r}"
            require(re.fullmatch(r"[\w-]+", name) is not None and name != END_TO_END, told)
        at_least(1, batch=self.batch, workers=self.workers)


@dataclass(frozen=True)
class Training:
    """What every strategy's training shares. `image`: END_TO_END, or the encoder whose embeddings are seen instead."""

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16"]
    weight_decay: float
    warmup_share: float
    gradient_clip: float
    start: Literal["scratch", "unimodal"]
    least_share: float
    checkpoint_seconds: float
    augment: Augment
    pretrained: str
    statics: bool
    image: str = END_TO_END

    def __post_init__(self) -> None:
        at_least(0, weight_decay=self.weight_decay, checkpoint_seconds=self.checkpoint_seconds)
        proportion("warmup_share", self.warmup_share)
        require(0 <= self.least_share <= 1, f"least_share: must be in [0, 1], is {self.least_share}")
        require(self.gradient_clip > 0, f"gradient_clip: must be above 0, is {self.gradient_clip}")


@dataclass(frozen=True)
class Dimension:
    """A knob that tuning draws: from `low` to `high`, both included, evenly on the `spread` scale."""

    low: float
    high: float
    spread: Literal["linear", "log", "whole"]

    def __post_init__(self) -> None:
        require(self.low < self.high, f"high: must be above low, {self.low}; is {self.high}")
        require(self.spread != "log" or self.low > 0, f"low: must be above 0 on a log scale, is {self.low}")

    def at(self, share: float) -> float | int:
        """The value a `share` in [0, 1) of the way from low to high, to three significant digits."""
        if self.spread == "whole":
            return min(int(self.low + share * (self.high - self.low + 1)), int(self.high))
        if self.spread == "log":
            return float(f"{self.low * (self.high / self.low) ** share:.3g}")
        return float(f"{self.low + share * (self.high - self.low):.3g}")


@dataclass(frozen=True)
class SharedSpace:
    """What tuning draws for every strategy that descends."""

    lr: Dimension
    dropout: Dimension
    weight_decay: Dimension


@dataclass(frozen=True)
class Tuning:
    """How many settings of each strategy are tried, the written defaults being the first, and where they lie.

    `own`: of each strategy's own knobs, from strategies.NAME.space.
    """

    trials: int
    seed: int
    space: SharedSpace
    own: dict[str, dict[str, Dimension]]

    def __post_init__(self) -> None:
        at_least(0, trials=self.trials, seed=self.seed)
        require(self.trials != 1, "trials: must be 0, or at least 2: the first one is the defaults")
