"""The positive control: do the images alone tell what the radiologists' reports say that they show?

Where they do not, an encoder that has learned nothing is a better account of "no gain" than a modality that adds
nothing, and "no gain" is not said (pipeline.evaluation.verdicts). What is tested is the image-only strategy as it was
trained, on phenotypes: a linear readout of its logits (Alain & Bengio 2016, arXiv 1610.01644), fitted in each run on
the validation and dev stays, must rank two CheXpert findings (Irvin et al. 2019) in the test stays with an image. A
finding that the report does not mention counts as absent, one that it calls uncertain is left out. The synthetic
hospital's reports are written from the planted findings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from pipeline.evaluation.bootstrap import Floats, average_runs
from pipeline.evaluation.cells import read_findings, read_predictions
from pipeline.evaluation.evaluate import kinds_of_run
from pipeline.evaluation.metrics import nothing, rank_metrics
from pipeline.evaluation.scores import Sampler, metric_interval
from pipeline.params import TrainingScale, Verdicts
from pipeline.tasks import Task

FINDINGS = ("Pleural Effusion", "Edema")
PENALTY = 0.1  # inverse strength: some dozen stays, as many outputs
SCHEMA: dict[str, Any] = {
    "strategy": pl.String,
    "cohort": pl.String,
    "finding": pl.String,
    "auroc": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "preset": pl.Float64,
    "runs": pl.Int64,
    "passed": pl.Boolean,
}


def logits(probabilities: Floats) -> Floats:
    """log(p / (1 − p)), within what single precision tells apart."""
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p / (1 - p)))


def readout(inputs: Floats, truth: Floats, others: Floats) -> Floats | None:
    """Logits for `others` of a ridge logistic regression fitted to `inputs`; None where `truth` has one class alone."""
    if len(np.unique(truth)) < 2:
        return None
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    fitted = LogisticRegression(C=PENALTY, max_iter=1000).fit((inputs - mean) / spread, truth)
    return np.asarray(fitted.decision_function((others - mean) / spread), dtype=np.float64)


def positive_control(
    data: Path,
    task: Task,
    strategies: list[str],
    training: TrainingScale,
    people: pl.DataFrame,
    sampler: Sampler,
    rule: Verdicts,
) -> pl.DataFrame:
    """A row a strategy (of `strategies`, which look at images alone), cohort of training and finding; sorted so.

    `task` is the phenotypes. Raises InputError where a file or column is missing.
    """
    told = read_findings(data, FINDINGS)
    rows = []
    for strategy in strategies:
        cell = read_predictions(data, task, strategy, training, people).filter("has_cxr").join(told, on="stay_id")
        seen: set[str] = set()
        for kind, predictions in kinds_of_run(cell):
            if kind["train_cohort"] in seen:
                continue
            seen.add(kind["train_cohort"])
            for finding in FINDINGS:
                draws, runs = _auroc(predictions, task, finding, sampler)
                low, high = metric_interval("auroc", draws, rule.confidence)
                value = None if np.isnan(draws[0]) else float(draws[0])
                rows.append(
                    {
                        "strategy": strategy,
                        "cohort": kind["train_cohort"],
                        "finding": finding,
                        "auroc": value,
                        "low": low,
                        "high": high,
                        "preset": rule.control_auroc,
                        "runs": runs,
                        "passed": value is not None and value >= rule.control_auroc,
                    }
                )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("strategy", "cohort", "finding")


def _auroc(predictions: pl.DataFrame, task: Task, finding: str, sampler: Sampler) -> tuple[Floats, int]:
    """Draws [1 + D] of the readout's AUROC on test, and the number of runs, over which it is averaged."""
    certain = predictions.with_columns(pl.col(finding).fill_null(0.0)).filter(pl.col(finding) >= 0)
    values, weights = [], []
    for (fold, seed), run in certain.sort("fold", "seed", "stay_id").group_by("fold", "seed", maintain_order=True):
        fitted, test = run.filter(pl.col("part") != "test"), run.filter(part="test")
        inputs = [logits(each.select(f"p_{name}" for name in task.outputs).to_numpy()) for each in (fitted, test)]
        draws = sampler.subjects("test", int(str(fold)))
        scores = readout(inputs[0], fitted[finding].to_numpy(), inputs[1]) if test.height else None
        at = draws.rows(test["subject_id"].to_numpy())
        truth = (test[finding] == 1).to_numpy()
        values.append(nothing(draws) if scores is None else rank_metrics(scores, truth, at, draws)[0])
        weights.append(sampler.seed(int(str(seed))))
    if not values:
        return np.full(1, np.nan), 0
    return average_runs(np.array(values), np.array(weights)), sum(not np.isnan(each[0]) for each in values)


def passed(control: pl.DataFrame, cohort: str) -> bool:
    """Whether an image-only strategy trained on `cohort` reached the preset on every finding."""
    rows = control.filter(cohort=cohort)
    return any(of.height and of["passed"].all() for of in rows.partition_by("strategy"))
