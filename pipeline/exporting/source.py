"""What every export reads and how its folder comes about: packed data that passed the audit; whole, and out of git."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import files
from pipeline.errors import InputError
from pipeline.mimic.variables import Variable, load_variables
from pipeline.params import Series
from pipeline.strict import build


def require(data: Path, *names: str) -> None:
    """Raises InputError where a file below `data` is absent, or the audit has not passed."""
    for name in (*names, "audit.ok"):
        if not (data / name).is_file():
            raise InputError(f"{data / name}: not found; make the data first: dvc repro audit")


def series_rules(data: Path) -> Series:
    """The block `series` by which the series were made."""
    path = data / "series/rules.json"
    require(data, "series/rules.json")
    try:
        found: Series = build(Series, json.loads(path.read_text(encoding="utf-8")), "series")
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return found


def packed_series(data: Path) -> tuple[np.ndarray[tuple[int, int, int], np.dtype[np.float32]], tuple[Variable, ...]]:
    """The hourly values [N, 48, V] in the order of stays.parquet, memory-mapped, and their V variables."""
    require(data, "series/values.npy")
    variables = load_variables(series_rules(data).tier)
    values = np.load(data / "series/values.npy", mmap_mode="r")
    if values.shape[2] != len(variables):
        raise InputError(f"{data}/series/values.npy: holds {values.shape[2]} variables, its tier has {len(variables)}")
    return values, variables


def folds_of(data: Path) -> list[int]:
    """The folds of splits.parquet, ascending."""
    require(data, "splits.parquet")
    return pl.read_parquet(data / "splits.parquet", columns=["fold"])["fold"].unique().sort().to_list()


def parts_of(data: Path, fold: int | None) -> pl.DataFrame:
    """stay_id, subject_id and part (train, val, test, dev) in a fold, sorted by stay_id; of the first where it is None.

    Raises InputError where there is no such fold.
    """
    folds = folds_of(data)
    chosen = folds[0] if fold is None else fold
    if chosen not in folds:
        raise InputError(f"--fold: {chosen}: not in {data}/splits.parquet, which has {', '.join(map(str, folds))}")
    splits = pl.read_parquet(data / "splits.parquet").filter(pl.col("fold") == chosen)
    return splits.select("stay_id", "subject_id", "part").sort("stay_id")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `out` when the block ends well and is gone when it does not.

    Raises InputError where `out` holds something already, or would be seen by git: rows of patients must not enter it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out: {out}: is there already; name a new folder")
    _refuse_git(out)
    with files.scratch(out) as part:
        yield part
        part.replace(out)


def _refuse_git(out: Path) -> None:
    whole = out.resolve()
    root = next((folder for folder in whole.parents if (folder / ".git").exists()), None)
    if root is None:
        return
    try:
        asked = subprocess.run(["git", "-C", root, "check-ignore", "-q", whole / "any"], capture_output=True)
        ignored = asked.returncode == 0
    except OSError:  # no git that could be asked
        ignored = False
    if not ignored:
        raise InputError(f"--out: {out}: the git repository {root} would take it in; name a folder outside, or ignored")
