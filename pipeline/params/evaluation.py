"""The blocks of params.yaml that say how predictions are judged, and the page's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.params.rules import at_least, distinct, proportion, require


@dataclass(frozen=True)
class Evaluation:
    """Intervals and calibration."""

    confidence: float
    ece_bins: int
    seed: int

    def __post_init__(self) -> None:
        require(0 < self.confidence < 1, f"confidence: must be in (0, 1), is {self.confidence}")
        at_least(2, ece_bins=self.ece_bins)


@dataclass(frozen=True)
class Margins:
    """A difference too small to matter, by metric."""

    auroc: float
    auprc: float
    accuracy: float
    kappa: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            proportion(name, value)


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
        require(len(set(self.fusion)) == len(self.fusion), f"fusion: {list(self.fusion)} names a strategy twice")
        for name in ("confidence", "equivalence_confidence"):
            require(0 < getattr(self, name) < 1, f"{name}: must be in (0, 1), is {getattr(self, name)}")
        require(
            self.equivalence_confidence <= self.confidence,
            f"equivalence_confidence: must be at most confidence, is {self.equivalence_confidence}",
        )
        at_least(1, least_positives=self.least_positives)

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
            distinct(name, values)
            require(all(0 < each < 1 for each in values), f"{name}: must be in (0, 1), is {list(values)}")


@dataclass(frozen=True)
class Worth:
    """What acting on predictions is worth: thresholds of net benefit, and the share of stays deferred to people."""

    thresholds: Thresholds
    deferred: float

    def __post_init__(self) -> None:
        require(0 < self.deferred < 1, f"deferred: must be in (0, 1), is {self.deferred}")


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
        distinct("age_edges", self.age_edges)
        require(list(self.age_edges) == sorted(self.age_edges), f"age_edges: must ascend, is {list(self.age_edges)}")
        attributes = {"age", "gender", "race", "admission", "insurance", "has_cxr"}
        for pair in self.pairs:
            both = pair.split("+")
            require(
                len(set(both)) == 2 == len(both) and set(both) <= attributes,
                f"pairs: must be two of {sorted(attributes)} joined by +, is {pair!r}",
            )
        at_least(1, least_positives=self.least_positives, least_negatives=self.least_negatives)
        require(self.alert_rate > 0, f"alert_rate: must be above 0, is {self.alert_rate}")


@dataclass(frozen=True)
class Compare:
    """Comparing strategies: the days at which a length of stay is winsorised."""

    los_cap_days: float

    def __post_init__(self) -> None:
        require(self.los_cap_days > 14, f"los_cap_days: must be above 14, is {self.los_cap_days}")  # the last class


@dataclass(frozen=True)
class Report:
    """The page: the address of the repository that holds it, from which its files are linked; null: beside the page."""

    repository: str | None

    def __post_init__(self) -> None:
        address = self.repository
        told = f"repository: must be an address that starts with https://, or null, is {address}"
        require(address is None or re.fullmatch(r"https://[^\s\"<>]+", address) is not None, told)
