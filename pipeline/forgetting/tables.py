"""The tables of the stage `forgetting`: their columns, means over runs, and intervals of what was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.variance import estimate

KEPT, PLAIN, JOINT = "kept", "plain", "joint"  # as the paper has it; without; all at once, which forgets nothing
METHODS = (KEPT, PLAIN, JOINT)
MEAN = "mean"  # over the groups or pairs so far; their number is then 0
KEY: dict[str, Any] = {"task": pl.String, "cohort": pl.String, "method": pl.String}


def _scored(name: str) -> dict[str, Any]:
    """A score, and what was lost of it since it was learned, with its interval."""
    return dict.fromkeys((name, f"{name}_lost", f"{name}_lost_low", f"{name}_lost_high"), pl.Float64)


SCHEMAS: dict[str, dict[str, Any]] = {
    "forgetting_cmcl": KEY
    | {"step": pl.Int64, "pair": pl.String, "place": pl.Int64, "runs": pl.Int64}
    | _scored("recall_1")
    | _scored("recall_5")
    | dict.fromkeys(("chance_1", "drift", "directions"), pl.Float64),
    "forgetting_pal": KEY
    | {"phase": pl.Int64, "group": pl.Int64, "outputs": pl.String, "metric": pl.String, "runs": pl.Int64}
    | _scored("value"),
}


def mean_row(rows: Sequence[dict[str, Any]], **about: Any) -> dict[str, Any]:
    """The mean of rows of one run and time, over those that have a number; `about` names it."""
    told = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, float | np.ndarray))
    means = {name: np.mean([row[name] for row in rows if row.get(name) is not None], axis=0) for name in told}
    return rows[0] | means | about


def over_runs(rows: Sequence[dict[str, Any]], name: str, test_share: float, confidence: float) -> pl.DataFrame:
    """The table `name`: a row a key, in the order of the first run; numbers are means over the runs that have them.

    What is scored comes as draws of its run, [1 + D], the sample first. Those of a loss are paired: both scores have
    the draw's subjects. Its interval holds patients, seeds and splits (estimation.variance), from the rows' `fold`.
    """
    schema = SCHEMAS[name]
    keys = [column for column, kind in schema.items() if kind != pl.Float64 and column != "runs"]
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in keys), []).append(row)
    table = []
    for key, of_runs in found.items():
        line = dict.fromkeys(schema) | dict(zip(keys, key, strict=True)) | {"runs": len(of_runs)}
        for column in schema:
            told = [row for row in of_runs if row.get(column) is not None]
            if column in keys or not told:
                continue
            draws = np.array([np.atleast_1d(row[column]) for row in told])
            line[column] = float(draws[:, 0].mean())
            if f"{column}_low" in schema:
                lost = estimate(draws, [row["fold"] for row in told], test_share)
                line[f"{column}_low"], line[f"{column}_high"] = lost.interval(confidence)
        table.append(line)
    return pl.DataFrame(table, schema=schema, orient="row")
