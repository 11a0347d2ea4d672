"""A compressed CSV file as pipes that DuckDB parses side by side: ISA-L inflates faster, and leaves it to parse.

What comes out of a pipe is a CSV file of its own: the header, and some of the rows, as they come. Where a file is
damaged, or its rows cannot be told apart for certain, nothing is said here: the file itself is to be read then, whose
faults DuckDB names line by line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from pipeline.errors import InputError
from pipeline.mimic.rawfile import MAX_LINE, text_of

MOST = 8  # pipes: one thread inflates as fast as some five parse
QUOTE = ord('"')
BEFORE_QUOTE = np.frombuffer(b',\n"', np.uint8)
HELD = MAX_LINE + (1 << 22)  # bytes at most of rows that have not ended
CAPACITY = 1 << 20  # bytes of a pipe where the system lets us choose: at 64 kB threads would wait for each other
PATIENCE_SECONDS = 0.01


class UncertainError(ValueError):
    """Where the rows of a text end is not told by its line ends and well-placed quotes."""


def pieces(path: Path, file: IO[bytes]) -> Iterator[bytes | memoryview]:
    """The text of an open file, cut where rows end: the line of its header first, then some rows at a time.

    Raises UncertainError at a carriage return, at a quote inside of a field without quotes, and where no row ends for
    HELD bytes; InputError as `text_of` does.
    """
    text, header = b"", b""
    for chunk in text_of(path, file):
        text += chunk
        if not header and b"\n" in text:
            line, end, text = text.partition(b"\n")
            yield (header := line + end)
        if ended := header and _end_of_rows(text):
            yield memoryview(text)[:ended]
            text = text[ended:]
        elif len(text) > HELD:
            raise UncertainError
    if text:
        text += b"\n"
        if not _end_of_rows(text):
            raise UncertainError
        yield text


def _end_of_rows(text: bytes) -> int:
    """Where the last line of `text` ends, which begins with a row, if it ends a row; otherwise 0."""
    if b"\r" in text:
        raise UncertainError
    ended = text.rfind(b"\n") + 1
    if not ended or b'"' not in text:
        return ended
    signs = np.frombuffer(text, np.uint8, ended)
    quotes = np.flatnonzero(signs == QUOTE)
    opening = quotes[::2]  # a field, or, right behind another quote, the rest of it
    if not np.isin(signs[opening - 1], BEFORE_QUOTE).all():  # before the first sign of all: the last one, a line end
        raise UncertainError
    return 0 if quotes.size % 2 else ended


class Pipes:
    """The rows of a gz file dealt to named pipes in a folder, each to whichever is read; a context in which to read.

    `check`, once the pipes were read to their ends, raises where what came out of them is not all of the file. Raises
    OSError where the folder can hold no pipes.
    """

    def __init__(self, path: Path, folder: Path, count: int) -> None:
        self.path, self.size = path, max(path.stat().st_size, 1)
        self.paths = [folder / f"{path.stem}.{i}" for i in range(min(count, MOST))]
        self.read = 0
        self.header: bytes | memoryview = b""
        self.fault: Exception | None = None
        self.over, self.lock = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self._feed, args=(path,), daemon=True) for path in self.paths]

    def __enter__(self) -> Self:
        for path in self.paths:
            os.mkfifo(path)
        self.file = self.path.open("rb")
        self.pieces = pieces(self.path, self.file)
        self.header = self._next()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whoever still writes, or waits for a reader, is let go."""
        self.over.set()
        for path, thread in zip(self.paths, self.threads, strict=True):
            end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            while thread.is_alive():
                with contextlib.suppress(BlockingIOError):
                    os.read(end, CAPACITY)
                thread.join(PATIENCE_SECONDS)
            os.close(end)
            path.unlink()
        self.file.close()

    def percent(self) -> float:
        """How much of the file was read."""
        return 100.0 * self.read / self.size

    def check(self) -> None:
        """Raises InputError or UncertainError where the pipes hold less than the file, or its rows in doubt."""
        for thread in self.threads:
            thread.join()
        if self.fault:
            raise self.fault

    def _next(self) -> bytes | memoryview:
        """The next piece; empty where there is none, or none any more after a fault."""
        with self.lock:
            if self.fault or self.over.is_set():
                return b""
            try:
                piece = next(self.pieces, b"")
            except (InputError, UncertainError, OSError) as fault:
                self.fault, piece = fault, b""
            self.read = self.file.tell()
            return piece

    def _feed(self, path: Path) -> None:
        with contextlib.suppress(BrokenPipeError), path.open("wb") as pipe:  # broken: DuckDB has found a fault
            with contextlib.suppress(AttributeError, OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CAPACITY)
            piece = self.header
            while piece:
                pipe.write(piece)
                piece = self._next()
