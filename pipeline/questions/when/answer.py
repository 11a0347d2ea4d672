"""The answer to question 1 as metrics for DVC: a file a task and cohort, since DVC prints a file as one row."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.evaluation.metrics_files import write_folder
from pipeline.presentation.text import NOT_ESTIMABLE, number
from pipeline.questions.when.tables import OWN, confirmatory


def answer(table: pl.DataFrame) -> dict[str, dict[str, float | str | None]]:
    """{TASK_COHORT: verdict, gain over the better single modality, its interval} of the task's own label.

    `table` has the columns of gain.csv. Three numbers a file: all six answers changed are eighteen lines of a diff.
    """
    rows = confirmatory(table).filter(pl.col("label").is_in(OWN))
    return {
        f"{row['task']}_{row['cohort']}": {
            "verdict": row["verdict"],
            "gain": row["difference"],
            "interval": NOT_ESTIMABLE if row["low"] is None else f"{_short(row['low'])}, {_short(row['high'])}",
        }
        for row in rows.iter_rows(named=True)
    }


def _short(value: float) -> str:
    """−.081: beside the sweep's columns, 120 are just enough."""
    return number(value).replace("0.", ".", 1)


def write(table: pl.DataFrame, folder: Path) -> None:
    """Writes TASK_COHORT.json to `folder`; those of other tasks and cohorts are removed."""
    write_folder(answer(table), folder)
