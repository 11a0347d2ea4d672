"""The block `scales` of params.yaml: what differs between the sizes of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.params.data import INPUT_HOURS
from pipeline.params.rules import at_least, distinct, proportion, require


@dataclass(frozen=True)
class SyntheticScale:
    """Size of the synthetic hospital: patients, and pixels of the longer image side."""

    patients: int
    image_px: int

    def __post_init__(self) -> None:
        at_least(20, patients=self.patients, image_px=self.image_px)


@dataclass(frozen=True)
class ImagesScale:
    """Side of the packed square images in pixels."""

    px: int

    def __post_init__(self) -> None:
        at_least(8, px=self.px)


@dataclass(frozen=True)
class Encoders:
    """Size of the shared encoders: width D of tokens and pooled vectors, CNN kind and the width of its first stage."""

    width: int
    heads: int
    layers: int
    dropout: float
    cnn: Literal["narrow", "resnet18", "resnet34", "resnet50"]
    cnn_width: int

    def __post_init__(self) -> None:
        at_least(1, width=self.width, heads=self.heads, layers=self.layers, cnn_width=self.cnn_width)
        require(self.width % self.heads == 0, f"heads: {self.heads} does not divide width {self.width}")
        proportion("dropout", self.dropout)


@dataclass(frozen=True)
class TrainingScale:
    """The grid of runs inside a train cell, and how long a run may take.

    `train_missing` are the shares of training images removed, at random (mcar) or in dependence on patient traits (mar)
    as `train_mechanisms` says; all but 0 are for the tasks in `missing_tasks` alone.
    """

    cohorts: tuple[Literal["base", "matched"], ...]
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    train_missing: tuple[float, ...]
    batch_size: int
    max_epochs: int
    patience: int
    train_mechanisms: tuple[Literal["mcar", "mar"], ...] = ("mcar",)
    missing_tasks: tuple[Literal["mortality", "phenotype", "los"], ...] = ("mortality", "phenotype", "los")

    def __post_init__(self) -> None:
        for name in ("cohorts", "folds", "seeds", "train_missing", "train_mechanisms", "missing_tasks"):
            distinct(name, getattr(self, name))
        for fold in self.folds:
            at_least(0, folds=fold)
        for share in self.train_missing:
            proportion("train_missing", share)
        at_least(1, batch_size=self.batch_size, max_epochs=self.max_epochs, patience=self.patience)


@dataclass(frozen=True)
class TuningScale:
    """What a trial is judged by on dev: the cohorts that it is trained on, and how many of the scale's seeds."""

    cohorts: tuple[Literal["base", "matched"], ...]
    seeds: int

    def __post_init__(self) -> None:
        distinct("cohorts", self.cohorts)
        at_least(1, seeds=self.seeds)


@dataclass(frozen=True)
class ProbeScale:
    """What trained models are shown besides the test stays as they are.

    `test_missing` are the shares of images or records removed at inference, by each of `mechanisms`; `last_hours`: that
    many hours at the end of a record are absent. Modalities are swapped among at most `stays` test stays with an image
    a fold, whose square is the number of pairs; `permutations` of them are looked at.
    """

    test_missing: tuple[float, ...]
    mechanisms: tuple[Literal["mcar", "mar"], ...]
    last_hours: tuple[int, ...]
    stays: int
    permutations: int

    def __post_init__(self) -> None:
        for name in ("test_missing", "mechanisms", "last_hours"):
            distinct(name, getattr(self, name))
        for share in self.test_missing:
            require(0 < share <= 1, f"test_missing: must be in (0, 1], is {share}")
        require(max(self.test_missing) == 1, f"test_missing: must hold 1, is {list(self.test_missing)}")
        for hours in self.last_hours:
            require(0 < hours < INPUT_HOURS, f"last_hours: must lie between 0 and {INPUT_HOURS}, is {hours}")
        at_least(2, stays=self.stays)
        at_least(1, permutations=self.permutations)


@dataclass(frozen=True)
class EvaluationScale:
    """Bootstrap draws."""

    draws: int

    def __post_init__(self) -> None:
        at_least(10, draws=self.draws)


@dataclass(frozen=True)
class FairnessScale:
    """Bootstrap draws of subgroups, and shuffles of the groups."""

    draws: int
    shuffles: int

    def __post_init__(self) -> None:
        at_least(10, draws=self.draws, shuffles=self.shuffles)


@dataclass(frozen=True)
class Scale:
    """One block of `scales`."""

    synthetic: SyntheticScale
    images: ImagesScale
    encoders: Encoders
    training: TrainingScale
    tuning: TuningScale
    probe: ProbeScale
    evaluation: EvaluationScale
    fairness: FairnessScale
