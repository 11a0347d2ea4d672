"""The grid of runs inside a train cell: task × cohort × fold × seed × share of training images removed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pipeline.params import Encoders, Training, TrainingScale
from pipeline.training.machine import precision


class RunKey(NamedTuple):
    """One training: cohort, fold, seed, share of training images removed, and how (none where none is)."""

    train_cohort: str
    fold: int
    seed: int
    train_missing: float
    train_mechanism: str

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._asdict().items())


Ablations = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by strategy and name, the knobs that are otherwise

# The columns that tell one run of a cell and task from another, in predictions.parquet and history.csv.
KEY = RunKey._fields


def run_keys(scale: TrainingScale, task: str) -> list[RunKey]:
    """The runs of a task, in the order in which they are made.

    With images removed only the matched cohort is trained, and of the tasks those in `missing_tasks`.
    """
    removals = [
        (share, mechanism)
        for share in scale.train_missing
        for mechanism in (scale.train_mechanisms if share else ("none",))
    ]
    grid = itertools.product(scale.cohorts, scale.folds, scale.seeds, removals)
    keys = [RunKey(cohort, fold, seed, *removal) for cohort, fold, seed, removal in grid]
    removed = [key for key in keys if key.train_cohort == "matched" and task in scale.missing_tasks]
    return [key for key in keys if not key.train_missing or key in removed]


def ablation_scale(scale: TrainingScale) -> TrainingScale:
    """The runs in which a strategy is trained with knobs otherwise: one cohort, with the least removed.

    The matched one where it is trained on: there every stay has what modalities are fused of.
    """
    cohort = "matched" if "matched" in scale.cohorts else scale.cohorts[0]
    return replace(scale, cohorts=(cohort,), train_missing=(min(scale.train_missing),))


def ablated(strategy: str, ablation: str) -> str:
    """The name of the cell in data/ablations of a strategy with knobs otherwise."""
    return f"{strategy}.{ablation}"


@dataclass(frozen=True)
class RunSpec:
    """All that a run is a function of, data and code apart. `training.precision` is never auto, but what that means.

    `needs`: the runs that must be made before, by a name.
    """

    strategy: str
    task: str
    hyper: dict[str, Any]
    train_cohort: str
    fold: int
    seed: int
    train_missing: float
    train_mechanism: str
    tier: str
    training: Training
    encoders: Encoders
    batch_size: int
    max_epochs: int
    patience: int
    needs: dict[str, RunSpec] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: late_fusion mortality base fold 0 seed 0."""
        removed = f" {self.train_mechanism} {self.train_missing:g}" if self.train_missing else ""
        return f"{self.strategy} {self.task} {self.train_cohort} fold {self.fold} seed {self.seed}{removed}"

    @property
    def luck(self) -> tuple[int, int]:
        """The key of all its random streams. Folds of a seed differ in it, too.

        Else their runs would have one luck, and a few folds of one seed, whose luck of training is read off how they
        differ, would tell none of it.
        """
        return self.fold, self.seed

    @property
    def key(self) -> dict[str, Any]:
        """The columns of KEY."""
        return {name: getattr(self, name) for name in KEY}


def runs(
    strategy: str,
    task: str,
    *,
    hyper: dict[str, Any],
    tier: str,
    training: Training,
    encoders: Encoders,
    scale: TrainingScale,
) -> list[RunSpec]:
    """A strategy's runs on a task, as run_keys names them, with the precision of this machine where it is auto."""
    training = replace(training, precision=precision(training, encoders))
    return [
        RunSpec(
            strategy=strategy,
            task=task,
            hyper=hyper,
            **key._asdict(),
            tier=tier,
            training=training,
            encoders=encoders,
            batch_size=scale.batch_size,
            max_epochs=scale.max_epochs,
            patience=scale.patience,
        )
        for key in run_keys(scale, task)
    ]
