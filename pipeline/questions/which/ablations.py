"""What a strategy's own table is made of: its cell beside those with some knobs otherwise, on the same test stays.

One cohort of training (pipeline.training.grid.ablation_scale), evaluated on itself, the least removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.variance import estimate
from pipeline.evaluation import paired
from pipeline.evaluation.cells import cell_folder, read_people
from pipeline.evaluation.reading import there
from pipeline.evaluation.scores import Sampler, estimate_interval
from pipeline.params import Evaluation, Grid, TrainingScale
from pipeline.tasks import Task, get_task
from pipeline.training.grid import Ablations, ablation_scale

Strata = Mapping[paired.Stratum, pl.Expr]
KEY: dict[str, Any] = {"task": pl.String, "cohort": pl.String}
SCORE: dict[str, Any] = {
    "metric": pl.String,
    "runs": pl.Int64,
    **dict.fromkeys(("value", "low", "high", "difference", "difference_low", "difference_high"), pl.Float64),
}


@dataclass(frozen=True)
class Source:
    """Where the cells lie, and how they are scored; `people` are those of all folds, with every task's labels."""

    data: Path
    grid: Grid
    ablations: Ablations
    training: TrainingScale
    confidence: float
    people: pl.DataFrame
    sampler: Sampler

    @classmethod
    def of(
        cls, data: Path, grid: Grid, ablations: Ablations, training: TrainingScale, evaluation: Evaluation, draws: int
    ) -> Source:
        """Raises InputError as `cells.read_people` does."""
        people = read_people(data, [get_task(name) for name in grid.tasks], training.folds)
        sampler = Sampler(people, draws, evaluation.seed)
        return cls(data, grid, ablations, training, evaluation.confidence, people, sampler)

    @property
    def cohort(self) -> str:
        """Of training and evaluation."""
        return ablation_scale(self.training).cohorts[0]

    def scale(self, cell: str) -> TrainingScale:
        """The runs that a cell must hold."""
        ablation = cell_folder(self.data, cell).parent.name == "ablations"
        return ablation_scale(self.training) if ablation else self.training

    def hyper(self, strategy: str) -> dict[str, Any]:
        """The knobs with which a strategy of the grid was trained. Raises InputError where its runs.json is missing."""
        path = there(self.data / "runs" / strategy / "runs.json")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))[0]["spec"]["hyper"]
        return found

    def runs(self, task: Task, cell: str, strata: Strata) -> tuple[paired.Run, ...]:
        """The cell's test runs. Raises InputError as `cells.read_predictions` does."""
        of: dict[str, Strata] = dict.fromkeys(self.training.cohorts, strata)
        read = paired.read_cells(self.data, task, cell, self.scale(cell), self.people, self.sampler, of)
        return dict(read)[self.cohort].runs

    def scored(self, values: Floats, against: Floats | None, runs: Sequence[paired.Run], metric: str) -> dict[str, Any]:
        """The columns of SCORE from draws by run [R, 1 + D], and those of what they are held `against`."""
        folds = [run.fold for run in runs]
        found = estimate(values, folds, self.sampler.test_share)
        low, high = estimate_interval(metric, found, self.confidence)
        row = {"metric": metric, "runs": len(runs), "value": _known(found.value), "low": low, "high": high}
        if against is None:
            return row
        difference = estimate(values - against, folds, self.sampler.test_share)
        low, high = difference.interval(self.confidence)
        return row | {"difference": _known(difference.value), "difference_low": low, "difference_high": high}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def table(rows: Iterable[dict[str, Any]], schema: dict[str, Any]) -> pl.DataFrame:
    """Rows that may lack columns, as a table."""
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema, orient="row")
