"""Writing: beside, then renamed; the same bytes for the same content. All that stages write goes through here.

What is being written is called `.NAME.OWNER.RANDOM.part`: several processes, of several machines, may write one NAME at
a time. They write the same bytes, and the last rename stays. A process that is killed leaves it behind; the next one
that writes NAME removes it, at once where it knows that the owner has ended (pipeline.owners), after a day where not.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import owners
from pipeline.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, over the quota, over the file size that is allowed
PROBE = 1 << 20  # bytes
DAY = 86_400.0  # seconds


@contextlib.contextmanager
def writing(path: Path | str, probe: Path | None = None) -> Iterator[None]:
    """A full or read-only disk, met in the block, is an InputError that names `path`.

    Libraries say it in their own words (Polars: "Invalid thrift"): where an error does not tell, the disk itself is
    asked, whether `probe`, which is thrown away afterwards, takes another MiB.
    """
    path = Path(path)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        told = next((text for text in map(os.strerror, FULL) if text in str(error)), "")
        why = told or _refusal(probe or beside(path))
        if not why:
            raise
        raise InputError(f"{path}: cannot be written: {why}") from None


def _refusal(probe: Path) -> str:
    """Why the system does not let us write to `probe`; empty where it does."""
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        with probe.open("ab") as file:
            file.write(bytes(PROBE))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return ""


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what spreadsheets take for a formula's beginning


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` when the block ends well, and is removed when it does not.

    Raises InputError, naming `path`, where the disk is full or cannot be written to.
    """
    path = Path(path)
    part = beside(path)
    try:
        with writing(path, part):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_left(path.parent, path.name)
            yield part
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch(path: Path | str) -> Iterator[Path]:
    """An empty folder beside `path`, removed at the end unless the block has renamed it. Raises as `atomic` does."""
    path = Path(path)
    part = beside(path)
    try:
        with writing(part, part / "probe"):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_left(path.parent, path.name)
            part.mkdir()
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def beside(path: Path) -> Path:
    """A new name beside `path`, in no other use; `remove_left` knows it."""
    return path.with_name(f".{path.name}.{owners.this_process()}.{secrets.token_hex(4)}.part")


def remove_left(folder: Path, name: str | None = None, idle: float = DAY) -> None:
    """What processes that were killed have left of `name` in `folder`, or of every name.

    What a process of this machine writes is left of a dead one alone; of another machine, it is what was not written to
    for `idle` seconds.
    """
    for part in folder.glob(f".{glob.escape(name) if name else '*'}.*.part"):
        owner = part.name.removesuffix(".part").rpartition(".")[0].rpartition(".")[2]
        with contextlib.suppress(FileNotFoundError):
            old = owners.elsewhere(owner) and time.time() - part.stat().st_mtime > idle
            if not old and not owners.gone(owner):
                continue
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink()


def flush(*paths: Path) -> None:
    """The files `paths`, and their names, are on the disk when this returns: they outlive a power cut.

    Raises InputError where a disk turns out to be full only now, as network file systems do.
    """
    for path in paths:
        with writing(path), path.open("rb") as file:
            os.fsync(file.fileno())
    for folder in {path.parent for path in paths}:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # of a folder, not every file system can
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(text: str, path: Path | str) -> None:
    """UTF-8 text with Unix line ends."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(content: Any, path: Path | str, digits: int = 6) -> None:
    """JSON with sorted keys; floats rounded to `digits` decimals; NaN and infinities are refused (ValueError)."""
    write_text(
        json.dumps(_rounded(content, digits), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n",
        path,
    )


def write_yaml(content: Any, path: Path | str) -> None:
    """YAML in block style, keys in their order; floats as they are."""
    import yaml

    write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), path)


def _rounded(content: Any, digits: int) -> Any:
    if isinstance(content, dict):
        return {str(key): _rounded(value, digits) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value, digits) for value in content]
    return round(content, digits) + 0.0 if isinstance(content, float) else content  # + 0.0: no negative zero


def significant(frame: pl.DataFrame, digits: int = 9) -> pl.DataFrame:
    """The frame with float64 rounded to significant digits.

    For what numpy, scipy or scikit-learn has computed: an exponential's last bits follow from the vector instructions
    that the processor has, and with them the bytes of a file.
    """
    import polars as pl

    return frame.with_columns(pl.col(pl.Float64).round_sig_figs(digits))


def write_parquet(frame: pl.DataFrame, path: Path | str) -> None:
    """Parquet, zstd, rows in the frame's order: the caller sorts by a total key."""
    with atomic(path) as part:
        frame.write_parquet(part, compression="zstd", compression_level=3, statistics=True, row_group_size=262_144)


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
    with atomic(path) as part:
        safe_csv(frame).write_csv(part, float_precision=digits)


def write_array(array: np.ndarray[Any, Any], path: Path | str) -> None:
    """A .npy file, to be opened with `np.load(path, mmap_mode="r")`."""
    import numpy as np

    with atomic(path) as part, part.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def create_array(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap[Any, Any]:
    """A memory-mapped .npy that takes its room on the disk at once: later, a full one would kill us in mid-write."""
    import numpy as np

    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
