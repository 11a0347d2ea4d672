"""What the page tells of ensembles: who has which weight, and what each line scores; from ensemble.csv."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.ensembles.weights import LINES, PRESENCES, SCHEMAS
from pipeline.evaluation.reading import read_table
from pipeline.params import Grid
from pipeline.presentation.answers import AnswerTable, Value
from pipeline.presentation.tables import METRIC_TITLES, Cell
from pipeline.questions.which.text import groups, title_of
from pipeline.tasks import get_task

TITLES = dict(zip(LINES, ("(best single)", "(unweighted mean)", "(greedy selection)", "(TPE)"), strict=True))
WHERE = dict(zip(PRESENCES, ("with an image", "without"), strict=True))
SCORES = ("validation", "test", "optimism")
NOTE = (
    "Each component alone with its weight, then what was made of them; means over runs. {0} on the validation stays, "
    "where the weights were chosen, and on the test stays; optimism: the first less the second. What predicts: {1}. "
    "The trials of one run's searches stand in search.csv."
)


def ensemble_tables(tables: Path, grid: Grid) -> list[AnswerTable]:
    """A table an ensemble, task and cohort. Raises InputError where ensemble.csv is needed and missing."""
    if not grid.ensembles:
        return []
    found = []
    read = read_table(tables / "ensemble.csv", SCHEMAS["ensemble"]).filter(pl.col("ensemble").is_in(grid.ensembles))
    for (name, task, cohort), rows in groups(read, "ensemble", "task", "cohort"):
        header = ("Component", *(f"{each}, {where}" for where in WHERE.values() for each in ("Weight", *_titles())))
        used = rows.filter("used")["component"].unique(maintain_order=True)
        metric = METRIC_TITLES[get_task(task).monitor] if rows["metric"][0] == "monitor" else "Log likelihood"
        note = NOTE.format(metric, ", ".join(TITLES[each].strip("()") for each in used))
        body = tuple(_line(component, each) for (component,), each in groups(rows, "component"))
        title = f"{name}: {title_of(task, cohort)}"
        found.append(AnswerTable(title, note, header, body, "tables/ensemble.csv", "ensemble"))
    return found


def _titles() -> list[str]:
    return [name.capitalize() for name in SCORES]


def _line(component: str, rows: pl.DataFrame) -> tuple[Value, ...]:
    found: list[Value] = [TITLES.get(component, component)]
    for presence in PRESENCES:
        means = [rows.filter(presence=presence)[name].mean() for name in ("weight", *SCORES)]
        cells = [Cell(float(value) if isinstance(value, float) else None, None, None) for value in means]
        found += ["–" if cells[0].value is None else cells[0], *cells[1:]]  # what is no component has no weight
    return tuple(found)
