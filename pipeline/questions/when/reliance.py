"""The stage `reliance`: what a fusion strategy's score rests on, from its answers to swapped pairs (the probe's).

EMAP (Hessel & Lee, EMNLP 2020): the score of the best additive projection of the model; what the model has beyond it
needs interaction between the modalities. Shapley values of the two modalities, exactly: v(both) is the score of the
pairs as they are, v(EHR) that with images permuted among the probed patients, v(CXR) with records permuted, v(none)
with both permuted, independently. A score under permutation is the mean over the permutations.
    φ(EHR) = ½ [v(EHR) − v(none)] + ½ [v(both) − v(CXR)], φ(CXR) likewise; their sum is v(both) − v(none).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.disclosure import suppressed
from pipeline.estimation.bootstrap import Floats, average_labels, average_runs, difference_interval
from pipeline.estimation.metrics import accuracy, confusion, rank_metrics
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.reading import read_probe
from pipeline.evaluation.scores import Sampler, metric_interval
from pipeline.params import Evaluation, Grid, TrainingScale
from pipeline.questions.when.control import image_control
from pipeline.tasks import Task, get_task

log = logging.getLogger(__name__)

PERMUTED = {"ehr": "cxr_permuted", "cxr": "ehr_permuted", "none": "both_permuted"}  # what is left: kind of swap
DIGITS = 12
QUANTITIES = (
    "full",
    "emap",
    "interaction",
    "ehr",
    "cxr",
    "none",
    "shapley_ehr",
    "shapley_cxr",
    "branch_ehr",
    "branch_cxr",
)
DIFFERENCES = ("interaction", "shapley_ehr", "shapley_cxr")  # of scores
RELIANCE: dict[str, Any] = {
    "task": pl.String,
    "strategy": pl.String,
    "train_cohort": pl.String,
    "metric": pl.String,
    "quantity": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "stays": pl.String,
    "runs": pl.Int64,
}


def metric_of(task: Task) -> str:
    """AUROC; of length of stay accuracy."""
    return "accuracy" if task.kind == "multiclass" else "auroc"


def _score(rows: pl.DataFrame, task: Task, sampler: Sampler) -> list[Floats]:
    """Draws by label; `rows` are those of one run, kind and permutation."""
    draws = sampler.subjects("test", rows["fold"][0])
    at = draws.rows(rows["subject_id"].to_numpy())
    p = rows.select(f"p_{name}" for name in task.outputs).to_numpy().astype(np.float64)
    truth = rows.select(pl.col(task.labels).cast(pl.Int64)).to_numpy()
    if task.kind == "multiclass":
        return [accuracy(confusion(p.argmax(axis=1), truth[:, 0], p.shape[1], at, draws))]
    return [rank_metrics(p[:, i], truth[:, i] > 0, at, draws)[0] for i in range(truth.shape[1])]


def kind_scores(swaps: pl.DataFrame, task: Task, sampler: Sampler) -> dict[str, Floats]:
    """Draws [1 + D] by kind of swap: averaged over permutations and runs, then over labels.

    `swaps` are rows of swaps.parquet of one cohort of training, with subject_id and the task's labels.
    """
    found = {}
    for (kind,), of_kind in swaps.group_by("kind", maintain_order=True):
        scored = [
            _score(rows, task, sampler) for _, rows in of_kind.group_by("fold", "seed", "draw", maintain_order=True)
        ]
        labels = [average_runs(np.array(values)) for values in zip(*scored, strict=True)]
        found[str(kind)] = average_labels(np.array(labels)) if len(labels) > 1 else labels[0]
    return found


def quantities(scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """Draws of QUANTITIES from those of the kinds of swap; branches where the strategy has them."""
    both = scores["full"]
    left = {name: scores[kind] for name, kind in PERMUTED.items()}
    found = {
        "full": both,
        "emap": scores["emap"],
        "interaction": both - scores["emap"],
        **left,
        "shapley_ehr": ((left["ehr"] - left["none"]) + (both - left["cxr"])) / 2,
        "shapley_cxr": ((left["cxr"] - left["none"]) + (both - left["ehr"])) / 2,
    }
    found |= {name: scores[name] for name in ("branch_ehr", "branch_cxr") if name in scores}
    return {name: found[name] for name in QUANTITIES if name in found}


def _bounded(draws: Floats, confidence: float, metric: str | None) -> dict[str, float | None]:
    """A score, of which `metric` is the name, or a difference of two, with its interval."""
    draws = np.round(draws, DIGITS) + 0.0  # a difference that is rounding is none
    if metric is None:
        low, high = difference_interval(draws, confidence)
    else:
        low, high = metric_interval(metric, draws, confidence)
    return {"value": None if np.isnan(draws[0]) else float(draws[0]), "low": low, "high": high}


def reliance(
    data: Path, grid: Grid, training: TrainingScale, evaluation: Evaluation, draws: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables reliance and image_control. Raises InputError where a probe of the grid has left nothing."""
    tasks = [get_task(name) for name in grid.tasks]
    people = read_people(data, tasks, training.folds).select(
        "fold", "stay_id", "subject_id", *(label for task in tasks for label in task.labels)
    )
    sampler = Sampler(read_people(data, [], training.folds), draws, evaluation.seed)
    rows = []
    for task in tasks:
        for strategy in grid.strategies:
            log.info("%s %s", strategy, task.name)
            swaps = read_probe(data, strategy, "swaps").filter(task=task.name)
            swaps = swaps.join(people, on=["fold", "stay_id"], how="left", maintain_order="left")
            for (cohort,), of_cohort in swaps.group_by("train_cohort", maintain_order=True):
                about = {"task": task.name, "strategy": strategy, "train_cohort": cohort, "metric": metric_of(task)}
                counts = {
                    "stays": suppressed(of_cohort["stay_id"].n_unique()),
                    "runs": of_cohort.select("fold", "seed").unique().height,
                }
                for name, values in quantities(kind_scores(of_cohort, task, sampler)).items():
                    metric = None if name in DIFFERENCES else metric_of(task)
                    number = _bounded(values, evaluation.confidence, metric)
                    rows.append({**about, "quantity": name, **number, **counts})
    told = ((name, read_probe(data, name, "image_control")) for name in grid.strategies)
    control = image_control(told, people, sampler, evaluation.confidence)
    return pl.DataFrame(rows, schema=RELIANCE, orient="row"), control
