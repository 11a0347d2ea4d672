"""The tables of the stage `forgetting`: their columns, and means over runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

KEPT, PLAIN, JOINT = "kept", "plain", "joint"  # as the paper has it; without; all at once, which forgets nothing
METHODS = (KEPT, PLAIN, JOINT)
KEY: dict[str, Any] = {"task": pl.String, "cohort": pl.String, "method": pl.String}
SCHEMAS: dict[str, dict[str, Any]] = {
    "forgetting_cmcl": KEY
    | {"step": pl.Int64, "pair": pl.String, "place": pl.Int64, "runs": pl.Int64}
    | dict.fromkeys(("recall_1", "recall_5", "chance_1", "drift", "directions"), pl.Float64),
    "forgetting_pal": KEY
    | {"phase": pl.Int64, "group": pl.Int64, "outputs": pl.String, "metric": pl.String, "runs": pl.Int64}
    | {"value": pl.Float64},
}


def over_runs(rows: Sequence[dict[str, Any]], name: str) -> pl.DataFrame:
    """The table `name`: a row a key, in the order of the first run; numbers are means over the runs that have them."""
    schema = SCHEMAS[name]
    measured = [column for column, kind in schema.items() if kind == pl.Float64]
    columns = {column: kind for column, kind in schema.items() if column != "runs"}
    found = pl.DataFrame(
        [{column: row.get(column) for column in columns} for row in rows], schema=columns, orient="row"
    )
    keys = [column for column in found.columns if column not in measured]
    means = [pl.col(column).mean() for column in measured]
    return found.group_by(keys, maintain_order=True).agg(pl.len().cast(pl.Int64).alias("runs"), *means).select(*schema)
