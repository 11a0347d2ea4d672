"""Who makes a run: a claim on its folder by lease, which holds across machines and outlives nobody for long.

A lease is a file, `lease`, that its holder made and touches while it works. No lock of the system is asked for: on
network file systems each machine may see but its own, or they are refused. Where a file was not touched for the time
that it names, as the watcher's own clock tells, or its holder is a process of this machine that has ended, the next one
may take it over. So a holder that stood still may wake up beside its successor: it finds its lease gone, and ends. That
is no harm: both write the same bytes, under names of their own, and rename them.

filelock's SoftFileLease takes over by an exchange of two names, which NFS refuses: there, a killed node's lease would
never end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline import files, owners
from pipeline.errors import InputError

log = logging.getLogger("train")
LEASE = "lease"
SECONDS = 60.0  # without a sign of life: longer than what holds Python up (a long fit, a server that restarts)
BEATS = 6  # signs of life in that time
POLL_SECONDS = 0.2
SETTLE_SECONDS = 0.5  # a file that is being put back is there again


class LeaseLost(Exception):  # noqa: N818 - no error: somebody else makes the run
    """Another process has taken the run over; it was taken for dead. What is there is that one's."""


class Stopped(Exception):  # noqa: N818 - no error: it was asked for
    """The run ended between two epochs, as it was told to, with its checkpoint written."""


class _Sign(NamedTuple):
    """A lease as it was seen: its holder, for how long it holds without being touched, and when it was."""

    token: str
    owner: str
    host: str
    seconds: float
    touched: int


_seen: dict[Path, tuple[_Sign, float]] = {}  # and since when this process has seen it so


class Claim:
    """A run's folder, and the lease on it that this process holds."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self._path, self._token = folder / LEASE, secrets.token_hex(8)
        self._touched, self._lost, self._over = time.monotonic(), False, threading.Event()

    def check(self) -> None:
        """Raises LeaseLost where another process has taken the run over. Costs nothing: call it often."""
        if time.monotonic() - self._touched > self.seconds:  # we were stopped: ask before anything is written
            self._touch()
        if self._lost:
            raise LeaseLost(f"{self.folder}: another process has taken the run over")

    def _create(self) -> bool:
        """Whether the lease could be made: there was none."""
        record = {
            "token": self._token,
            "owner": owners.this_process(),
            "host": socket.gethostname(),
            "seconds": self.seconds,
        }
        try:
            with self._path.open("x", encoding="utf-8") as file:
                try:
                    json.dump(record, file)
                    file.flush()
                except OSError:
                    self._path.unlink()
                    raise
        except FileExistsError:
            return False
        self._touched = time.monotonic()
        return True

    def _ours(self) -> bool:
        found = _look(self._path)
        return found is not None and found.token == self._token

    def _touch(self) -> None:
        """A sign of life; `_lost` where the lease is another's, or may be by now."""
        now = time.monotonic()
        try:
            if not self._ours():
                time.sleep(SETTLE_SECONDS)
                if not self._ours():
                    self._lost = True
                    return
            os.utime(self._path)
        except OSError:  # a server that does not answer; one may get over it
            self._lost = now - self._touched > self.seconds
        else:
            self._touched = now

    def _live(self) -> None:
        while not self._lost and not self._over.wait(self.seconds / BEATS):
            self._touch()

    def _release(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):  # who comes next waits until it ends
            if self._ours():
                self._path.unlink()


def lease_seconds() -> float:
    """FUSION_LEASE, else SECONDS. Raises InputError where it is no number above 0."""
    text = os.environ.get("FUSION_LEASE", "")
    try:
        seconds = float(text or SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"FUSION_LEASE: {text!r} is no number of seconds above 0")
    return seconds


@contextlib.contextmanager
def claimed(folder: Path, name: str, wait: bool = True) -> Iterator[Claim | None]:
    """`folder`, made where it is not there, while this process works on what people call `name`.

    Where another one is at it: waits for its turn, or None without `wait`. In the block, an error that follows from a
    lost lease is LeaseLost. Raises InputError where the folder cannot be written to.
    """
    seconds = lease_seconds()
    with files.writing(folder / LEASE):
        folder.mkdir(parents=True, exist_ok=True)
        claim = _try(folder, seconds)
        if claim is None and wait:
            holder = _look(folder / LEASE)
            log.info("%s: another process is at it (%s); waiting", name, holder.host if holder else "gone by now")
        while claim is None and wait:
            time.sleep(POLL_SECONDS)
            claim = _try(folder, seconds)
    if claim is None:
        yield None
        return
    threading.Thread(target=claim._live, daemon=True).start()
    try:
        yield claim
    except Exception:
        claim.check()
        raise
    finally:
        claim._release()


def _try(folder: Path, seconds: float) -> Claim | None:
    claim, path = Claim(folder, seconds), folder / LEASE
    if not claim._create():
        found = _look(path)
        if found and not (_ended(path, found) and _remove(path, found)):
            return None
        if not claim._create():
            return None
    _seen.pop(path, None)
    return claim


def _look(path: Path) -> _Sign | None:
    """The lease at `path`; None where there is none. One that is being written, or was cut short, has no holder."""
    try:
        with path.open(encoding="utf-8") as file:
            text, touched = file.read(), os.fstat(file.fileno()).st_mtime_ns
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # ESTALE: it was replaced while we read it
            raise
        return None
    try:
        told = json.loads(text)
        return _Sign(told["token"], told["owner"], told["host"], float(told["seconds"]), touched)
    except (ValueError, KeyError, TypeError):
        return _Sign("", "", "?", SECONDS, touched)


def _ended(path: Path, found: _Sign) -> bool:
    if owners.gone(found.owner):
        return True
    before, since = _seen.setdefault(path, (found, time.monotonic()))
    if before != found:
        _seen[path] = found, time.monotonic()
        return False
    return time.monotonic() - since > found.seconds


def _remove(path: Path, ended: _Sign) -> bool:
    """Takes the lease away that has ended; False where another process was quicker: a file is renamed once."""
    aside = files.beside(path)
    try:
        path.rename(aside)
        moved = _look(aside)
        if moved == ended:
            aside.unlink()
            return True
        aside.rename(path)  # the lease of who was quicker, or of a holder that has just woken up
    except FileNotFoundError:
        pass
    return False
