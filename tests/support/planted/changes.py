"""What the planted leaks share: changes of one row, and where a certain stay is."""

from __future__ import annotations

from typing import Any

import polars as pl

from pipeline.data.audit import Artefacts


def where(frame: pl.DataFrame, name: str, row: int, value: Any) -> pl.DataFrame:
    """`frame` with `value` (an expression or a literal) in one row of a column."""
    chosen = pl.int_range(pl.len()) == row
    value = value if isinstance(value, pl.Expr) else pl.lit(value)
    return frame.with_columns(pl.when(chosen).then(value).otherwise(pl.col(name)).alias(name))


def column_of(a: Artefacts, name: str) -> int:
    return [variable.name for variable in a.variables].index(name)


def common_label(a: Artefacts) -> str:
    """The boolean label that is nearest to one in two."""
    names = [name for name, kind in a.labels.schema.items() if kind == pl.Boolean]
    return min(names, key=lambda name: abs(a.labels[name].mean() - 0.5))


def of_several_admissions(a: Artefacts, *parts: str) -> pl.DataFrame:
    """Rows of the splits' fold 0 of a subject with two admissions in the cohort, that is in one of `parts`."""
    rows = a.splits.filter(pl.col("fold") == 0, pl.col("part").is_in(parts)).join(a.stays, on="stay_id")
    several = rows.filter(pl.col("hadm_id").n_unique().over("subject_id") > 1)
    return several.filter(pl.col("subject_id") == several["subject_id"][0])


def moved(a: Artefacts, fold: int, stays: pl.Series, part: str) -> dict[str, Any]:
    """The splits with these stays in another part of the fold."""
    chosen = (pl.col("fold") == fold) & pl.col("stay_id").is_in(stays.to_list())
    return {"splits": a.splits.with_columns(part=pl.when(chosen).then(pl.lit(part)).otherwise("part"))}
