"""The positive control: do the image encoders' features tell what the radiologists' reports say that images show?

Where they do not, an encoder that has learned nothing is a better account of "no gain" than a modality that adds
nothing, and "no gain" is not said (pipeline.estimation.verdicts). The probe has fitted a logistic regression on frozen
features of each trained model, nothing removed in training, to training stays (pipeline.training.image_control); here
its scores of test stays are ranked. The control is passed by an image-only strategy that tells every finding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from pipeline.disclosure import suppressed
from pipeline.estimation.bootstrap import average_runs
from pipeline.estimation.metrics import rank_metrics
from pipeline.evaluation.scores import Sampler, metric_interval

FINDINGS = ("edema", "effusion")  # of the probe
SCHEMA: dict[str, Any] = {
    "finding": pl.String,
    "strategy": pl.String,
    "task": pl.String,
    "train_cohort": pl.String,
    "auroc": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "stays": pl.String,
    "runs": pl.Int64,
}


def image_control(
    told: Iterable[tuple[str, pl.DataFrame]], people: pl.DataFrame, sampler: Sampler, confidence: float
) -> pl.DataFrame:
    """The table image_control: a row a finding, strategy, task and cohort of training, AUROC with interval.

    `told`: strategies, in the order of the table, with their image_control.parquet (`reading.read_probe`).
    """
    rows = []
    for place, (strategy, scores) in enumerate(told):
        of_people = scores.filter(encoder="trained").join(
            people.select("fold", "stay_id", "subject_id"), on=["fold", "stay_id"], how="left"
        )
        for key, each in of_people.group_by("finding", "task", "train_cohort", maintain_order=True):
            values = []
            for (fold, _), run in each.sort("fold", "seed", "stay_id").group_by("fold", "seed", maintain_order=True):
                drawn = sampler.subjects("test", int(str(fold)))
                at = drawn.rows(run["subject_id"].to_numpy())
                values.append(rank_metrics(run["score"].to_numpy(), run["present"].to_numpy(), at, drawn)[0])
            draws = average_runs(np.array(values))
            low, high = metric_interval("auroc", draws, confidence)
            finding, task, cohort = (str(part) for part in key)
            rows.append(
                {
                    "finding": finding,
                    "strategy": strategy,
                    "task": task,
                    "train_cohort": cohort,
                    "auroc": None if np.isnan(draws[0]) else float(draws[0]),
                    "low": low,
                    "high": high,
                    "stays": suppressed(each["stay_id"].n_unique()),
                    "runs": len(values),
                    "place": place,
                }
            )
    table = pl.DataFrame(rows, schema=SCHEMA | {"place": pl.Int64}, orient="row")
    return table.sort("finding", "place", "task", "train_cohort").drop("place")


def passed(table: pl.DataFrame, image_only: Iterable[str], task: str, cohort: str, preset: float) -> bool:
    """Whether one of the strategies `image_only`, trained for a task on a cohort, tells every finding with `preset`."""
    rows = table.filter(
        pl.col("strategy").is_in(list(image_only)) & pl.col("finding").is_in(FINDINGS) & (pl.col("auroc") >= preset),
        task=task,
        train_cohort=cohort,
    )
    return any(of.height == len(FINDINGS) for of in rows.partition_by("strategy"))
