"""The grid of runs inside a train cell: cohort × fold × seed × share of training images removed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from pipeline.params import Encoders, Training, TrainingScale

# The columns that tell one run of a cell from another, in predictions.parquet and history.csv.
KEY = ("train_cohort", "fold", "seed", "train_missing", "train_mechanism")


@dataclass(frozen=True)
class RunSpec:
    """All that a run is a function of, data and code apart. `train_mechanism` is none where no image is removed."""

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

    @property
    def name(self) -> str:
        """For people: late_fusion mortality base fold 0 seed 0."""
        removed = f" {self.train_mechanism} {self.train_missing:g}" if self.train_missing else ""
        return f"{self.strategy} {self.task} {self.train_cohort} fold {self.fold} seed {self.seed}{removed}"

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
    """The cell's runs, in the order of its predictions. Only the matched cohort is trained with images removed."""
    grid = itertools.product(scale.cohorts, scale.folds, scale.seeds, scale.train_missing)
    return [
        RunSpec(
            strategy=strategy,
            task=task,
            hyper=hyper,
            train_cohort=cohort,
            fold=fold,
            seed=seed,
            train_missing=missing,
            train_mechanism="mcar" if missing else "none",
            tier=tier,
            training=training,
            encoders=encoders,
            batch_size=scale.batch_size,
            max_epochs=scale.max_epochs,
            patience=scale.patience,
        )
        for cohort, fold, seed, missing in grid
        if cohort == "matched" or not missing
    ]
