"""Reading what evaluation needs: the people with their labels, and the cells of predictions that the params ask for.

Every aggregate (metrics, fairness, robustness) reads through here. The expected cells are grid.strategies × grid.tasks
(and grid.ensembles, in data/ensembles), the expected runs inside of a cell follow from scales.X.training: exactly these
are read, whatever else lies there. A missing cell, a missing or surplus run and a run that does not cover its stays are
errors that name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import InputError
from pipeline.evaluation.reading import read_columns
from pipeline.params import TrainingScale
from pipeline.tasks import Task
from pipeline.training.grid import KEY, RunKey, run_keys

TEST = {"test_modality": "none", "test_missing": 0.0, "test_mechanism": "none"}  # nothing removed at inference
PARTS = ("val", "test", "dev")
TOLERANCE = 1e-4  # of the sum of a softmax row in single precision


def cell_folder(data: Path, strategy: str) -> Path:
    """Where a train cell leaves its card and, in a folder a task, predictions and histories; or who makes such cells.

    No ensemble has the name of a strategy (pipeline.params), and an ablation's has a dot.
    """
    others = (data / kind / strategy for kind in ("ensembles", "ablations"))
    return next((folder for folder in others if folder.is_dir()), data / "runs" / strategy)


def read_people(data: Path, tasks: Iterable[Task], folds: Iterable[int], traits: Sequence[str] = ()) -> pl.DataFrame:
    """A row a stay and fold, sorted by (fold, stay_id): subject_id, part, has_cxr, the labels of `tasks` and `traits`.

    `traits` are further columns of stays.parquet, as they stand there.

    Raises InputError for a file or column that is absent, a stay without labels and a label that is null.
    """
    labels = [name for task in tasks for name in task.labels]
    splits = read_columns(data / "splits.parquet", ["stay_id", "fold", "part"]).with_columns(
        pl.col("stay_id", "fold").cast(pl.Int64)
    )
    stays = read_columns(data / "cohort" / "stays.parquet", ["stay_id", "subject_id", "has_cxr", *traits]).with_columns(
        pl.col("stay_id", "subject_id").cast(pl.Int64)
    )
    truth = read_columns(data / "cohort" / "labels.parquet", ["stay_id", *labels]).with_columns(
        pl.col("stay_id").cast(pl.Int64)
    )
    for column in labels:
        if truth[column].null_count():
            stay = truth.filter(pl.col(column).is_null())["stay_id"][0]
            raise InputError(f"{data / 'cohort' / 'labels.parquet'}: {column} is null for stay_id {stay}")
    people = (
        splits.filter(pl.col("fold").is_in(list(folds)))
        .join(stays, on="stay_id", how="left")
        .join(truth, on="stay_id", how="left")
    )
    for file, column in (("stays.parquet", "subject_id"), ("labels.parquet", labels[0] if labels else "subject_id")):
        if people[column].null_count():
            stay = people.sort("stay_id").filter(pl.col(column).is_null())["stay_id"][0]
            raise InputError(f"{data / 'cohort' / file}: no row for stay_id {stay} of {data / 'splits.parquet'}")
    for fold in folds:
        if fold not in people["fold"]:
            raise InputError(f"{data / 'splits.parquet'}: no fold {fold}, which scales.X.training.folds asks for")
    return people.sort("fold", "stay_id")


def read_predictions(
    data: Path, task: Task, strategy: str, training: TrainingScale, people: pl.DataFrame
) -> pl.DataFrame:
    """Predictions of a task with everything present at inference, joined with `people`; sorted by run, part and stay.

    Columns: KEY, part, stay_id, subject_id, has_cxr, the task's labels and p_*.

    Raises InputError, naming cell and run, where the cell or a run is missing, a run is not asked for, a run has not
    exactly the val, test and dev stays of its fold, or a value is no probability.
    """
    path = cell_folder(data, strategy) / task.name / "predictions.parquet"
    outputs = [f"p_{name}" for name in task.outputs]
    frame = read_columns(path, [*KEY, "part", *TEST, "stay_id", *outputs])
    frame = (
        frame.filter(pl.all_horizontal(pl.col(name) == value for name, value in TEST.items()))
        .drop(*TEST)
        .with_columns(_key_types())
        .with_columns(pl.col("stay_id").cast(pl.Int64), pl.col(outputs).cast(pl.Float64))
    )
    _check_runs(frame, run_keys(training, task.name), path)
    _check_probabilities(frame, task, outputs, path)
    _check_stays(frame, people, path)
    known = people.select("fold", "stay_id", "subject_id", "has_cxr", *task.labels)
    return frame.join(known, on=["fold", "stay_id"], how="left").sort(*KEY, "part", "stay_id")


def kinds_of_run(cell: pl.DataFrame) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """The cell's predictions by cohort of training and share removed: in each, runs differ in fold and seed alone."""
    keys = ["train_cohort", "train_missing", "train_mechanism"]
    for key in cell.select(keys).unique().sort(keys).iter_rows(named=True):
        yield key, cell.filter(pl.all_horizontal(pl.col(name) == value for name, value in key.items()))


def read_history(data: Path, task: Task, strategy: str, training: TrainingScale) -> pl.DataFrame:
    """The history of a task: task, strategy, cohort, the rest of KEY, epoch, losses, metric, branches, monitor, best.

    `metric` is the validation metric that selects models, called `metric_name`; null where it was not estimable. `ehr`
    and `cxr` are that of what one modality alone answers, over stays with an image; null where there is no such branch.
    `monitor` is what did select: `metric_name`, else val_loss, or none where there is no validation stay.
    Raises InputError where the file, a column or a run is missing, or a run is not asked for.
    """
    path = cell_folder(data, strategy) / task.name / "history.csv"
    monitor = f"val_{task.monitor}"
    branches = [f"{monitor}_{name}" for name in ("ehr", "cxr")]
    columns = [*KEY, "epoch", "train_loss", "val_loss", monitor, *branches, "monitor", "best"]
    frame = read_columns(path, columns).with_columns(_key_types())
    _check_runs(frame, run_keys(training, task.name), path)
    return frame.sort(*KEY, "epoch").select(
        pl.lit(task.name).alias("task"),
        pl.lit(strategy).alias("strategy"),
        pl.col("train_cohort").alias("cohort"),
        "fold",
        "seed",
        "train_missing",
        "train_mechanism",
        "epoch",
        pl.col("train_loss", "val_loss").cast(pl.Float64),
        pl.col(monitor).cast(pl.Float64).alias("metric"),
        *(pl.col(column).cast(pl.Float64).alias(column.removeprefix(f"{monitor}_")) for column in branches),
        pl.lit(monitor).alias("metric_name"),
        pl.col("monitor").cast(pl.String),
        pl.col("best").cast(pl.Boolean),
    )


def _key_types() -> list[pl.Expr]:
    return [
        pl.col("fold", "seed").cast(pl.Int64),
        pl.col("train_missing").cast(pl.Float64).round(6),
        pl.col("train_mechanism").cast(pl.String),
    ]


def _check_runs(frame: pl.DataFrame, expected: list[RunKey], path: Path) -> None:
    found = {RunKey(*row) for row in frame.select(KEY).unique().iter_rows()}
    for key in expected:
        if key not in found:
            raise InputError(f"{path}: no run {key}, which the params ask for")
    for key in sorted(found):
        if key not in expected:
            raise InputError(f"{path}: a run {key}, which the params do not ask for")


def _check_probabilities(frame: pl.DataFrame, task: Task, outputs: list[str], path: Path) -> None:
    for column in outputs:
        value = pl.col(column)
        wrong = frame.filter(value.is_null() | value.is_nan() | ~value.is_between(0, 1))
        if wrong.height:
            key, stay = RunKey(*wrong.select(KEY).row(0)), wrong["stay_id"][0]
            raise InputError(f"{path}: {column} of stay_id {stay} in run {key} is {wrong[column][0]}, no probability")
    if task.kind == "multiclass":
        wrong = frame.filter((pl.sum_horizontal(outputs) - 1).abs() > TOLERANCE)
        if wrong.height:
            key, stay = RunKey(*wrong.select(KEY).row(0)), wrong["stay_id"][0]
            raise InputError(f"{path}: probabilities of stay_id {stay} in run {key} do not sum to 1")


def _check_stays(frame: pl.DataFrame, people: pl.DataFrame, path: Path) -> None:
    """Each run predicts each val, test and dev stay of its fold once, and no other."""
    twice = frame.filter(frame.select(*KEY, "stay_id").is_duplicated())
    if twice.height:
        raise InputError(f"{path}: stay_id {twice['stay_id'][0]} twice in run {RunKey(*twice.select(KEY).row(0))}")
    wanted = people.filter(pl.col("part").is_in(PARTS)).select("fold", "stay_id", "part")
    runs = frame.select(KEY).unique()
    pairs = runs.join(wanted, on="fold")
    missing = pairs.join(frame, on=[*KEY, "stay_id", "part"], how="anti").sort(*KEY, "stay_id")
    if missing.height:
        key, stay = RunKey(*missing.select(KEY).row(0)), missing["stay_id"][0]
        raise InputError(f"{path}: no prediction for stay_id {stay} ({missing['part'][0]}) in run {key}")
    surplus = frame.join(pairs, on=[*KEY, "stay_id", "part"], how="anti").sort(*KEY, "stay_id")
    if surplus.height:
        key, stay = RunKey(*surplus.select(KEY).row(0)), surplus["stay_id"][0]
        raise InputError(f"{path}: stay_id {stay} in run {key} is not in {surplus['part'][0]} of its fold")
