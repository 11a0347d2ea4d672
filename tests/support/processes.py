"""Which processes are still at work. One that has ended and waits to be collected (a zombie) is not."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil


def _living() -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                yield process


def alive(pids: list[int]) -> list[int]:
    """Those of `pids` that are at work."""
    return [process.pid for process in _living() if process.pid in pids]


def children(pid: int) -> list[int]:
    """The living processes below `pid`."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return alive([child.pid for child in psutil.Process(pid).children(recursive=True)])
    return []


def group(number: int) -> list[str]:
    """Command lines of a process group."""
    found = []
    for process in _living():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == number:
                found.append(" ".join(process.cmdline()))
    return found


def at_work_in(folder: Path) -> list[str]:
    """Command lines of processes that have files open below `folder` or stand in it."""
    found = []
    for process in _living():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            files = [*(Path(file.path) for file in process.open_files()), Path(process.cwd())]
            if any(file.is_relative_to(folder.resolve()) for file in files):
                found.append(" ".join(process.cmdline()))
    return found


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    """Whether `condition` became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
