"""robustness.md: the tables of the stage for people, models trained on the matched cohort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from pipeline.presentation.tables import METRIC_TITLES, TASK_TITLES, preferred
from pipeline.presentation.text import markdown_table, percent, with_interval

REMOVED = {"cxr": "images", "ehr": "records"}


def _cell(row: Mapping[str, Any] | None, name: str) -> str:
    if row is None:
        return ""
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def markdown(tables: Mapping[str, pl.DataFrame], confidence: float) -> str:
    """A table a task: the first metric as images go at random, and the summary of each strategy's curve."""
    lines = [
        "# Robustness to missing modalities",
        "",
        f"Test stays with an image; in brackets the {percent(confidence)} interval of a bootstrap over subjects. "
        "n. e.: not estimable.",
        "",
    ]
    curves, summary = preferred(tables["robustness"]), preferred(tables["robustness_summary"])
    for task in curves["task"].unique(maintain_order=True):
        of_task = curves.filter(task=task)
        metric = of_task["metric"][0]
        of_task = of_task.filter(metric=metric)
        for modality, what in REMOVED.items():
            rows = of_task.filter(
                pl.col("mechanism").is_in(("none", "mcar")), pl.col("modality").is_in(("none", modality))
            )
            rates = rows["rate"].unique().sort().to_list()
            header = ["Strategy", *(f"{percent(rate)} removed" for rate in rates), "Lost in all", "Stops paying at"]
            body = []
            for strategy in rows["strategy"].unique(maintain_order=True):
                own = {row["rate"]: row for row in rows.filter(strategy=strategy).iter_rows(named=True)}
                (short,) = summary.filter(
                    task=task, strategy=strategy, modality=modality, mechanism="mcar", metric=metric
                ).iter_rows(named=True)
                body.append(
                    [strategy, *(_cell(own.get(rate), "value") for rate in rates), _cell(short, "loss"), stops(short)]
                )
            lines += [
                f"## {TASK_TITLES.get(task, task)}: {METRIC_TITLES[metric]} as {what} are removed at random",
                "",
                markdown_table(header, body),
            ]
    return "\n".join(lines)


def stops(row: Mapping[str, Any]) -> str:
    """In words: the rate at which fusion stops paying, with its interval: 68% (33%–never)."""
    if row["pays"] is None:
        return ""
    return "pays at no rate" if row["pays"] == "no" else f"{at(row['stops'])} ({span(row)})"


def at(share: float | None) -> str:
    """68%; what is not there lies beyond the last image: never."""
    return "never" if share is None else percent(round(share, 2))


def span(row: Mapping[str, Any]) -> str:
    """33%–never: where the end of a lead may lie."""
    return f"{at(row['stops_low'])}–{at(row['stops_high'])}"
