"""params.yaml as a whole: what its blocks ask of each other, and a value by its dotted key."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError
from pipeline.params.data import Cohort, Data, Images, Ingest, Labels, Masks, Series, Splits, Synthetic
from pipeline.params.evaluation import Compare, Evaluation, Fairness, Report, Verdicts, Worth
from pipeline.params.rules import distinct, require, require_blocks
from pipeline.params.scales import Scale
from pipeline.params.training import END_TO_END, Embedding, Ensemble, Grid, Training, Tuning
from pipeline.strict import meant

MOST_OWN = 3  # knobs of its own that tuning draws for a strategy


@dataclass(frozen=True)
class Params:
    """All of params.yaml; what stands there under strategies.NAME.space is in `tuning.own`."""

    scale: str
    data: Data
    synthetic: Synthetic
    ingest: Ingest
    cohort: Cohort
    labels: Labels
    series: Series
    images: Images
    splits: Splits
    masks: Masks
    all_strategies: tuple[str, ...]
    grid: Grid
    ensembles: dict[str, Ensemble]
    embedding: Embedding
    ablations: dict[str, dict[str, dict[str, Any]]]
    training: Training
    tuning: Tuning
    evaluation: Evaluation
    verdicts: Verdicts
    worth: Worth
    fairness: Fairness
    compare: Compare
    report: Report
    scales: dict[str, Scale]
    strategies: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        if self.scale not in self.scales:
            others = f"{', '.join(self.scales)}{meant(self.scale, self.scales)}"
            raise ValueError(f"scale: {self.scale!r} is not one of {others}")
        distinct("all_strategies", self.all_strategies)
        for key, names in (("grid.strategies", self.grid.strategies), ("all_strategies", self.all_strategies)):
            require_blocks(key, names, "strategies", self.strategies)
        require_blocks("grid.ensembles", self.grid.ensembles, "ensembles", self.ensembles)
        for name, ensemble in self.ensembles.items():
            require(name not in self.strategies, f"ensembles.{name}: is the name of a strategy, too")
            require_blocks(f"ensembles.{name}.components", ensemble.components, "strategies", self.strategies)
        require_blocks("verdicts.fusion", self.verdicts.fusion, "strategies", self.strategies)
        require_blocks("ablations", tuple(self.ablations), "strategies", self.strategies)
        for name, ablations in self.ablations.items():
            for ablation, changes in ablations.items():
                key, block = f"ablations.{name}.{ablation}", self.strategies[name]
                require(re.fullmatch(r"[a-z0-9_]+", ablation) is not None, f"{key}: may hold a-z, 0-9 and _ alone")
                for knob in changes.keys() - block.keys():
                    raise ValueError(f"{key}.{knob}: is no knob of strategies.{name}{meant(knob, block)}")
        for name, hyper in self.strategies.items():
            for knob, value in _leaves(hyper, f"strategies.{name}"):
                require(not _boundless(value), f"{knob}: must be a finite number, is {value}")
            lr = hyper.get("lr", 1.0)  # what is fitted, not descended, has none
            require(
                isinstance(lr, int | float) and lr > 0, f"strategies.{name}.lr: must be a number above 0, is {lr!r}"
            )
        image, encoders = self.training.image, (END_TO_END, *self.embedding.encoders)
        if image not in encoders:
            known = f"is neither {END_TO_END} nor one of embedding.encoders ({', '.join(encoders[1:]) or 'none'})"
            raise ValueError(f"training.image: {image!r} {known}{meant(image, encoders)}")
        for name, space in self.tuning.own.items():
            require(len(space) <= MOST_OWN, f"strategies.{name}.space: holds {len(space)} knobs, may hold {MOST_OWN}")
            for knob in space:
                own = knob in self.strategies[name] and knob != "lr"
                require(own, f"strategies.{name}.space.{knob}: is no knob of strategies.{name} of its own")
        key = f"scales.{self.scale}.training.folds"  # other scales may ask for more folds
        folds = self.scales[self.scale].training.folds
        if self.splits.scheme == "temporal":
            require(
                folds == (0,), f"{key}: splits.scheme temporal has fold 0 alone: set {key} to [0], is {list(folds)}"
            )
        for fold in folds:
            require(fold < self.splits.count, f"{key}: {fold} is not below splits.folds")

    def get(self, key: str) -> Any:
        """The value under a dotted key; `scales.images` means the images block of the chosen scale.

        A scale by its name (`scales.paper.images`) is that one. Raises InputError where there is no such key.
        """
        head, *rest = key.split(".")
        if head == "scales" and rest[:1] not in ([name] for name in self.scales):
            rest = [self.scale, *rest]
        value: Any = self
        for part in (head, *rest):
            try:
                value = value[part] if isinstance(value, dict) else getattr(value, part)
            except (KeyError, AttributeError):
                raise InputError(f"{key}: missing") from None
        return value


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that is nested in mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield key, value
        return
    for name, each in items:
        yield from _leaves(each, f"{key}.{name}")


def _boundless(value: Any) -> bool:
    """Whether it is not a number or infinite; YAML reads `nan` as a text, where `.nan` was meant."""
    if isinstance(value, str):
        return value.strip().lower().lstrip("+-.") in ("nan", "inf", "infinity")
    return isinstance(value, float) and not math.isfinite(value)
