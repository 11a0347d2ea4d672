"""Processes that end with whoever started them, even killed; workers that leave Ctrl-C to it; one process at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from pathlib import Path

import psutil

from pipeline.errors import InputError
from pipeline.files import writing

try:
    import fcntl
except ImportError:
    sys.exit("Windows has no fcntl, nor other calls that this needs; run it in WSL 2 (README.md, Platforms)")


def end_with_parent() -> None:
    """From now on this worker ends, without clean-up, as soon as the process that started it is gone, however."""
    worker_of = multiprocessing.parent_process()  # the system's parent may be the fork server
    if worker_of is None:
        raise RuntimeError("end_with_parent is for workers of multiprocessing")
    threading.Thread(target=_wait_for, args=(worker_of.sentinel,), daemon=True).start()


def end_with_giver_of(variable: str) -> None:
    """From now on this process ends as soon as that is gone which gave it the environment variable.

    That need not be its parent: some shells stay between the two (dash), others become the command (bash).
    """
    ours = psutil.Process()
    value = ours.environ()[variable]
    for ancestor in ours.parents():
        try:
            given = ancestor.environ().get(variable) == value
        except psutil.Error:  # it has just ended, or is another user's
            given = False
        if not given:
            threading.Thread(target=_wait, args=(ancestor,), daemon=True).start()
            return


def _wait(process: psutil.Process) -> None:
    try:
        gone = os.pidfd_open(process.pid)  # also ready when the dead process waits to be collected
    except (AttributeError, OSError):  # not on this system; or gone already, which the next line sees
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    else:
        if process.is_running():  # else the number may be another's by now
            multiprocessing.connection.wait([gone])
    os._exit(1)


def _wait_for(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


@contextlib.contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold `lock` while the block runs; the system drops it with the process, however that ends.

    Raises InputError where another process holds it, which it names: `what` they are both at.
    """
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab+", buffering=0)  # what a full disk refuses must not be tried again when it is closed
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode() or "?"
            raise InputError(
                f"process {holder} is at {what} in this folder; wait for it or end it, then start again"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the number is a courtesy
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


@contextlib.contextmanager
def pool(count: int, who: str, start: Callable[..., None], *given: object) -> Iterator[ProcessPoolExecutor]:
    """So many processes, each begun by `start(*given)`, which end with the block, with Ctrl-C, or with this process.

    Raises InputError, beginning with `who`, where one is killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with Polars' threads may hang
    executor = ProcessPoolExecutor(count, context, _begin, (start, given))
    try:
        yield executor
    except BrokenProcessPool:
        raise InputError(f"{who} was killed (out of memory?)") from None
    finally:  # also where the caller gives up: nobody may go on writing
        executor.shutdown(cancel_futures=True)


def _begin(start: Callable[..., None], given: tuple[object, ...]) -> None:
    end_with_parent()
    start(*given)


@contextlib.contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Hold Ctrl-C back while processes start: they inherit the blocked signal, so that it is our business alone."""
    resource_tracker.ensure_running()  # it would let the signal through again when it is started on the way
    pending: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, lambda number, _: pending.append(number)) if in_main_thread else None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if in_main_thread:
            signal.signal(signal.SIGINT, previous)
    if pending:
        raise KeyboardInterrupt
