"""Tables as csv.gz: the real files' date formats and header, the same bytes for the same rows."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from pipeline import files

LEVEL = 1  # the files are read once and thrown away: speed counts


def stamp(frame: pl.DataFrame, *times: str, dates: tuple[str, ...] = ()) -> pl.DataFrame:
    """Seconds (and days, for `dates`) since 1970 as text: `2180-07-23 14:12:00`, `2180-07-23`."""
    return frame.with_columns(
        *[pl.from_epoch(pl.col(name), time_unit="s").dt.strftime("%Y-%m-%d %H:%M:%S") for name in times],
        *[pl.col(name).cast(pl.Int32).cast(pl.Date).dt.strftime("%Y-%m-%d") for name in dates],
    )


def write(frames: Iterable[pl.DataFrame], path: Path) -> int:
    """Write frames of the same columns one after the other under one header; returns the number of rows."""
    rows = 0
    with (
        files.atomic(path) as beside,
        beside.open("wb") as raw,
        # no name and no time in the gzip header: the bytes are those of the content
        gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=raw, mtime=0) as out,
    ):
        for i, frame in enumerate(frames):
            buffer = io.BytesIO()
            frame.write_csv(buffer, include_header=i == 0)
            out.write(buffer.getvalue())
            rows += frame.height
    return rows
