"""What is chosen for a strategy's runs (by tuning, or as params.yaml has it), and which earlier runs they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.modelling.cards import parts, read_card
from pipeline.modelling.sizes import require_teaching, scaled, sized
from pipeline.params import Encoders, Grid, Params, Training, TrainingScale
from pipeline.training.grid import Ablations, RunSpec, ablated, ablation_scale, runs


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


Chosen = Mapping[str, Mapping[str, Settings]]  # by task and strategy


def all_runs(params: Params, settings: Chosen | None = None) -> dict[tuple[str, str], list[RunSpec]]:
    """The runs of every cell and task: strategies of the grid, then their ablations (`ablated`); no trials.

    `settings` as tuning has chosen them; those of params.yaml where it is None. Raises InputError as `ablation_runs`.
    """
    common, grid = Common.of(params), params.grid
    if settings is None:
        written = {name: common.written(hyper) for name, hyper in params.strategies.items()}
        settings = dict.fromkeys(grid.tasks, written)
    found = {
        (strategy, task): common.runs(strategy, task, settings[task])
        for strategy in grid.strategies
        for task in grid.tasks
    }
    return found | ablation_runs(common, grid, params.ablations, settings)


def ablation_runs(
    common: Common, grid: Grid, ablations: Ablations, settings: Chosen
) -> dict[tuple[str, str], list[RunSpec]]:
    """By cell (`ablated`) and task, the runs of the grid's strategies with knobs otherwise, in ablation_scale.

    Raises InputError where an ablation needs a strategy that has not been tuned.
    """
    common = dataclasses.replace(common, scale=ablation_scale(common.scale))
    found: dict[tuple[str, str], list[RunSpec]] = {}
    for strategy in grid.strategies:
        for name, changes in ablations.get(strategy, {}).items():
            for task in grid.tasks:
                own = settings[task][strategy]
                own = dataclasses.replace(own, hyper={**own.hyper, **changes})
                for need in needed(strategy, own.hyper, common.training.start):
                    if need not in settings[task]:
                        told = f"ablations.{strategy}.{name}: needs {need}, which is not tuned for the grid"
                        raise InputError(f"{told}; add it to grid.strategies")
                found[ablated(strategy, name), task] = common.runs(strategy, task, {**settings[task], strategy: own})
    return found


class Need(NamedTuple):
    """An earlier run that one needs: whose, with encoders of which size, and whether of the base cohort anyhow."""

    strategy: str
    size: float = 1.0
    base: bool = False


def _earlier(strategy: str, hyper: Mapping[str, Any], start: str) -> dict[str, Need]:
    """What a run needs before it, by the names of RunSpec.needs; of a strategy that wraps none.

    By a strategy's own name: a run that it learns from, or whose encoders its own begin with, at the size of its own
    (the knob `size`). What has the knob `sizes` learns from one of each (`sized`), unless `teachers` is none; with
    `teachers: base`, what looks at records is of the base cohort.
    """
    card = read_card(strategy)
    found: dict[str, Need] = {}
    teachers, sizes, size = hyper.get("teachers", "same"), hyper.get("sizes"), hyper.get("size", 1.0)
    try:
        require_teaching(teachers, (1.0,) if sizes is None else sizes, size)
    except ValueError as error:
        raise InputError(f"strategies.{strategy}.{error}") from None
    for name in card.needs if teachers != "none" else ():
        base = teachers == "base" and "ehr" in read_card(name).modalities
        found |= {name: Need(name)} if sizes is None else {sized(name, x): Need(name, x, base) for x in sizes}
    if start == "unimodal" and card.group != "unimodal" and "lr" in hyper:  # what is fitted begins nowhere
        encoders = {"ehr": str(hyper.get("series", "transformer")), "cxr": "resnet"}
        found |= {name: Need(name, size) for modality, name in encoders.items() if modality in card.modalities}
    return found


def needed(strategy: str, hyper: Mapping[str, Any], start: str) -> tuple[str, ...]:
    """Strategies that must be tuned before, as a run needs theirs, or is built around them.

    `start`: training.start. With `unimodal` the shared encoders of a fusion strategy or a control begin with the
    weights of the unimodal runs: the record's is a transformer, or what the knob `series` says; the image's is the CNN.
    What is wrapped says itself what it needs.
    """
    wrapped = parts(strategy, hyper)[1:]
    runs_of = () if wrapped else (need.strategy for need in _earlier(strategy, hyper, start).values())
    return wrapped or tuple(dict.fromkeys(runs_of))


def planned(spec: RunSpec, settings: Mapping[str, Settings]) -> RunSpec:
    """The run with its strategy's settings, and the runs that it needs: of the same fold, seed and removal.

    `settings` by strategy; those of every strategy that is needed must be there. What wraps another has that one's
    knobs, as they were chosen for it alone, in its knob BASE_hyper, but for those that stand there already.
    """
    own = settings[spec.strategy].applied(spec)
    strategy, hyper = spec.strategy, own.hyper
    for base in parts(strategy, hyper)[1:]:
        knob = f"{read_card(strategy).wraps}_hyper"
        apart = {key: value for key, value in settings[base].hyper.items() if key != "lr"} | hyper.get(knob, {})
        own = dataclasses.replace(own, hyper={**hyper, knob: apart})
        strategy, hyper = base, {**settings[base].hyper, **apart}

    def run(need: Need) -> RunSpec:
        encoders, cohort = scaled(spec.encoders, need.size), "base" if need.base else spec.train_cohort
        asked = dataclasses.replace(spec, strategy=need.strategy, encoders=encoders, train_cohort=cohort)
        return planned(asked, settings)

    earlier = _earlier(strategy, hyper, spec.training.start)
    return dataclasses.replace(own, needs={name: run(need) for name, need in earlier.items()})
