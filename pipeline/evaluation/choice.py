"""What kind of strategy a cell holds, and which of several is chosen: on validation, by task and cohort, not on test.

Every comparison with "the best unimodal model" or of "the fusion strategy" goes through here, so that all mean the same
one. The choice is fixed before a test stay is looked at, and no draw of a bootstrap makes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.errors import InputError
from pipeline.estimation.bootstrap import SubjectDraws
from pipeline.estimation.metrics import rank_metrics
from pipeline.evaluation.cells import cell_folder
from pipeline.evaluation.reading import there
from pipeline.evaluation.scores import in_cohort
from pipeline.tasks import Task


@dataclass(frozen=True)
class Card:
    """What a strategy looks at, and what it makes of an absent image: `native` or `complete`."""

    modalities: frozenset[str]
    missing: str

    @property
    def kind(self) -> str:
        """`fusion` (record and pixels), `unimodal` (one of them) or `control`."""
        if {"ehr", "cxr"} <= self.modalities:
            return "fusion"
        return "unimodal" if len(self.modalities) == 1 else "control"


def read_card(data: Path, strategy: str) -> Card:
    """The card of a cell. Raises InputError where it is absent or lacks an entry."""
    path = there(cell_folder(data, strategy) / "card.json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return Card(frozenset(card["modalities"]), str(card["missing"]))
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: no modalities in it, or no missing") from None


def validation_score(predictions: pl.DataFrame, task: Task) -> float | None:
    """AUROC (phenotypes: their macro mean; length of stay: accuracy) on validation, averaged over runs; None without.

    `predictions` are rows of `cells.read_predictions` of one cohort of training and one share removed; validation is
    that cohort's.
    """
    rows = predictions.filter((pl.col("part") == "val") & in_cohort(predictions["train_cohort"][0]))
    found = [_score(run, task) for run in rows.partition_by("fold", "seed", maintain_order=True)]
    known = [each for each in found if each is not None]
    return float(np.mean(known)) if known else None


def _score(run: pl.DataFrame, task: Task) -> float | None:
    scores = run.select(f"p_{name}" for name in task.outputs).to_numpy()
    if task.kind == "multiclass":
        return float((scores.argmax(axis=1) == run[task.labels[0]].to_numpy()).mean())
    rows = np.arange(run.height)
    once = SubjectDraws(rows, (np.ones((run.height, 1)),))
    truth = run.select(pl.col(task.labels).cast(pl.Boolean)).to_numpy()
    each = [rank_metrics(scores[:, i], truth[:, i], rows, once)[0][0] for i in range(len(task.labels))]
    return None if np.isnan(each).all() else float(np.nanmean(each))


def chosen(scores: Mapping[str, float | None], strategies: Iterable[str]) -> str | None:
    """The one of `strategies` with the highest validation score, the first of equals; None where none has a score."""
    known = [(score, name) for name in strategies if (score := scores.get(name)) is not None]
    best = max((score for score, _ in known), default=None)
    return next((name for score, name in known if score == best), None)
