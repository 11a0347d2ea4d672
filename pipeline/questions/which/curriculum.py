"""curriculum.csv and curriculum_epochs.csv: what CLIMD's curriculum does for rare labels, and what it draws.

CLIMD is a curriculum around another strategy: it is held against that one as it is, and against itself with half of the
idea left out, by strata of how rare labels are. Nothing else of the strategy differs between the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.evaluation.cells import cell_folder
from pipeline.evaluation.paired import ALL, Stratum, over_labels, scored
from pipeline.evaluation.reading import read_columns, there
from pipeline.evaluation.scores import MACRO, in_cohort, metrics_of
from pipeline.questions.which.ablations import KEY, SCORE, Source, table
from pipeline.tasks import Task, get_task
from pipeline.training.grid import KEY as RUN_KEY
from pipeline.training.grid import ablated

STRATEGY = "climd"
LONG = 4  # the class of length of stay from which on a stay is a long one: 6 days
TOLD = ("progress", "drawn_rarest", "drawn_pairs", "score_rarest", "score")
SCHEMAS: dict[str, dict[str, Any]] = {
    "curriculum": KEY | {"variant": pl.String, "stratum": pl.String, "labels": pl.Int64} | SCORE,
    "curriculum_epochs": KEY
    | {"variant": pl.String, "epoch": pl.Int64, "runs": pl.Int64}
    | dict.fromkeys(TOLD, pl.Float64)
    | {"metric": pl.String, "validation": pl.Float64},
}


def curriculum(source: Source) -> dict[str, pl.DataFrame]:
    """The tables of SCHEMAS; without rows where the grid has no CLIMD.

    The base comes first, if the grid has it (there is no difference without it), CLIMD last. Raises InputError as
    `cells.read_predictions` does.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    if STRATEGY in source.grid.strategies:
        base = str(source.hyper(STRATEGY)["base"])
        variants = {name: ablated(STRATEGY, name) for name in source.ablations.get(STRATEGY, {})}
        cells = {base: base} if base in source.grid.strategies else {}
        cells |= variants | {STRATEGY: STRATEGY}
        for task in map(get_task, source.grid.tasks):
            rows["curriculum"] += _scores(source, task, base, cells)
            for variant in (*variants, STRATEGY):
                rows["curriculum_epochs"] += _epochs(source, task, variant, cells[variant])
    return {name: table(found, SCHEMAS[name]) for name, found in rows.items()}


def strata_of(source: Source, task: Task) -> dict[str, tuple[Stratum, tuple[str, ...], pl.Expr]]:
    """By name: a stratum of stays, the labels whose mean is asked of it, and who is in it.

    Phenotypes in thirds by how many of the cohort's training stays have them, over the folds; length of stay by the
    stay's own; of mortality all stays alone.
    """
    labels = (MACRO,) if task.kind == "multiclass" else task.labels
    found = {"all": (ALL, labels, pl.lit(True))}
    if task.kind == "multilabel":
        train = source.people.filter((pl.col("part") == "train") & in_cohort(source.cohort))
        often = [int(train[label].sum()) for label in labels]
        order = [labels[i] for i in np.argsort(often, kind="stable")]
        for name, third in zip(("rare", "middle", "common"), np.array_split(np.array(order), 3), strict=True):
            found[name] = (ALL, tuple(map(str, third)), pl.lit(True))
    if task.kind == "multiclass":
        long = pl.col(task.labels[0]) >= LONG
        found |= {name: (("stay", name), labels, where) for name, where in (("short", ~long), ("long", long))}
    return found


def _scores(source: Source, task: Task, base: str, cells: dict[str, str]) -> list[dict[str, Any]]:
    strata = strata_of(source, task)
    inside = {stratum: where for stratum, _, where in strata.values()}
    runs = {variant: source.runs(task, cell, inside) for variant, cell in cells.items()}
    found = []
    for name, (stratum, labels, _) in strata.items():
        draws = {variant: scored(each, task, stratum) for variant, each in runs.items()}
        for metric in metrics_of(task)[: 1 if stratum != ALL else 2]:  # among stays of few classes kappa means nothing
            values = {variant: over_labels(each, labels, metric) for variant, each in draws.items()}
            for variant, each in values.items():
                against = values.get(base) if variant != base else None
                about: dict[str, Any] = {
                    "task": task.name,
                    "cohort": source.cohort,
                    "variant": variant,
                    "stratum": name,
                }
                about |= {"labels": len(labels) if task.kind == "multilabel" else None}
                found.append(about | source.scored(each, against, runs[variant], metric))
    return found


def _epochs(source: Source, task: Task, variant: str, cell: str) -> list[dict[str, Any]]:
    """Means over the runs that reached the epoch, with the least removed; nothing where there is no curriculum."""
    path = there(cell_folder(source.data, cell) / task.name / "history.csv")
    monitor, own = f"val_{task.monitor}", {f"own_{name}": name for name in TOLD}
    if not set(own) <= set(pl.read_csv(path, n_rows=0).columns):
        return []
    frame = read_columns(path, [*RUN_KEY, "epoch", *own, monitor]).rename(own)
    frame = frame.filter(pl.col("train_missing").cast(pl.Float64).round(6) == min(source.training.train_missing))
    means = [pl.col(name).cast(pl.Float64).mean() for name in (*TOLD, monitor)]
    of = frame.group_by("train_cohort", "epoch").agg(pl.len().alias("runs"), *means).sort("train_cohort", "epoch")
    of = of.rename({"train_cohort": "cohort", monitor: "validation"})
    about = {"task": task.name, "variant": variant, "metric": task.monitor}
    return [about | row for row in of.iter_rows(named=True)]
