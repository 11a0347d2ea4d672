"""The blocks of params.yaml from raw files to packed tensors."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from pipeline.params.rules import at_least, distinct, proportion, require, unrepeated

INPUT_HOURS = 48  # of the stay, which models see; the prediction is made at their end


@dataclass(frozen=True)
class Data:
    """Where the raw data lie: the folder above hosp/ and icu/, and the folder above files/."""

    mimiciv: str
    mimic_cxr: str
    cxr_tables: Literal["csv.gz", "csv"]
    accept_unlisted_release: bool

    def __post_init__(self) -> None:
        for name in ("mimiciv", "mimic_cxr"):  # dvc.yaml makes dependencies of them as they are written
            path = getattr(self, name)
            whole = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 - Path() refuses an unknown user
            advice = f"write {whole}" if whole != path and "$" not in whole else "write the whole path"
            require(not re.match(r"~|.*\$[\w{]", path), f"{name}: {path}: DVC expands neither ~ nor $NAME; {advice}")


@dataclass(frozen=True)
class SyntheticRelease:
    """In which release's layout the synthetic hospital is written."""

    mimiciv: Literal["2.2", "3.1"] = "2.2"
    mimic_cxr: Literal["2.0.0", "2.1.0"] = "2.0.0"


@dataclass(frozen=True)
class Traps:
    """Faults of real data that are planted in the synthetic hospital: shares and strengths, 0 (off) to 1.

    The defaults are those of the documented hospital, with which the planted truth compares.
    """

    dead_before_48h: float = 0.015
    coding_loss: float = 0.0
    label_by_image_presence: float = 0.0
    view_by_severity: float = 0.0
    image_by_finding: float = 0.0
    image_of_two_stays: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(0 <= value <= 1, f"{name}: must be in [0, 1], is {value}")


@dataclass(frozen=True)
class Synthetic:
    """The structural model of the synthetic hospital (strengths; 1 is the documented model), its layout and traps."""

    seed: int
    image_missingness: float
    disparity: float
    signal: float
    release: SyntheticRelease = SyntheticRelease()
    traps: Traps = Traps()

    def __post_init__(self) -> None:
        at_least(0, image_missingness=self.image_missingness, disparity=self.disparity, signal=self.signal)


@dataclass(frozen=True)
class Ingest:
    """Bounds of the relational work: memory in GB, threads."""

    memory_gb: float
    threads: int

    def __post_init__(self) -> None:
        at_least(0.5, memory_gb=self.memory_gb)
        at_least(1, threads=self.threads)  # DuckDB starts as many as it is told to, and dies of too many
        require(self.threads <= 1024, f"threads: must be at most 1024, is {self.threads}")


@dataclass(frozen=True)
class CohortPreset:
    """The two rules in which the presets differ: which of several stays, and whether a transfer ends eligibility."""

    stays: Literal["all", "only_of_admission", "first_of_admission", "first_of_subject"]
    same_unit: bool


@dataclass(frozen=True)
class Cohort:
    """Rules of the cohort; hours count from intime."""

    preset: str
    presets: dict[str, CohortPreset]
    min_age_years: int
    min_stay_hours: float
    alive_at_hours: float
    require_vital: bool
    cxr_views: tuple[str, ...]
    cxr_hours_before: float
    cxr_hours_after: float

    def __post_init__(self) -> None:
        require(self.preset in self.presets, f"preset: {self.preset!r} is not one of {sorted(self.presets)}")
        at_least(0, min_age_years=self.min_age_years)
        # in the unit and alive when the prediction is made; length-of-stay classes begin there, too
        at_least(INPUT_HOURS, min_stay_hours=self.min_stay_hours, alive_at_hours=self.alive_at_hours)
        at_least(0, cxr_hours_before=self.cxr_hours_before, cxr_hours_after=self.cxr_hours_after)
        require(
            self.cxr_hours_after <= INPUT_HOURS,
            f"cxr_hours_after: must be at most {INPUT_HOURS}, is {self.cxr_hours_after}",
        )
        distinct("cxr_views", self.cxr_views)
        require(
            set(self.cxr_views) <= {"AP", "PA"}, f"cxr_views: only AP and PA are frontal, is {list(self.cxr_views)}"
        )

    @property
    def rules(self) -> CohortPreset:
        """The chosen preset's rules."""
        return self.presets[self.preset]


@dataclass(frozen=True)
class Labels:
    """Which map leads from codes to phenotypes (pipeline.mimic.phenotypes)."""

    phenotypes: Literal["hcup", "legacy_medfuse"]


@dataclass(frozen=True)
class Series:
    """Which variables models see; from when a lab counts: when its result was available, or when it was drawn; and how
    many times its usual value a steady variable may be."""

    tier: Literal["core", "plus"]
    lab_time: Literal["available", "charttime"]  # columns of data/interim/lab.parquet
    max_jump: float

    def __post_init__(self) -> None:
        require(self.max_jump > 1, f"max_jump: must be above 1, is {self.max_jump}")


@dataclass(frozen=True)
class Images:
    """How many images of a stay are packed, which are left out rather than an error, and how many processes decode.

    `per_stay`: the latest that many, by the rank of cxr.parquet; models see the latest, and those that say so all of
    them. `skip`: DVC makes a stage `watch` of each. `checksums`: each JPEG is compared with the SHA256SUMS.txt of the
    release, where there is one. `follow_links`: a link may lead out of the release's folder files/, as where the JPEGs
    lie in a store.
    """

    skip: tuple[Literal["damaged"], ...]
    checksums: bool
    follow_links: bool
    workers: int
    per_stay: int

    def __post_init__(self) -> None:
        at_least(1, workers=self.workers, per_stay=self.per_stay)
        unrepeated("skip", self.skip)


@dataclass(frozen=True)
class Splits:
    """Subjects to dev, test, validation and training, by a salted hash, or by the era of their stays.

    `folds` is read by the scheme folds, `test_from_year` by the scheme temporal: the first year of an era.
    """

    scheme: Literal["folds", "temporal"]
    salt: str
    folds: int
    test_from_year: Literal[2011, 2014, 2017, 2020]
    dev_share: float
    val_share: float
    stratify: bool

    def __post_init__(self) -> None:
        at_least(2, folds=self.folds)
        proportion("dev_share", self.dev_share)
        proportion("val_share", self.val_share)

    @property
    def count(self) -> int:
        """How many folds there are."""
        return 1 if self.scheme == "temporal" else self.folds


@dataclass(frozen=True)
class Masks:
    """Salt of the removal masks."""

    salt: str
