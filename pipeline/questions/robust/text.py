"""robustness.md and reliance.md: the tables of these two stages for people, models trained on the matched cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pipeline.presentation.tables import METRIC_TITLES, TASK_TITLES
from pipeline.presentation.text import markdown_table, percent, with_interval

REMOVED = {"cxr": "images", "ehr": "records"}


def _cell(row: Mapping[str, Any] | None, name: str) -> str:
    if row is None:
        return ""
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def preferred(table: pl.DataFrame) -> pl.DataFrame:
    """Rows of the models that are shown: trained on the matched cohort where there are such, with nothing removed."""
    cohorts = table["train_cohort"].unique().to_list()
    shown = table.filter(train_cohort="matched" if "matched" in cohorts else "base")
    return shown.filter(train_missing=0.0) if "train_missing" in shown.columns else shown


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
    """In words: the rate at which fusion stops paying."""
    if row["pays"] is None:
        return ""
    if row["pays"] == "always":
        return "never"
    return "pays at no rate" if row["pays"] == "no" else percent(round(row["stops"], 2))


def reliance_markdown(table: pl.DataFrame, control: pl.DataFrame, confidence: float) -> str:
    """A table a task: score, additive projection, Shapley values; and the image encoders' control."""
    lines = [
        "# What the scores rest on",
        "",
        f"Over the probed test stays; in brackets the {percent(confidence)} interval of a bootstrap over subjects.",
        "",
    ]
    titles = {
        "full": "Score",
        "emap": "Additive projection",
        "interaction": "Interaction",
        "shapley_ehr": "Shapley EHR",
        "shapley_cxr": "Shapley image",
    }
    shown = preferred(table)
    for task in shown["task"].unique(maintain_order=True):
        rows = shown.filter(task=task)
        body = [
            [strategy, *_quantities(rows.filter(strategy=strategy), list(titles))]
            for strategy in rows["strategy"].unique(maintain_order=True)
        ]
        lines += [
            f"## {TASK_TITLES.get(task, task)}: {METRIC_TITLES[rows['metric'][0]]}",
            "",
            markdown_table(["Strategy", *titles.values()], body),
        ]
    rows = preferred(control)
    body = [
        [
            row["finding"],
            row["strategy"],
            row["task"],
            with_interval(row["auroc"], row["low"], row["high"]),
            row["stays"],
        ]
        for row in rows.iter_rows(named=True)
    ]
    header = ["Finding", "Strategy", "Task it was trained on", "AUROC", "Stays"]
    lines += ["## Findings told from the image features", "", markdown_table(header, body, numbers_from=3)]
    return "\n".join(lines)


def _quantities(rows: pl.DataFrame, names: Sequence[str]) -> list[str]:
    found = {row["quantity"]: row for row in rows.iter_rows(named=True)}
    return [
        with_interval(found[name]["value"], found[name]["low"], found[name]["high"]) if name in found else ""
        for name in names
    ]
