"""The results as tidy Polars frames, for notebooks: `load()` gives predictions, metrics and provenance.

    from pipeline import results
    predictions, metrics, provenance = results.load()            # from the project's root; else load("path/to/it")

It reads what `dvc repro` has left, and checks it as the stages do; nothing is computed.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from pipeline import files, params
from pipeline.errors import InputError
from pipeline.evaluation.cells import read_people, read_predictions
from pipeline.evaluation.evaluate import RESULT_SCHEMA
from pipeline.evaluation.reading import read_table
from pipeline.page.page import versions
from pipeline.tasks import Task, get_task
from pipeline.training.grid import KEY


class Results(NamedTuple):
    """What `load` gives.

    `predictions`: a row a prediction (task, strategy, run, stay and output), with everything present at inference:
    task, strategy, train_cohort, fold, seed, train_missing, train_mechanism, part (val, test, dev), stay_id,
    subject_id, has_cxr, output (a phenotype, a class of length of stay), p (its probability) and y (whether it is so).
    `metrics`: reports/tables/results.csv. `provenance`: name, value (text): what the results were made from.
    """

    predictions: pl.DataFrame
    metrics: pl.DataFrame
    provenance: pl.DataFrame


def load(
    root: Path | str = ".", tasks: Sequence[str] | None = None, strategies: Sequence[str] | None = None
) -> Results:
    """The results of the project in `root`: exactly the cells that its params.yaml names, or those of them asked for.

    All of them at the scale `paper` are some hundred million predictions: name a task there.
    Raises InputError where a file, cell or run is missing, or a task or strategy is not in the grid.
    """
    root = Path(root)
    settings = params.load(root / params.FILE)
    grid, training = settings.grid, settings.get("scales.training")
    chosen = [_chosen("tasks", tasks, grid.tasks), _chosen("strategies", strategies, grid.scored)]
    named = [get_task(name) for name in chosen[0]]
    people = read_people(root / "data", named, training.folds)
    cells = [
        _tidy(read_predictions(root / "data", task, strategy, training, people), task, strategy)
        for task in named
        for strategy in chosen[1]
    ]
    path = root / "reports" / "tables" / "results.csv"
    metrics = read_table(path, RESULT_SCHEMA).filter(
        pl.col("task").is_in(chosen[0]), pl.col("strategy").is_in(chosen[1])
    )
    return Results(pl.concat(cells), metrics, _provenance(root, settings))


def _chosen(what: str, wanted: Sequence[str] | None, there: Sequence[str]) -> list[str]:
    for name in wanted or ():
        if name not in there:
            raise InputError(f"{what}: {name!r} is not one of grid.{what}: {', '.join(there)}")
    return [name for name in there if wanted is None or name in wanted]


def _tidy(cell: pl.DataFrame, task: Task, strategy: str) -> pl.DataFrame:
    """A cell's rows by output, with p and y."""
    about = [*KEY, "part", "stay_id", "subject_id", "has_cxr"]
    parts = []
    for i, output in enumerate(task.outputs):
        truth = pl.col(task.labels[0]).cast(pl.Int64) == i if task.kind == "multiclass" else pl.col(output)
        parts.append(
            cell.select(
                pl.lit(task.name).alias("task"),
                pl.lit(strategy).alias("strategy"),
                *about,
                pl.lit(output).alias("output"),
                pl.col(f"p_{output}").alias("p"),
                truth.cast(pl.Boolean).alias("y"),
            )
        )
    return pl.concat(parts)


def _provenance(root: Path, settings: params.Params) -> pl.DataFrame:
    """Commit (where git is there), the manifest's SHA-256, versions, and the params in use by their dotted keys."""
    manifest = root / "data" / "manifest.json"
    scale = {settings.scale: settings.scales[settings.scale]}
    rows = [
        ("commit", _commit(root)),
        ("manifest_sha256", files.sha256(manifest) if manifest.is_file() else None),
        *((f"version.{name}", version) for name, version in versions()),
        *((f"params.{key}", value) for key, value in params.flat(dataclasses.replace(settings, scales=scale))),
    ]
    return pl.DataFrame(rows, schema={"name": pl.String, "value": pl.String}, orient="row")


def _commit(root: Path) -> str | None:
    """The commit that is checked out, with a plus where files differ from it; None without git or a repository."""
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True).stdout
