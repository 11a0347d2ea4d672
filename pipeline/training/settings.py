"""What is chosen for a strategy's runs (by tuning, or as params.yaml has it), and which earlier runs they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.modelling.cards import read_card
from pipeline.params import Encoders, Params, Training, TrainingScale
from pipeline.training.grid import RunSpec, runs


@dataclass(frozen=True)
class Settings:
    """All that tuning may choose: the strategy's block (`lr` and its own knobs), and two knobs that all share."""

    hyper: dict[str, Any]
    dropout: float
    weight_decay: float

    def applied(self, spec: RunSpec) -> RunSpec:
        """The run with these settings."""
        return dataclasses.replace(
            spec,
            hyper=self.hyper,
            encoders=dataclasses.replace(spec.encoders, dropout=self.dropout),
            training=dataclasses.replace(spec.training, weight_decay=self.weight_decay),
        )


@dataclass(frozen=True)
class Common:
    """What the runs of all strategies share, before tuning."""

    tier: str
    training: Training
    encoders: Encoders
    scale: TrainingScale

    @classmethod
    def of(cls, params: Params) -> Common:
        """As params.yaml has it."""
        return cls(params.series.tier, params.training, params.get("scales.encoders"), params.get("scales.training"))

    def written(self, hyper: dict[str, Any]) -> Settings:
        """The settings that params.yaml has, for a strategy's block."""
        return Settings(hyper, self.encoders.dropout, self.training.weight_decay)

    def runs(self, strategy: str, task: str, settings: Mapping[str, Settings]) -> list[RunSpec]:
        """The strategy's runs on the task; `settings` of the strategy and of those whose runs it needs, by name."""
        return [
            planned(spec, settings)
            for spec in runs(
                strategy,
                task,
                hyper={},
                tier=self.tier,
                training=self.training,
                encoders=self.encoders,
                scale=self.scale,
            )
        ]


def all_runs(
    params: Params, settings: Mapping[str, Mapping[str, Settings]] | None = None
) -> dict[tuple[str, str], list[RunSpec]]:
    """The runs of every strategy and task of the grid; trials are not among them.

    `settings` by task and strategy, as tuning has chosen them; those of params.yaml where it is None.
    """
    common = Common.of(params)
    written = {name: common.written(hyper) for name, hyper in params.strategies.items()}
    return {
        (strategy, task): common.runs(strategy, task, settings[task] if settings else written)
        for strategy in params.grid.strategies
        for task in params.grid.tasks
    }


def needed(strategy: str, hyper: Mapping[str, Any], start: str) -> tuple[str, ...]:
    """Strategies whose runs a run needs before it: those that its card names, and those that it starts from.

    `start`: training.start. With `unimodal` the shared encoders of a fusion strategy begin with the weights of the
    unimodal runs: the record's is a transformer, or what the knob `series` says; the image's is the CNN.
    """
    card = read_card(strategy)
    names = list(card.needs)
    if start == "unimodal" and card.group == "fusion" and "lr" in hyper:  # what is fitted begins nowhere
        names += [str(hyper.get("series", "transformer")), "resnet"]
    return tuple(dict.fromkeys(names))


def planned(spec: RunSpec, settings: Mapping[str, Settings]) -> RunSpec:
    """The run with its strategy's settings, and the runs that it needs: of the same cohort, fold, seed and removal.

    `settings` by strategy; those of every strategy that is needed must be there.
    """
    own = settings[spec.strategy].applied(spec)
    names = needed(spec.strategy, own.hyper, spec.training.start)
    needs = {name: planned(dataclasses.replace(spec, strategy=name), settings) for name in names}
    return dataclasses.replace(own, needs=needs)
