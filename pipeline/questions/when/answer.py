"""The answer to question 1 as metrics for DVC: a file a task and cohort, since DVC prints a file as one row."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.evaluation.metrics_files import write_folder
from pipeline.presentation.text import NOT_ESTIMABLE, number
from pipeline.questions.when.tables import OWN, confirmatory, told


def answer(table: pl.DataFrame) -> dict[str, dict[str, float | str | None]]:
    """{TASK_COHORT: verdict, gain over the better single modality, interval by which it was told} of the task's label.

    `table` has the columns of gain.csv. Three numbers a file: all six answers changed are eighteen lines of a diff.
    """
    rows = confirmatory(table).filter(pl.col("label").is_in(OWN))
    found: dict[str, dict[str, float | str | None]] = {}
    for row in rows.iter_rows(named=True):
        value, low, high = told(row)
        interval = NOT_ESTIMABLE if low is None or high is None else f"{_short(low)}, {_short(high)}"
        found[f"{row['task']}_{row['cohort']}"] = {"verdict": row["verdict"], "gain": value, "interval": interval}
    return found


def _short(value: float) -> str:
    """−.081, and −.000 of what is below 0: beside the sweep's columns, 120 are just enough."""
    return ("−" if value < 0 else "") + number(abs(value)).replace("0.", ".", 1)


def write(table: pl.DataFrame, folder: Path) -> None:
    """Writes TASK_COHORT.json to `folder`; those of other tasks and cohorts are removed."""
    write_folder(answer(table), folder)
