"""The ladder: what each thing that a model is told about the image adds to the EHR.

That there is an image is a proxy of era, route of admission and coding; so are its hour, view and number. Rungs are of
one architecture, the transformer on the record with one linear head: the EHR alone; + whether there is an image; + its
metadata; + its pixels (`late_fusion`). With `training.start: unimodal` all but the first go on from the first's
weights, so that the first step is a second training's, too. A last rung shows the same fusion model the images of
others: what it loses is what the pixels of the right patient are worth. It needs the model again, and comes from the
probe. All steps are exploratory: they have intervals and no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.variance import Estimate, estimate, moderated
from pipeline.evaluation.cells import read_predictions
from pipeline.evaluation.paired import ALL, Run, over_labels, runs_of, scored
from pipeline.evaluation.reading import read_columns
from pipeline.evaluation.scores import MACRO, estimate_interval, headline, in_cohort, metrics_of
from pipeline.questions.when.source import ONE_RUN, Source, cells, number, share_tested
from pipeline.tasks import Task, get_task

RUNGS = {  # of one architecture, and the strategy that is each
    "ehr": "transformer",
    "presence": "ehr_presence",
    "metadata": "ehr_metadata",
    "pixels": "late_fusion",
}
PERMUTED = "permuted"
SWAP_KEY = ["task", "train_cohort", "fold", "seed", "part", "stay_id", "kind", "draw"]
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "label", "metric", "rung", "strategy"), pl.String),
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "against": pl.String,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p": pl.Float64,
    "runs": pl.Int64,
    "note": pl.String,
    "left_out": pl.String,
}
Values = Mapping[tuple[str, str], Floats]  # by (label, metric), [R, 1 + D]


def ladder(known: Source) -> pl.DataFrame:
    """A row a task, cohort, label, metric and rung, in this order; a rung that is left out has a row with the reason.

    `difference` is the rung less the rung `against`, the next lower one that is there (permuted: less pixels). Runs of
    a task and cohort tell of luck together, scores and differences apart (`variance.moderated`). Raises InputError as
    `cells.read_predictions` does, and where a column of the probe is missing.
    """
    rows: list[dict[str, Any]] = []
    for name in known.grid.tasks:
        for cohort in known.training.cohorts:
            climbed = _Climb(known, get_task(name), str(cohort)).rows()
            _bound(climbed, known.rule.confidence)
            rows += climbed
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _bound(rows: list[dict[str, Any]], confidence: float) -> None:
    """Takes the estimates `score` and `step` out of the rows, and writes their numbers and intervals."""
    scores = [row for row in rows if "score" in row]
    for row, found in zip(scores, moderated([row.pop("score") for row in scores]), strict=True):
        low, high = estimate_interval(row["metric"], found, confidence)
        note = ONE_RUN if found.one_run else None
        row |= {"value": number(found.value), "low": low, "high": high, "runs": found.runs, "note": note}
    steps = [row for row in rows if "step" in row]
    for row, found in zip(steps, moderated([row.pop("step") for row in steps]), strict=True):
        low, high = found.interval(confidence)
        row |= {"difference": number(found.value), "difference_low": low, "difference_high": high, "p": found.p}


class _Climb:
    """The rungs of one task and cohort."""

    def __init__(self, known: Source, task: Task, cohort: str) -> None:
        self.known, self.task, self.cohort = known, task, cohort
        self._share = share_tested(known.people, cohort)

    def rows(self) -> list[dict[str, Any]]:
        """All rungs, from the lowest."""
        found: list[dict[str, Any]] = []
        below: tuple[str, Values] | None = None
        for rung, strategy in RUNGS.items():
            if strategy not in self.known.grid.strategies:
                found.append(self._left_out(rung, f"{strategy} is not in the grid"))
                continue
            runs = next(cell.runs for at, cell in cells(self.known, self.task, strategy) if at == self.cohort)
            values = self._values(runs)
            for key in values:
                row = self._row(key, rung, strategy, values[key], runs)
                if below is not None:
                    row |= self._step(below[0], values[key] - below[1][key], runs)
                found.append(row)
            below = rung, values
        return [*found, *self._permuted()]

    def _values(self, runs: tuple[Run, ...]) -> Values:
        draws = scored(runs, self.task, ALL)
        if self.task.kind != "multilabel":
            return draws
        metrics = metrics_of(self.task)
        return draws | {(MACRO, metric): over_labels(draws, self.task.labels, metric) for metric in metrics}

    def _estimate(self, values: Floats, runs: tuple[Run, ...]) -> Estimate:
        return estimate(values, [run.fold for run in runs], self._share)

    def _row(
        self, key: tuple[str, str], rung: str, strategy: str, values: Floats, runs: tuple[Run, ...]
    ) -> dict[str, Any]:
        names = (self.task.name, self.cohort, *key, rung, strategy)
        return dict(zip(list(SCHEMA)[:6], names, strict=True)) | {"score": self._estimate(values, runs)}

    def _step(self, against: str, apart: Floats, runs: tuple[Run, ...]) -> dict[str, Any]:
        return {"against": against, "step": self._estimate(apart, runs)}

    def _left_out(self, rung: str, reason: str) -> dict[str, Any]:
        names = (self.task.name, self.cohort, headline(self.task), metrics_of(self.task)[0], rung, None)
        return {**dict(zip(list(SCHEMA)[:6], names, strict=True)), "left_out": reason}

    def _permuted(self) -> list[dict[str, Any]]:
        """The last rung: the mean over permutations, against the same model on the same stays unpermuted."""
        known, task, strategy = self.known, self.task, RUNGS["pixels"]
        if strategy not in known.grid.strategies:
            return [self._left_out(PERMUTED, f"{strategy} is not in the grid")]
        swaps = self._swaps(strategy)
        if not swaps.height:
            return [self._left_out(PERMUTED, f"the probe of {strategy} has no permuted images for this")]
        predictions = read_predictions(known.data, task, strategy, known.training, known.people)
        least = predictions["train_missing"].min()
        full = predictions.filter(train_cohort=self.cohort, train_missing=least, part="test")
        full = full.join(swaps.select("fold", "seed", "stay_id").unique(), on=["fold", "seed", "stay_id"], how="semi")
        whole = {ALL: pl.lit(True)}
        runs = runs_of(full, task, known.sampler, whole)
        own = self._values(runs)
        each = [
            self._values(runs_of(draw, task, known.sampler, whole))
            for draw in swaps.sort("draw", "fold", "seed", "stay_id").partition_by("draw", maintain_order=True)
        ]
        rows = []
        for key, values in own.items():
            mean = np.mean([draws[key] for draws in each], axis=0)
            row = self._row(key, PERMUTED, strategy, mean, runs)
            rows.append(row | self._step("pixels", mean - values, runs))
        return rows

    def _swaps(self, strategy: str) -> pl.DataFrame:
        """Predictions for test stays that saw the image of another, with the people; none where nobody was probed."""
        path, task = self.known.data / "probes" / strategy / "swaps.parquet", self.task
        outputs = [f"p_{name}" for name in task.outputs]
        if not path.is_file() or any(name not in pl.read_parquet_schema(path) for name in outputs):
            return pl.DataFrame()
        frame = read_columns(path, [*SWAP_KEY, *outputs]).filter(
            task=task.name, train_cohort=self.cohort, part="test", kind="cxr_permuted"
        )
        frame = frame.with_columns(pl.col("fold", "seed", "stay_id").cast(pl.Int64), pl.col(outputs).cast(pl.Float64))
        people = self.known.people.select("fold", "stay_id", "subject_id", "has_cxr", *task.labels)
        return frame.join(people, on=["fold", "stay_id"]).filter(in_cohort(self.cohort))
