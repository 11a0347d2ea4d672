"""distillation.csv: MIND's student with and without teachers, small and large, beside the teachers themselves.

Ensembling alone may explain a gain, so the teachers' mean answers stand below the students; a small student that is
taught is to be held against a large one that is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.evaluation.cells import read_history
from pipeline.evaluation.paired import ALL, Run, over_labels, scored
from pipeline.evaluation.reading import read_table
from pipeline.evaluation.scores import MACRO, metrics_of
from pipeline.questions.which.ablations import KEY, SCORE, Source, table
from pipeline.tasks import Task, get_task
from pipeline.training.grid import ablated

STRATEGY = "mind"
TEACHERS = {"transformer": "teachers_transformer", "resnet": "teachers_resnet"}  # of the record, of the image
MEAN = "teachers"  # the mean of both kinds
COUNTS = {"cell": pl.String, "task": pl.String, "parameters": pl.Int64}
SCHEMA: dict[str, Any] = (
    KEY
    | {"answers": pl.String, "taught": pl.Boolean, "parameters": pl.Int64, "against": pl.String}
    | SCORE
    | dict.fromkeys(("head_ehr", "head_cxr", "apart"), pl.Float64)
)


def distillation(source: Source) -> pl.DataFrame:
    """The table; without rows where the grid has no MIND, or nothing to hold it against.

    Raises InputError as `cells.read_predictions` does.
    """
    if STRATEGY not in source.grid.strategies or not source.ablations.get(STRATEGY):
        return table([], SCHEMA)
    counts = read_table(source.data / "ablations" / "parameters.csv", COUNTS)
    return table([row for name in source.grid.tasks for row in _of_task(source, get_task(name), counts)], SCHEMA)


def students(source: Source) -> dict[str, dict[str, Any]]:
    """The knobs of the students, by name: the strategy as it is, and its ablations."""
    own = source.hyper(STRATEGY)
    return {STRATEGY: own, **{name: own | dict(changes) for name, changes in source.ablations[STRATEGY].items()}}


def untaught_twin(name: str, known: dict[str, dict[str, Any]]) -> str | None:
    """The student that is as this one, but has no teachers; None for one that has none, or has no such twin."""
    wanted = known[name] | {"teachers": "none"}
    return next((other for other, knobs in known.items() if other != name and knobs == wanted), None)


def _of_task(source: Source, task: Task, counts: pl.DataFrame) -> list[dict[str, Any]]:
    known, everyone = students(source), {ALL: pl.lit(True)}
    cells = {name: STRATEGY if name == STRATEGY else ablated(STRATEGY, name) for name in known}
    kinds = [kind for kind in TEACHERS.values() if (source.data / "ablations" / ablated(STRATEGY, kind)).is_dir()]
    cells |= {kind: ablated(STRATEGY, kind) for kind in kinds}
    runs = {name: source.runs(task, cell, everyone) for name, cell in cells.items()}
    parameters = dict(counts.filter(task=task.name).select("cell", "parameters").iter_rows())
    sizes = {name: parameters[cell] for name, cell in cells.items()}
    if len(kinds) == len(TEACHERS):
        runs[MEAN] = tuple(map(_mean, *(runs[kind] for kind in kinds)))
        sizes[MEAN] = sum(sizes[kind] for kind in kinds)
    draws = {name: scored(each, task, ALL) for name, each in runs.items()}
    labels = (MACRO,) if task.kind == "multiclass" else task.labels
    found = []
    for metric in metrics_of(task):
        values = {name: over_labels(each, labels, metric) for name, each in draws.items()}
        for name, each in values.items():
            student = name in known
            twin = untaught_twin(name, known) if student else None
            row = {"task": task.name, "cohort": source.cohort, "answers": name, "parameters": sizes[name]}
            if student:
                row |= {"taught": known[name]["teachers"] != "none", "against": twin}
                row |= _heads(source, task, cells[name])
                row["apart"] = apart(runs[name], runs[MEAN]) if MEAN in runs else None
            found.append(row | source.scored(each, values[twin] if twin else None, runs[name], metric))
    return found


def _mean(one: Run, other: Run) -> Run:
    """A run that answers the mean of two."""
    return Run(one.fold, one.seed, one.at, (one.scores + other.scores) / 2, one.truth, one.inside, one.draws)


def apart(students: tuple[Run, ...], teachers: tuple[Run, ...]) -> float:
    """How far probabilities are from the teachers', on average over outputs, test stays and runs."""

    pairs = zip(students, teachers, strict=True)
    return float(np.mean([np.abs(one.scores - other.scores).mean() for one, other in pairs]))


def _heads(source: Source, task: Task, cell: str) -> dict[str, float | None]:
    """What each modality's head scores on validation stays with an image at the chosen epoch, the mean over runs."""
    frame = read_history(source.data, task, cell, source.scale(cell)).filter(
        pl.col("best"), cohort=source.cohort, train_missing=min(source.training.train_missing)
    )
    means = [frame[name].mean() for name in ("ehr", "cxr")]
    return {f"head_{name}": None if m is None else float(str(m)) for name, m in zip(("ehr", "cxr"), means, strict=True)}
