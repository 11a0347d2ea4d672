"""The three tasks: label columns, kind, number of logits, and the metric that selects models on validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError
from pipeline.strict import read_yaml

PHENOTYPES_FILE = Path(__file__).parent / "mimic" / "phenotypes.yaml"


@dataclass(frozen=True)
class Task:
    """A task. `labels` are columns of labels.parquet; `outputs` names the logits, and `p_<output>` the predictions."""

    name: str
    kind: Literal["binary", "multilabel", "multiclass"]
    labels: tuple[str, ...]
    outputs: tuple[str, ...]
    monitor: Literal["auprc", "accuracy"]


def phenotype_slugs() -> tuple[str, ...]:
    """The 25 phenotypes' slugs in the benchmark's (alphabetical) order."""
    return tuple(row["slug"] for row in read_yaml(PHENOTYPES_FILE)["phenotypes"])


# Lower edges of the length-of-stay classes in days; the last is open (design: rules of the cohort).
LOS_EDGES = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 14.0)


def get_task(name: str) -> Task:
    """The task called `name`: mortality, phenotype or los."""
    if name == "mortality":
        return Task(name, "binary", ("icu_mortality",), ("icu_mortality",), "auprc")
    if name == "phenotype":
        slugs = phenotype_slugs()
        return Task(name, "multilabel", slugs, slugs, "auprc")
    if name == "los":
        return Task(name, "multiclass", ("los_class",), tuple(f"los_{i}" for i in range(len(LOS_EDGES))), "accuracy")
    raise InputError(f"task {name!r} is not one of mortality, phenotype, los")
