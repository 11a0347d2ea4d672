"""Writing: beside, then renamed; the same bytes for the same content. All that stages write goes through here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what spreadsheets take for a formula's beginning


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` when the block ends well, and is removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(text: str, path: Path | str) -> None:
    """UTF-8 text with Unix line ends."""
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(content: Any, path: Path | str, digits: int = 6) -> None:
    """JSON with sorted keys; floats rounded to `digits` decimals; NaN and infinities are refused (ValueError)."""
    write_text(
        json.dumps(_rounded(content, digits), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n",
        path,
    )


def _rounded(content: Any, digits: int) -> Any:
    if isinstance(content, dict):
        return {str(key): _rounded(value, digits) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value, digits) for value in content]
    return round(content, digits) + 0.0 if isinstance(content, float) else content  # + 0.0: no negative zero


def write_parquet(frame: pl.DataFrame, path: Path | str) -> None:
    """Parquet, zstd, rows in the frame's order: the caller sorts by a total key."""
    with atomic(path) as beside:
        frame.write_parquet(beside, compression="zstd", compression_level=3, statistics=True, row_group_size=262_144)


def safe_csv(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with an apostrophe before every text that a spreadsheet would run as a formula."""
    import polars as pl

    return frame.with_columns(
        pl.when(pl.any_horizontal(pl.col(name).str.starts_with(sign) for sign in FORMULA))
        .then(pl.concat_str(pl.lit("'"), pl.col(name)))
        .otherwise(pl.col(name))
        .alias(name)
        for name, kind in frame.schema.items()
        if kind == pl.String
    )


def write_csv(frame: pl.DataFrame, path: Path | str, digits: int = 6) -> None:
    """CSV with floats rounded to `digits` decimals; null is an empty field, and text is text to a spreadsheet, too."""
    with atomic(path) as beside:
        safe_csv(frame).write_csv(beside, float_precision=digits)


def write_array(array: np.ndarray[Any, Any], path: Path | str) -> None:
    """A .npy file, to be opened with `np.load(path, mmap_mode="r")`."""
    import numpy as np

    with atomic(path) as beside, beside.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
