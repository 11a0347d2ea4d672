"""Static covariates as model input: age, gender and admission group are three more variables, the same in every hour.

So every strategy sees them (`training.statics`) without knowing of them: as channels that are always observed, and gone
with the record where that is absent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.mimic.variables import Fill, Variable, load_variables

if TYPE_CHECKING:
    import polars as pl


def _static(name: str, kind: Literal["numeric", "category"], vocabulary: tuple[str, ...] = ()) -> Variable:
    return Variable(
        name=name,
        tier="core",
        source="derived",
        kind=kind,
        unit="",
        items=(),
        low=-math.inf,
        high=math.inf,
        aggregate="last",
        sum_at_least=-math.inf,
        fill=Fill(carry_hours=None, default="none" if vocabulary else "train_median"),
        vocabulary=vocabulary,
        texts=(),
        drop_texts=(),
        hours_before=0,
        steady=False,
        derive=None,
    )


# Columns of stays.parquet. What is not in the vocabulary is not observed.
STATICS = (
    _static("age", "numeric"),
    _static("gender", "category", ("F", "M")),
    _static("admission_group", "category", ("EMERGENCY", "OBSERVATION", "ELECTIVE")),
)


def model_variables(tier: str, statics: bool) -> tuple[Variable, ...]:
    """What models see: the variables of `series.tier`, and behind them the static ones where that is asked for."""
    return (*load_variables(tier), *(STATICS if statics else ()))


def static_values(stays: pl.DataFrame) -> np.ndarray[Any, Any]:
    """float32 [N, 3] of columns age, gender, admission_group: years, places in the vocabularies, NaN where unknown."""
    columns = []
    for variable in STATICS:
        entries = stays[variable.name].to_list()
        if variable.vocabulary:
            entries = [variable.vocabulary.index(e) if e in variable.vocabulary else None for e in entries]
        columns.append([math.nan if entry is None else float(entry) for entry in entries])
    return np.array(columns, np.float32).reshape(len(STATICS), -1).T
