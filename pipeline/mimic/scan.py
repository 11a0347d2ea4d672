"""The raw files as bytes, each read once: SHA-256 of all; of needed tables whether they can be text, and their rows.

Several at a time, in bounded memory: hashing and decompression leave the other threads to their work. What was found in
a file is remembered until the file changes, for whoever asks every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from pipeline import files
from pipeline.errors import InputError
from pipeline.mimic import rawfile
from pipeline.mimic.rawfile import Lines, readable, text_of

THREADS = min(os.cpu_count() or 1, 8)
BUFFER = 1 << 20  # bytes of a file that are read and hashed at a time

Found = dict[str, Any]  # bytes, sha256 and, of a needed table, rows
Known = dict[str, dict[str, Any]]  # absolute path -> identity, found


class _StoppedError(Exception):
    """Another file is at fault, or the user has had enough."""


def scan(needed: Mapping[Path, bool], memory: Path | None = None) -> dict[Path, Found]:
    """What every file holds; `needed` maps paths to whether they are needed tables. The first one's fault is told.

    `memory` names a JSON file: what is known there of a file that has not changed is not read again, and what is found
    goes there, even where another file is at fault. Raises InputError where a file cannot be read, or a needed table is
    damaged, no text or without rows.
    """
    identities, known, found = {}, _recall(memory), dict[Path, Found]()
    for path, need in needed.items():
        identities[path] = _identity(path, need)
        if known.get(str(path.absolute()), {}).get("identity") == identities[path]:
            found[path] = known[str(path.absolute())]["found"]
    try:
        _scan_all({path: need for path, need in needed.items() if path not in found}, found)
    finally:
        if memory is not None:
            news = {str(path.absolute()): {"identity": identities[path], "found": found[path]} for path in found}
            _remember(memory, {**known, **news})
    return found


def _scan_all(needed: Mapping[Path, bool], found: dict[Path, Found]) -> None:
    """Add to `found` what the files hold; where one is at fault, of those that were done by then."""
    if not needed:
        return
    sizes = {path: path.stat().st_size for path in needed}
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
            for path in needed:
                found[path] = futures[path].result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            done = {path: future for path, future in futures.items() if not future.cancelled()}
            found |= {path: future.result() for path, future in done.items() if not future.exception()}
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


def _identity(path: Path, needed: bool) -> list[int]:
    """What is another number where the file has changed: the time is that of the last change of whatever, in ns."""
    with readable(path):
        status = path.stat()
    return [status.st_size, status.st_ctime_ns, status.st_ino, int(needed)]


def _code() -> str:
    """Of the code that decides what is found."""
    return "".join(files.sha256(source) for source in (__file__, rawfile.__file__))


def _recall(memory: Path | None) -> Known:
    """Of no use, and empty, where the code is another or the file is damaged."""
    try:
        content = json.loads(memory.read_text(encoding="utf-8")) if memory else {}
        return dict(content["files"]) if content.get("code") == _code() else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def _remember(memory: Path, known: Known) -> None:
    """Of files that are still there. Where that cannot be written, the next one reads them again."""
    there = {path: entry for path, entry in known.items() if Path(path).exists()}
    with contextlib.suppress(InputError):
        files.write_json({"code": _code(), "files": there}, memory)
