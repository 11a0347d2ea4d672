"""Raw CSV files as bytes, read with bounded memory: decompression, header, and whether the lines can be text at all.

Every fault is an InputError of one line that names the file and, inside of the text, the line. Nothing here knows what
the columns mean.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from isal import isal_zlib

from pipeline.errors import InputError

# Bytes of text in memory at a time, whatever a compressed file would make of them; and of the file that they come from.
CHUNK = 1 << 18  # with blocks of a megabyte malloc may ask the system for each, which takes as long as inflating
COMPRESSED = 1 << 16
NEWLINE = ord("\n")
MAX_HEADER = 1 << 20
MAX_LINE = 400_000  # bytes; DuckDB's limit too, which parses 16 times as much at a time: its own 2 MB make threads wait


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the system says of a file that cannot be read, as an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def text_of(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The bytes of an open file, decompressed where the name of `path` ends in .gz; at most CHUNK at a time.

    A gz file may have several members, some of them empty. Raises InputError where it is not gzip, is damaged (the
    checksum of each member is compared) or ends too early, or where something else follows the last member.
    """
    if path.suffix != ".gz":
        while chunk := file.read(CHUNK):
            yield chunk
        return
    member, members = isal_zlib.decompressobj(wbits=31), 0
    while compressed := file.read(COMPRESSED):
        while compressed:
            if member.eof:
                member, members = isal_zlib.decompressobj(wbits=31), members + 1
            try:
                chunk = member.decompress(compressed, CHUNK)
            except isal_zlib.error as error:  # type: ignore[misc]  # the stub takes the class for an exception
                raise InputError(f"{path}: {_damage(str(error), members)}") from None
            compressed = member.unused_data if member.eof else member.unconsumed_tail
            if chunk:
                yield chunk
    if not member.eof and path.stat().st_size:
        raise InputError(f"{path}: truncated: the compressed data end too early")


def _damage(message: str, members: int) -> str:
    if "wrapper found" in message:
        return "damaged: something else follows the compressed data" if members else "not gzip"
    if "checksum" in message:
        return "damaged: its checksum is wrong"
    return "damaged: cannot be decompressed"


def read_header(path: Path) -> list[str]:
    """The names in the first line, without blanks around them; raises InputError where it cannot be a header."""
    line = b""
    with readable(path), path.open("rb") as file:
        for chunk in text_of(path, file):
            line += chunk.partition(b"\n")[0]
            if b"\n" in chunk or len(line) > MAX_HEADER:
                break
    try:
        text = line.decode("utf-8-sig").removesuffix("\r")
        if len(line) > MAX_HEADER or "\0" in text:
            raise csv.Error
        names = [name.strip() for name in next(csv.reader([text], strict=True), [])]
    except UnicodeDecodeError:
        raise InputError(f"{path}: its header is not UTF-8") from None
    except csv.Error:
        raise InputError(f"{path}: its first line is no header") from None
    if not any(names):
        raise InputError(f"{path}: has no header")
    return names


class Lines:
    """Counts the lines of a text fed piece by piece; raises InputError at the first one that cannot be read.

    That is one that is not UTF-8, holds a zero byte (which disks leave where they fail) or is longer than MAX_LINE,
    in whatever column, needed or not: such a file is not the one that was published.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.ended, self.open = path, 0, 0  # `open`: bytes of the line that has not ended yet
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    @property
    def count(self) -> int:
        """Lines so far; the last one may lack its end."""
        return self.ended + (self.open > 0)

    def feed(self, chunk: bytes) -> None:
        """The next piece of the text."""
        self._decode(chunk, final=False)
        if b"\0" in chunk:
            self._fail(chunk[: chunk.index(b"\0")], "a zero byte")
        first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
        if self.open + (first if first >= 0 else len(chunk)) > MAX_LINE:
            self._fail(b"", f"longer than {MAX_LINE:,} bytes")
        self.open = len(chunk) - last - 1 if last >= 0 else self.open + len(chunk)
        self.ended += int(np.count_nonzero(np.frombuffer(chunk, np.uint8) == NEWLINE))  # bytes.count would keep others

    def end(self) -> None:
        """The text is over."""
        self._decode(b"", final=True)

    def _decode(self, chunk: bytes, final: bool) -> None:
        if chunk.isascii() and not self.decoder.getstate()[0]:  # nothing to decode, and no half of a sign before it
            return
        try:
            self.decoder.decode(chunk, final)
        except UnicodeDecodeError as error:  # its object begins with what is left of the piece before: no line end
            self._fail(error.object[: error.start], "not UTF-8")

    def _fail(self, before: bytes, reason: str) -> None:
        line = self.ended + before.count(b"\n") + 1
        raise InputError(f"{self.path}: line {line}: {reason}")
