"""Processes that end with their parent, even killed; workers that leave Ctrl-C to it; one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import writing


def end_with_parent() -> None:
    """From now on this process ends, without clean-up, as soon as its parent is gone, however that ended."""
    worker_of = multiprocessing.parent_process()  # whoever started it: the system's parent may be the fork server
    target, argument = (_wait, os.getppid()) if worker_of is None else (_wait_for, worker_of.sentinel)
    threading.Thread(target=target, args=(argument,), daemon=True).start()


def _wait(parent: int) -> None:
    try:
        gone = os.pidfd_open(parent)  # also ready when the dead parent waits to be collected
    except (AttributeError, OSError):  # not on this system; or gone already, which the next line sees
        while os.getppid() == parent:
            time.sleep(0.5)
    else:
        if os.getppid() == parent:  # else the number may be another's by now
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
        file = lock.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"process {file.read() or '?'} is at {what} in this folder; wait for it or end it, then start again"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the number is a courtesy
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


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
