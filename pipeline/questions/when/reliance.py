"""The stage `reliance`: what a fusion strategy's score rests on, from its answers to swapped pairs (the probe's).

EMAP (Hessel & Lee, EMNLP 2020): the score of the best additive projection of the model; what the model has beyond it
needs interaction between the modalities. Shapley values of the two modalities, exactly: v(both) is the score of the
pairs as they are, v(EHR) that with images permuted among the probed patients, v(CXR) with records permuted, v(none)
with both permuted, independently.
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
from pipeline.estimation.bootstrap import Floats
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.reading import read_probe
from pipeline.evaluation.scores import Sampler, estimate_interval
from pipeline.params import Evaluation, Grid, TrainingScale
from pipeline.questions.when import swaps
from pipeline.questions.when.control import image_control
from pipeline.questions.when.source import number, share_tested
from pipeline.tasks import get_task

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


def quantities(scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """Draws, [R, 1 + D], of QUANTITIES from those of the kinds of swap; branches where the strategy has them."""
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


def reliance(
    data: Path, grid: Grid, training: TrainingScale, evaluation: Evaluation, draws: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables reliance and image_control. Raises InputError where a probe of the grid has left nothing."""
    tasks = [get_task(name) for name in grid.tasks]
    people = read_people(data, tasks, training.folds)
    sampler = Sampler(people, draws, evaluation.seed)
    rows = []
    for task in tasks:
        metric = swaps.metric_of(task)
        for strategy in grid.strategies:
            log.info("%s %s", strategy, task.name)
            for cohort, of_cohort in swaps.read_swaps(data, strategy, task, people).items():
                about = {"task": task.name, "strategy": strategy, "train_cohort": cohort, "metric": metric}
                found = swaps.scored(of_cohort, task, sampler)
                counts = {"stays": suppressed(found.stays), "runs": len(found.folds)}
                for name, values in quantities(found.values).items():
                    # a difference that is rounding is none
                    each = found.estimate(np.round(values, DIGITS) + 0.0, share_tested(people, cohort))
                    if name in DIFFERENCES:
                        low, high = each.interval(evaluation.confidence)
                    else:
                        low, high = estimate_interval(metric, each, evaluation.confidence)
                    rows.append(
                        {**about, "quantity": name, "value": number(each.value), "low": low, "high": high, **counts}
                    )
    told = ((name, read_probe(data, name, "image_control")) for name in grid.strategies)
    control = image_control(told, people, sampler, evaluation.confidence)
    return pl.DataFrame(rows, schema=RELIANCE, orient="row"), control
