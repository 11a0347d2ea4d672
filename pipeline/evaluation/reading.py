"""Reading what other stages wrote: what is absent, or has another shape, is an InputError that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import InputError


def there(path: Path) -> Path:
    """`path`. Raises InputError where there is no such file."""
    if not path.is_file():
        raise InputError(f"{path}: not found; run the stage that writes it (dvc repro)")
    return path


def _refused(path: Path, error: pl.exceptions.PolarsError) -> InputError:
    return InputError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}")


def read_columns(path: Path, columns: list[str]) -> pl.DataFrame:
    """Columns of a Parquet or CSV file. Raises InputError where it or one of them is absent."""
    parquet = there(path).suffix == ".parquet"
    try:
        header = pl.read_parquet_schema(path) if parquet else pl.read_csv(path, n_rows=0).schema
        absent = [name for name in columns if name not in header]
        if absent:
            raise InputError(f"{path}: no column {absent[0]}")
        return pl.read_parquet(path, columns=columns) if parquet else pl.read_csv(path, columns=columns)
    except pl.exceptions.PolarsError as error:
        raise _refused(path, error) from None


def read_table(path: Path, schema: dict[str, Any]) -> pl.DataFrame:
    """The columns `schema` of a table as its stage wrote it; an empty field is null. Raises InputError as above."""
    try:
        return pl.read_csv(there(path), schema_overrides=schema).select(*schema)
    except pl.exceptions.PolarsError as error:
        raise _refused(path, error) from None


def read_probe(data: Path, strategy: str, name: str) -> pl.DataFrame:
    """removal, swaps or image_control.parquet of a strategy's probe, ids wide. Raises InputError where it is absent."""
    frame = pl.read_parquet(there(data / "probes" / strategy / f"{name}.parquet"))
    return frame.with_columns(pl.col("fold", "seed", "stay_id").cast(pl.Int64), pl.col("^train_missing$").round(6))
