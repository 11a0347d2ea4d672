"""params.yaml as frozen dataclasses: an unknown key, a wrong type or an impossible value is an error that names it.

`read("cohort", "scales.images")` returns the sub-blocks that a stage declares in dvc.yaml; `scales.X` stands for the
block that `scale` picks. `load()` returns everything. What a strategy accepts under `strategies.NAME` is checked by the
strategy itself (pipeline.modelling.registry), so that this file need not know the strategies.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.errors import InputError
from pipeline.strict import Loader, build, meant, read_yaml

FILE = Path("params.yaml")
MOST_OWN = 3  # knobs of its own that tuning draws for a strategy
END_TO_END = "end_to_end"  # training.image: the image encoder is trained with the strategy
INPUT_HOURS = 48  # of the stay, which models see; the prediction is made at their end


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _share(name: str, value: float) -> None:
    _require(0 <= value < 1, f"{name}: must be in [0, 1), is {value}")


def _at_least(low: float, **values: float) -> None:
    for name, value in values.items():
        _require(value >= low, f"{name}: must be at least {low}, is {value}")


def _distinct(name: str, values: tuple[Any, ...]) -> None:
    _require(len(values) > 0, f"{name}: must not be empty")
    _unrepeated(name, values)


def _unrepeated(name: str, values: tuple[Any, ...]) -> None:
    _require(len(set(values)) == len(values), f"{name}: holds an item twice: {list(values)}")


def _require_blocks(key: str, names: Sequence[str], under: str, blocks: dict[str, Any]) -> None:
    for name in names:
        if name not in blocks:  # the words take longer than all that is right: every stage is a process that reads this
            there = f"has no block under {under}, which holds {', '.join(sorted(blocks)) or 'none'}"
            raise ValueError(f"{key}: {name!r} {there}{meant(name, blocks)}")


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
            _require(not re.match(r"~|.*\$[\w{]", path), f"{name}: {path}: DVC expands neither ~ nor $NAME; {advice}")


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
            _require(0 <= value <= 1, f"{name}: must be in [0, 1], is {value}")


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
        _at_least(0, image_missingness=self.image_missingness, disparity=self.disparity, signal=self.signal)


@dataclass(frozen=True)
class Ingest:
    """Bounds of the relational work: memory in GB, threads."""

    memory_gb: float
    threads: int

    def __post_init__(self) -> None:
        _at_least(0.5, memory_gb=self.memory_gb)
        _at_least(1, threads=self.threads)  # DuckDB starts as many as it is told to, and dies of too many
        _require(self.threads <= 1024, f"threads: must be at most 1024, is {self.threads}")


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
        _require(self.preset in self.presets, f"preset: {self.preset!r} is not one of {sorted(self.presets)}")
        _at_least(0, min_age_years=self.min_age_years)
        # in the unit and alive when the prediction is made; length-of-stay classes begin there, too
        _at_least(INPUT_HOURS, min_stay_hours=self.min_stay_hours, alive_at_hours=self.alive_at_hours)
        _at_least(0, cxr_hours_before=self.cxr_hours_before, cxr_hours_after=self.cxr_hours_after)
        _require(
            self.cxr_hours_after <= INPUT_HOURS,
            f"cxr_hours_after: must be at most {INPUT_HOURS}, is {self.cxr_hours_after}",
        )
        _distinct("cxr_views", self.cxr_views)
        _require(
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
        _require(self.max_jump > 1, f"max_jump: must be above 1, is {self.max_jump}")


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
        _at_least(1, workers=self.workers, per_stay=self.per_stay)
        _unrepeated("skip", self.skip)


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
        _at_least(2, folds=self.folds)
        _share("dev_share", self.dev_share)
        _share("val_share", self.val_share)

    @property
    def count(self) -> int:
        """How many folds there are."""
        return 1 if self.scheme == "temporal" else self.folds


@dataclass(frozen=True)
class Masks:
    """Salt of the removal masks."""

    salt: str


@dataclass(frozen=True)
class Grid:
    """What is trained, and which ensembles are made of it."""

    strategies: tuple[str, ...]
    tasks: tuple[Literal["mortality", "phenotype", "los"], ...]
    ensembles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _distinct("strategies", self.strategies)
        _distinct("tasks", self.tasks)
        _unrepeated("ensembles", self.ensembles)

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
        _distinct("components", self.components)
        _at_least(0, top=self.top, seed=self.seed)
        least, what = len(self.components), "each component alone is one"
        _require(self.trials >= least, f"trials: must be at least {least}: {what}; is {self.trials}")


@dataclass(frozen=True)
class Augment:
    """Affine augmentation of training images, drawn per image and batch; shift and scale are shares of the side."""

    rotation_degrees: float
    shift: float
    scale: float

    def __post_init__(self) -> None:
        _at_least(0, rotation_degrees=self.rotation_degrees)
        _share("shift", self.shift)
        _share("scale", self.scale)


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
        _unrepeated("encoders", self.encoders)
        for name in self.encoders:  # a folder of data/embeddings, and a stage
            told = f"encoders: must be names of cards (letters, digits, -, _), not {END_TO_END}; holds {name!r}"
            _require(re.fullmatch(r"[\w-]+", name) is not None and name != END_TO_END, told)
        _at_least(1, batch=self.batch, workers=self.workers)


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
        _at_least(0, weight_decay=self.weight_decay, checkpoint_seconds=self.checkpoint_seconds)
        _share("warmup_share", self.warmup_share)
        _require(0 <= self.least_share <= 1, f"least_share: must be in [0, 1], is {self.least_share}")
        _require(self.gradient_clip > 0, f"gradient_clip: must be above 0, is {self.gradient_clip}")


@dataclass(frozen=True)
class Dimension:
    """A knob that tuning draws: from `low` to `high`, both included, evenly on the `spread` scale."""

    low: float
    high: float
    spread: Literal["linear", "log", "whole"]

    def __post_init__(self) -> None:
        _require(self.low < self.high, f"high: must be above low, {self.low}; is {self.high}")
        _require(self.spread != "log" or self.low > 0, f"low: must be above 0 on a log scale, is {self.low}")

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
        _at_least(0, trials=self.trials, seed=self.seed)
        _require(self.trials != 1, "trials: must be 0, or at least 2: the first one is the defaults")


@dataclass(frozen=True)
class Evaluation:
    """Intervals and calibration."""

    confidence: float
    ece_bins: int
    seed: int

    def __post_init__(self) -> None:
        _require(0 < self.confidence < 1, f"confidence: must be in (0, 1), is {self.confidence}")
        _at_least(2, ece_bins=self.ece_bins)


@dataclass(frozen=True)
class Margins:
    """A difference too small to matter, by metric."""

    auroc: float
    auprc: float
    accuracy: float
    kappa: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _share(name, value)


@dataclass(frozen=True)
class Verdicts:
    """When paired differences are called gains, losses or neither (pipeline.estimation.verdicts); fixed before the run.

    Nothing is said of fewer than `least_positives`. `fusion` are the candidates of whom validation chooses the strategy
    that verdicts are about: the first of them, as many as the grid has strategies on the record alone.
    """

    margins: Margins
    confidence: float
    equivalence_confidence: float
    least_positives: int
    fusion: tuple[str, ...]

    def __post_init__(self) -> None:
        _require(len(set(self.fusion)) == len(self.fusion), f"fusion: {list(self.fusion)} names a strategy twice")
        for name in ("confidence", "equivalence_confidence"):
            _require(0 < getattr(self, name) < 1, f"{name}: must be in (0, 1), is {getattr(self, name)}")
        _require(
            self.equivalence_confidence <= self.confidence,
            f"equivalence_confidence: must be at most confidence, is {self.equivalence_confidence}",
        )
        _at_least(1, least_positives=self.least_positives)

    def margin(self, metric: str) -> float:
        """The difference of a headline metric that is too small to matter."""
        return float(getattr(self.margins, metric))


@dataclass(frozen=True)
class Thresholds:
    """Probabilities from which somebody acts, by task."""

    mortality: tuple[float, ...]
    phenotype: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            _distinct(name, values)
            _require(all(0 < each < 1 for each in values), f"{name}: must be in (0, 1), is {list(values)}")


@dataclass(frozen=True)
class Worth:
    """What acting on predictions is worth: thresholds of net benefit, and the share of stays deferred to people."""

    thresholds: Thresholds
    deferred: float

    def __post_init__(self) -> None:
        _require(0 < self.deferred < 1, f"deferred: must be in (0, 1), is {self.deferred}")


@dataclass(frozen=True)
class Fairness:
    """Subgroups: where age is cut, which pairs of attributes are crossed, and how large a group must be.

    `alert_rate` is the overall share of alerts at which strategies are compared, in multiples of the prevalence;
    `cohort` is where the declared family is tested (`has_cxr`: in base).
    """

    age_edges: tuple[int, ...]
    pairs: tuple[str, ...]
    least_positives: int
    least_negatives: int
    alert_rate: float
    long_stay_days: Literal[3, 4, 5, 6, 7, 14]  # edges of the classes (pipeline.tasks.LOS_EDGES)
    cohort: Literal["base", "matched"]

    def __post_init__(self) -> None:
        _distinct("age_edges", self.age_edges)
        _require(list(self.age_edges) == sorted(self.age_edges), f"age_edges: must ascend, is {list(self.age_edges)}")
        attributes = {"age", "gender", "race", "admission", "insurance", "has_cxr"}
        for pair in self.pairs:
            both = pair.split("+")
            _require(
                len(set(both)) == 2 == len(both) and set(both) <= attributes,
                f"pairs: must be two of {sorted(attributes)} joined by +, is {pair!r}",
            )
        _at_least(1, least_positives=self.least_positives, least_negatives=self.least_negatives)
        _require(self.alert_rate > 0, f"alert_rate: must be above 0, is {self.alert_rate}")


@dataclass(frozen=True)
class Compare:
    """Comparing strategies: the days at which a length of stay is winsorised."""

    los_cap_days: float

    def __post_init__(self) -> None:
        _require(self.los_cap_days > 14, f"los_cap_days: must be above 14, is {self.los_cap_days}")  # the last class


@dataclass(frozen=True)
class Report:
    """The page: the address of the repository that holds it, from which its files are linked; null: beside the page."""

    repository: str | None

    def __post_init__(self) -> None:
        address = self.repository
        told = f"repository: must be an address that starts with https://, or null, is {address}"
        _require(address is None or re.fullmatch(r"https://[^\s\"<>]+", address) is not None, told)


@dataclass(frozen=True)
class SyntheticScale:
    """Size of the synthetic hospital: patients, and pixels of the longer image side."""

    patients: int
    image_px: int

    def __post_init__(self) -> None:
        _at_least(20, patients=self.patients, image_px=self.image_px)


@dataclass(frozen=True)
class ImagesScale:
    """Side of the packed square images in pixels."""

    px: int

    def __post_init__(self) -> None:
        _at_least(8, px=self.px)


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
        _at_least(1, width=self.width, heads=self.heads, layers=self.layers, cnn_width=self.cnn_width)
        _require(self.width % self.heads == 0, f"heads: {self.heads} does not divide width {self.width}")
        _share("dropout", self.dropout)


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
            _distinct(name, getattr(self, name))
        for fold in self.folds:
            _at_least(0, folds=fold)
        for share in self.train_missing:
            _share("train_missing", share)
        _at_least(1, batch_size=self.batch_size, max_epochs=self.max_epochs, patience=self.patience)


@dataclass(frozen=True)
class TuningScale:
    """What a trial is judged by on dev: the cohorts that it is trained on, and how many of the scale's seeds."""

    cohorts: tuple[Literal["base", "matched"], ...]
    seeds: int

    def __post_init__(self) -> None:
        _distinct("cohorts", self.cohorts)
        _at_least(1, seeds=self.seeds)


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
            _distinct(name, getattr(self, name))
        for share in self.test_missing:
            _require(0 < share <= 1, f"test_missing: must be in (0, 1], is {share}")
        _require(max(self.test_missing) == 1, f"test_missing: must hold 1, is {list(self.test_missing)}")
        for hours in self.last_hours:
            _require(0 < hours < INPUT_HOURS, f"last_hours: must lie between 0 and {INPUT_HOURS}, is {hours}")
        _at_least(2, stays=self.stays)
        _at_least(1, permutations=self.permutations)


@dataclass(frozen=True)
class EvaluationScale:
    """Bootstrap draws."""

    draws: int

    def __post_init__(self) -> None:
        _at_least(10, draws=self.draws)


@dataclass(frozen=True)
class FairnessScale:
    """Bootstrap draws of subgroups, and shuffles of the groups."""

    draws: int
    shuffles: int

    def __post_init__(self) -> None:
        _at_least(10, draws=self.draws, shuffles=self.shuffles)


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
        _distinct("all_strategies", self.all_strategies)
        for key, names in (("grid.strategies", self.grid.strategies), ("all_strategies", self.all_strategies)):
            _require_blocks(key, names, "strategies", self.strategies)
        _require_blocks("grid.ensembles", self.grid.ensembles, "ensembles", self.ensembles)
        for name, ensemble in self.ensembles.items():
            _require(name not in self.strategies, f"ensembles.{name}: is the name of a strategy, too")
            _require_blocks(f"ensembles.{name}.components", ensemble.components, "strategies", self.strategies)
        _require_blocks("verdicts.fusion", self.verdicts.fusion, "strategies", self.strategies)
        _require_blocks("ablations", tuple(self.ablations), "strategies", self.strategies)
        for name, ablations in self.ablations.items():
            for ablation, changes in ablations.items():
                key, block = f"ablations.{name}.{ablation}", self.strategies[name]
                _require(re.fullmatch(r"[a-z0-9_]+", ablation) is not None, f"{key}: may hold a-z, 0-9 and _ alone")
                for knob in changes.keys() - block.keys():
                    raise ValueError(f"{key}.{knob}: is no knob of strategies.{name}{meant(knob, block)}")
        for name, hyper in self.strategies.items():
            for knob, value in _leaves(hyper, f"strategies.{name}"):
                _require(not _boundless(value), f"{knob}: must be a finite number, is {value}")
            lr = hyper.get("lr", 1.0)  # what is fitted, not descended, has none
            _require(
                isinstance(lr, int | float) and lr > 0, f"strategies.{name}.lr: must be a number above 0, is {lr!r}"
            )
        image, encoders = self.training.image, (END_TO_END, *self.embedding.encoders)
        if image not in encoders:
            known = f"is neither {END_TO_END} nor one of embedding.encoders ({', '.join(encoders[1:]) or 'none'})"
            raise ValueError(f"training.image: {image!r} {known}{meant(image, encoders)}")
        for name, space in self.tuning.own.items():
            _require(len(space) <= MOST_OWN, f"strategies.{name}.space: holds {len(space)} knobs, may hold {MOST_OWN}")
            for knob in space:
                own = knob in self.strategies[name] and knob != "lr"
                _require(own, f"strategies.{name}.space.{knob}: is no knob of strategies.{name} of its own")
        key = f"scales.{self.scale}.training.folds"  # other scales may ask for more folds
        folds = self.scales[self.scale].training.folds
        if self.splits.scheme == "temporal":
            _require(
                folds == (0,), f"{key}: splits.scheme temporal has fold 0 alone: set {key} to [0], is {list(folds)}"
            )
        for fold in folds:
            _require(fold < self.splits.count, f"{key}: {fold} is not below splits.folds")

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


def content(path: Path | str = FILE, changes: Sequence[str] = ()) -> Any:
    """What a file holds, with `changes` as `dvc exp run -S` spells them: key=value, the value YAML or `${other.key}`.

    Raises InputError where the file is absent or is not YAML, and for a change of a key that it does not hold.
    """
    path = Path(path)
    try:
        value = read_yaml(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run from the root of the project") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    for change in changes:
        _change(value, change, path)
    return value


def _change(whole: Any, change: str, path: Path) -> None:
    key, equals, text = change.partition("=")
    *above, last = key.split(".")
    value = _under(whole, above)
    if not equals or not isinstance(value, dict) or last not in value:
        why = f"{path} has no such key" if equals else "must be KEY=VALUE"
        raise InputError(f"-S {change}: {why}")
    if other := re.fullmatch(r"\$\{([\w.]+)\}", text):  # as in `dvc exp run -S`
        *above, name = other[1].split(".")
        there = _under(whole, above)
        if not isinstance(there, dict) or name not in there:
            raise InputError(f"-S {change}: {path} has no key {other[1]}")
        value[last] = there[name]
        return
    try:
        value[last] = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise InputError(f"-S {change}: not YAML: {' '.join(str(error).split())}") from None


def _under(value: Any, names: Sequence[str]) -> Any:
    """What nested mappings hold under these keys; None where one is not there."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def load(path: Path | str = FILE, changes: Sequence[str] = ()) -> Params:
    """All params of a file, with `changes` as `content` takes them.

    An ensemble none of whose components is in the grid is not in it either. Raises InputError (naming file and key)
    where it is absent, is not YAML, or holds an unknown or impossible value.
    """
    value = content(path, changes)
    try:
        params = typing.cast(Params, build(Params, _apart(value), ""))
        grid = params.grid
        made = tuple(name for name in grid.ensembles if {*params.ensembles[name].components} & {*grid.strategies})
        return dataclasses.replace(params, grid=dataclasses.replace(grid, ensembles=made))
    except InputError as error:
        text = re.sub(r"^tuning[.]own[.](\w+)", r"strategies.\1.space", str(error))
        raise InputError(f"{path}: {text}") from None


def _apart(value: Any) -> Any:
    """The content of params.yaml, `space` moved from the strategies' blocks to tuning.own: what is left is theirs."""
    if not isinstance(value, dict) or not all(isinstance(value.get(key), dict) for key in ("strategies", "tuning")):
        return value
    if "own" in value["tuning"]:
        raise InputError("tuning.own: unknown key; did you mean strategies.NAME.space?")
    blocks = {name: dict(block) if isinstance(block, dict) else block for name, block in value["strategies"].items()}
    own = {name: block.pop("space") for name, block in blocks.items() if isinstance(block, dict) and "space" in block}
    return {**value, "strategies": blocks, "tuning": {**value["tuning"], "own": own}}


def read(*keys: str, path: Path | str = FILE) -> tuple[Any, ...]:
    """The values under dotted keys, in order: what a stage declares under `params:` in dvc.yaml, and nothing else."""
    params = load(path)
    try:
        return tuple(params.get(key) for key in keys)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of nested params."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, dict):
        yield prefix, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        return
    for key, each in value.items():
        yield from flat(each, f"{prefix}.{key}" if prefix else str(key))
