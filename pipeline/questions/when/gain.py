"""The tables of question 1, when fusion helps: fusion against the best on either modality, and what chose them.

*Confirmatory* is one comparison a task, cohort and label: the fusion strategy that validation chooses of the candidates
declared in `verdicts.fusion`, against what it chooses of as many on the record and of those on the image. Verdicts are
of this family, all at once. All the rest of the grid is exploratory, and has none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipeline.estimation.verdicts import judge
from pipeline.evaluation.choice import NOTHING
from pipeline.evaluation.paired import Cell
from pipeline.evaluation.scores import headline, metrics_of
from pipeline.questions.when import control
from pipeline.questions.when.contest import (
    CONFIRMATORY,
    SCHEMA,
    VARIANCE_SCHEMA,
    Contest,
    Entry,
    Side,
    fill,
    read_sides,
    unchosen,
    variance_rows,
)
from pipeline.questions.when.source import ROLES, Source, cells
from pipeline.tasks import Task, get_task

log = logging.getLogger(__name__)

CHOSEN_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "label", "role", "strategy", "metric"), pl.String),
    "validation": pl.Float64,
    "loss": pl.Float64,
    "chosen": pl.Boolean,
}


@dataclass(frozen=True)
class Gain:
    """The tables gain, chosen (by validation), variance (of the confirmatory differences) and image_use."""

    table: pl.DataFrame
    chosen: pl.DataFrame
    variance: pl.DataFrame
    use: pl.DataFrame


def gain(known: Source) -> Gain:
    """The tables, from the cells that the grid names. Raises InputError as `cells.read_predictions` does."""
    use = control.image_use(known)
    entries: list[Entry] = []
    choices: list[dict[str, Any]] = []
    for name in known.grid.tasks:
        found, chosen = _of_task(known, get_task(name), use)
        entries += found
        choices += chosen
    confirmed = [entry for entry in entries if entry.row["family"] == CONFIRMATORY]
    verdicts = judge([entry.case for entry in confirmed], known.rule, known.evaluation.seed)
    for entry, each in zip(confirmed, verdicts, strict=True):
        bounds = {"family_low": each.low, "family_high": each.high, "p_gain": each.gain_p, "p_loss": each.loss_p}
        entry.row |= {name: value if math.isfinite(value) else None for name, value in bounds.items()}
        entry.row |= {"verdict": each.word, "beyond": each.beyond}
    fill(confirmed, known.rule)
    variances = [row for entry in confirmed for row in variance_rows(entry)]
    return Gain(
        pl.DataFrame([entry.row for entry in entries], schema=SCHEMA, orient="row"),
        pl.DataFrame(choices, schema=CHOSEN_SCHEMA, orient="row"),
        pl.DataFrame(variances, schema=VARIANCE_SCHEMA, orient="row"),
        use,
    )


def _of_task(known: Source, task: Task, use: pl.DataFrame) -> tuple[list[Entry], list[dict[str, Any]]]:
    """(rows of gain.csv, rows of chosen.csv), cohort by cohort."""
    found: dict[str, list[Entry]] = {str(cohort): [] for cohort in known.training.cohorts}
    contests: dict[str, Contest] = {}
    choices = []
    for cohort, (of, chosen) in read_sides(known, task).items():
        choices += _choices(task, cohort, of, known.candidates(), chosen)
        fusion = chosen.pop("fusion", None)
        if fusion is None or "single" not in chosen:
            found[cohort] += unchosen(known, task, cohort) if all(known.candidates().values()) else []
        if "single" not in chosen:
            continue
        contests[cohort] = Contest(known, task, cohort, chosen)
        if fusion:
            entries = contests[cohort].compare(fusion, None, control.passed(use, task.name, cohort))
            fill([entry for entry in entries if entry.row["family"] != CONFIRMATORY], known.rule)
            found[cohort] += entries
    for name in known.fusion() if contests else ():
        log.info("%s %s", name, task.name)
        for cohort, cell in cells(known, task, name):
            if cohort in contests:
                own = Side(dict.fromkeys((*task.labels, headline(task)), name), cell.runs)
                entries = contests[cohort].compare(own, name, {})
                fill(entries, known.rule)
                found[cohort] += entries
    return [entry for each in found.values() for entry in each], choices


def _choices(
    task: Task, cohort: str, of: Mapping[str, Cell], candidates: Mapping[str, list[str]], chosen: Mapping[str, Side]
) -> list[dict[str, Any]]:
    labels = list(dict.fromkeys((*(task.labels if task.kind != "multiclass" else ()), headline(task))))
    rows = []
    for label in labels:
        for role in ROLES:
            for name in candidates[role]:
                found = of[name].validation.get(label, NOTHING)
                rows.append(
                    {
                        "task": task.name,
                        "cohort": cohort,
                        "label": label,
                        "role": role,
                        "strategy": name,
                        "metric": metrics_of(task)[0],
                        "validation": found.score,
                        "loss": found.loss,
                        "chosen": role in chosen and chosen[role].choice[label] == name,
                    }
                )
    return rows
