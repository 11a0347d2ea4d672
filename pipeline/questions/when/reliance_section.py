"""What scores rest on, for question 1 on the page: figures and tables from those of the stage `reliance`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.evaluation.reading import read_table
from pipeline.presentation.answers import AnswerFigure, AnswerTable, Value
from pipeline.presentation.tables import HEADLINE_ORDER, METRIC_TITLES, Cell, preferred, short_title
from pipeline.presentation.text import plural
from pipeline.questions.when.control import BOUNDED
from pipeline.questions.when.control import SCHEMA as CONTROL
from pipeline.questions.when.figures import shapley
from pipeline.questions.when.reliance import RELIANCE

STAGE = "reliance"
COLUMNS = {
    "full": "Score",
    "emap": "Additive projection (EMAP)",
    "interaction": "From interaction",
    "shapley_ehr": "Shapley value, EHR",
    "shapley_cxr": "Shapley value, image",
    "branch_ehr": "EHR branch alone",
    "branch_cxr": "Image branch alone",
}


def reliance(tables: Path) -> tuple[tuple[AnswerFigure, ...], tuple[AnswerTable, ...]]:
    """Figures and tables, models trained on the matched cohort; empty where the grid holds no fusion strategy.

    Raises InputError where a table is absent or cannot be read.
    """
    table = preferred(read_table(tables / "reliance.csv", RELIANCE))
    control = preferred(read_table(tables / "image_control.csv", CONTROL))
    figures, found = [], []
    for task in (task for task in HEADLINE_ORDER if task in table["task"].to_list()):
        rows = table.filter(task=task)
        short, metric = short_title(task), METRIC_TITLES[rows["metric"][0]]
        if rows["value"].null_count() < rows.height:
            name = f"reliance_{task}"
            title = f"{short}: what the score rests on"
            caption = (
                f"Exact Shapley values of the two modalities over {plural(rows['stays'][0], 'test stay')} with an "
                "image, from records and images permuted among them."
            )
            svg = shapley(rows, metric, name, title)
            figures.append(AnswerFigure(name, svg, caption, "tables/reliance.csv"))
        found.append(_table(rows, f"{short}: {metric} and what it rests on"))
    if control.height:
        found.append(_control(control))
    return tuple(figures), tuple(found)


def _table(rows: pl.DataFrame, title: str) -> AnswerTable:
    columns = {key: name for key, name in COLUMNS.items() if key in rows["quantity"].to_list()}
    body: list[tuple[Value, ...]] = []
    for strategy in rows["strategy"].unique(maintain_order=True):
        own = {
            row["quantity"]: Cell(row["value"], row["low"], row["high"])
            for row in rows.filter(strategy=strategy).to_dicts()
        }
        body.append((strategy, *(own.get(key, "–") for key in columns)))
    return AnswerTable(
        title=title,
        note="An additive projection as good as the model says that it makes no use of how record and image interact.",
        header=("Strategy", *columns.values()),
        rows=tuple(body),
        source="tables/reliance.csv",
        stage=STAGE,
    )


def _control(control: pl.DataFrame) -> AnswerTable:
    tasks = [task for task in HEADLINE_ORDER if task in control["task"].to_list()]
    body: list[tuple[Value, ...]] = []
    for finding, strategy in control.select("finding", "strategy").unique(maintain_order=True).rows():
        own = {row["task"]: row for row in control.filter(finding=finding, strategy=strategy).to_dicts()}
        cells: list[Value] = []
        for task in tasks:
            for name in ("auroc", "untrained"):
                cells.append(Cell(*(own[task][f"{name}{end}"] for end in BOUNDED)) if task in own else "–")
        body.append((strategy, finding, *cells))
    return AnswerTable(
        title="Findings of the radiology report, told from the image features",
        note="AUROC of a logistic regression on the frozen image encoder's features, by the task it was trained on; "
        "CheXpert labels, uncertain and unmentioned ones left out. Untrained: of the same encoder before training.",
        header=("Strategy", "Finding", *(f"{short_title(t)}{of}" for t in tasks for of in ("", ", untrained"))),
        rows=tuple(body),
        source="tables/image_control.csv",
        stage=STAGE,
    )
