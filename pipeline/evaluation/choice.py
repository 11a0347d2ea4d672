"""What kind of strategy a cell holds, and which of several is chosen: on validation, by task, cohort and label.

Every comparison with "the best single modality" or of "the fusion strategy" goes through here, so that all mean the
same one. The choice is fixed before a test stay is looked at, and no draw of a bootstrap makes it anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import InputError
from pipeline.estimation.bootstrap import SubjectDraws
from pipeline.estimation.metrics import rank_metrics
from pipeline.evaluation.cells import cell_folder
from pipeline.evaluation.reading import there
from pipeline.evaluation.scores import headline, in_cohort
from pipeline.tasks import Task

SURE = 1e-7  # a probability is kept this far from 0 and 1, whose logarithm is infinite


@dataclass(frozen=True)
class Card:
    """What it looks at, and what it makes of an absent image: `native` or `complete`. `group`: ensemble, or none."""

    modalities: frozenset[str]
    missing: str
    group: str = ""

    @property
    def kind(self) -> str:
        """`fusion` (record and pixels), `unimodal` (one of them), `control`; `ensemble`, which is nobody's candidate.

        An ensemble contains both sides of each comparison.
        """
        if self.group:
            return self.group
        if {"ehr", "cxr"} <= self.modalities:
            return "fusion"
        return "unimodal" if len(self.modalities) == 1 else "control"


def read_card(data: Path, strategy: str) -> Card:
    """The card of a cell. Raises InputError where it is absent or lacks an entry."""
    path = there(cell_folder(data, strategy) / "card.json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return Card(frozenset(card["modalities"]), str(card["missing"]), str(card.get("group", "")))
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: no modalities in it, or no missing") from None


class Validation(NamedTuple):
    """What a choice looks at: the headline metric and the log loss on validation, each a mean over runs, or None."""

    score: float | None
    loss: float | None


NOTHING = Validation(None, None)


def validation(predictions: pl.DataFrame, task: Task) -> dict[str, Validation]:
    """By label, and under the task's `headline` label: AUROC (length of stay: accuracy) and log loss on validation.

    `predictions` are rows of `cells.read_predictions` of one cohort of training and one share removed; validation is
    that cohort's. Of several labels the headline is the mean over those that are estimable.
    """
    rows = predictions.filter((pl.col("part") == "val") & in_cohort(predictions["train_cohort"][0]))
    runs = [_of_run(run, task) for run in rows.partition_by("fold", "seed", maintain_order=True)]
    labels = dict.fromkeys((*(task.labels if task.kind != "multiclass" else ()), headline(task)))
    return {
        label: Validation(_mean(run[label].score for run in runs), _mean(run[label].loss for run in runs))
        for label in labels
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return float(np.mean(known)) if known else None


def _of_run(run: pl.DataFrame, task: Task) -> dict[str, Validation]:
    scores = run.select(f"p_{name}" for name in task.outputs).to_numpy()
    rows = np.arange(run.height)
    likely = np.clip(scores, SURE, 1 - SURE)
    if task.kind == "multiclass":
        truth = run[task.labels[0]].to_numpy()
        right = float((scores.argmax(axis=1) == truth).mean())
        return {headline(task): Validation(right, float(-np.log(likely[rows, truth]).mean()))}
    once = SubjectDraws(rows, (np.ones((run.height, 1)),))
    truth = run.select(pl.col(task.labels).cast(pl.Boolean)).to_numpy()
    found = {}
    for i, label in enumerate(task.labels):
        score = float(rank_metrics(scores[:, i], truth[:, i], rows, once)[0][0])
        loss = float(-np.log(np.where(truth[:, i], likely[:, i], 1 - likely[:, i])).mean())
        found[label] = Validation(None if np.isnan(score) else score, loss)
    if task.kind == "multilabel":
        of = list(found.values())
        found[headline(task)] = Validation(_mean(each.score for each in of), _mean(each.loss for each in of))
    return found


def chosen(known: Mapping[str, Validation], strategies: Iterable[str]) -> str | None:
    """The one of `strategies` with the highest score; of equals that with the lowest loss, then the first by name.

    None where none has a score.
    """
    scored = [(name, known.get(name, NOTHING)) for name in strategies]
    order = [
        (-each.score, math.inf if each.loss is None else each.loss, name)
        for name, each in scored
        if each.score is not None
    ]
    return min(order)[2] if order else None


def chosen_by_label(
    known: Mapping[str, Mapping[str, Validation]], strategies: Sequence[str], task: Task
) -> dict[str, str]:
    """By label, the one of `strategies` that is `chosen` for it; `known` is by strategy, as `validation` gives it.

    A label without a positive on validation takes the one that is chosen for the task's headline; {} where that has no
    score either.
    """

    def of(label: str) -> str | None:
        return chosen({name: known[name].get(label, NOTHING) for name in strategies}, strategies)

    fallback = of(headline(task))
    if fallback is None:
        return {}
    return {label: of(label) or fallback for label in (*task.labels, headline(task))}
