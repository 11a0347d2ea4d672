"""The answer to question 1 as metrics for DVC: a file a task and cohort, since DVC prints a file as one row."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.evaluation.metrics_files import write_folder
from pipeline.presentation.text import NOT_ESTIMABLE, bounds
from pipeline.questions.when.tables import OWN, confirmatory


def answer(table: pl.DataFrame) -> dict[str, dict[str, float | str | None]]:
    """{TASK_COHORT: verdict, difference to the better single modality, its interval} of the task's own label.

    `table` has the columns of gain.csv. Three numbers a file: all six answers changed are eighteen lines of a diff.
    """
    rows = confirmatory(table).filter(pl.col("label").is_in(OWN))
    return {
        f"{row['task']}_{row['cohort']}": {
            "verdict": row["verdict"],
            "difference": row["difference"],
            "interval": NOT_ESTIMABLE if row["low"] is None else bounds(row["low"], row["high"]),
        }
        for row in rows.iter_rows(named=True)
    }


def write(table: pl.DataFrame, folder: Path) -> None:
    """Writes TASK_COHORT.json to `folder`; those of other tasks and cohorts are removed."""
    write_folder(answer(table), folder)
