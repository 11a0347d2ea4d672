"""The raw files as bytes, each read once: SHA-256 of all; of needed tables whether they can be text, and their rows.

Several at a time, in bounded memory: hashing and decompression leave the other threads to their work.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from pipeline.errors import InputError
from pipeline.mimic.rawfile import Lines, readable, text_of

THREADS = min(os.cpu_count() or 1, 8)
BUFFER = 1 << 20  # bytes of a file that are read and hashed at a time

Found = dict[str, Any]  # bytes, sha256 and, of a needed table, rows


class _StoppedError(Exception):
    """Another file is at fault, or the user has had enough."""


def scan(needed: Mapping[Path, bool]) -> dict[Path, Found]:
    """What every file holds; `needed` maps paths to whether they are needed tables. The first one's fault is told.

    Raises InputError where a file cannot be read, or a needed table is damaged, no text or without rows.
    """
    sizes = {}
    for path in needed:
        with readable(path):
            sizes[path] = path.stat().st_size
    stop, lock = threading.Event(), threading.Lock()
    with (
        tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, desc="hashing", delay=2) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):

        def read(count: int) -> None:
            if stop.is_set():
                raise _StoppedError
            with lock:
                bar.update(count)

        largest_first = sorted(needed, key=lambda path: -sizes[path])  # or it would be read alone, at the end
        futures = {path: pool.submit(_scan, path, needed[path], read) for path in largest_first}
        try:
            return {path: futures[path].result() for path in needed}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class _Hashing(io.RawIOBase):
    """A file that hashes what is read from it, in order, and tells how much that was."""

    def __init__(self, file: IO[bytes], read: Callable[[int], None]) -> None:
        self.file, self.read_so_far, self.sha256 = file, read, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer)  # type: ignore[attr-defined]
        self.sha256.update(memoryview(buffer)[:count])
        self.read_so_far(count)
        return int(count)


def _scan(path: Path, needed: bool, read: Callable[[int], None]) -> Found:
    """Size and SHA-256; of a needed table also its number of rows (lines after the header), checked as text."""
    with readable(path), path.open("rb", buffering=0) as file:
        hashing = _Hashing(file, read)
        buffered = io.BufferedReader(hashing, BUFFER)
        result: Found = {"bytes": path.stat().st_size}
        if needed:
            lines = Lines(path)
            for chunk in text_of(path, buffered):
                lines.feed(chunk)
            lines.end()
            result["rows"] = lines.count - 1
        while buffered.read(BUFFER):
            pass
        result["sha256"] = hashing.sha256.hexdigest()
    if needed and result["rows"] < 1:
        raise InputError(f"{path}: has no rows")
    return result
