"""The answers of the page, in its order: which module answers from which tables and knobs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.presentation.answers import Answer
from pipeline.questions.fair import section as fair
from pipeline.questions.known import section as known
from pipeline.questions.robust import section as robust
from pipeline.questions.when import section as when
from pipeline.questions.when.reliance_section import reliance
from pipeline.questions.which import section as which


def trials_of_each(tables: Path, params: dict[str, Any]) -> int | None:
    """How many trials of tuning every strategy had on every task: 0 untuned, None if their numbers differ."""
    return which.trials_of_each(tables, params["grid"])


def answers(tables: Path, params: dict[str, Any]) -> list[Answer]:
    """The four answers and, where the truth was planted, how they compare with it; `tables` is reports/tables.

    Raises InputError where a table is missing.
    """
    confidence, rule = params["evaluation"].confidence, params["verdicts"]
    helps = when.answer(tables, rule)
    figures, found = reliance(tables)
    truth = known.answer(tables, rule)
    return [
        dataclasses.replace(helps, figures=(*helps.figures, *figures), tables=(*helps.tables, *found)),
        which.answer(tables, params["grid"], params["evaluation"], params["compare"]),
        robust.answer(tables, confidence),
        fair.answer(tables, params["fairness"], confidence),
        *([] if truth is None else [truth]),
    ]
