"""Worker processes: they end with their parent, even killed, and leave Ctrl-C to it."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker


def end_with_parent() -> None:
    """Called in a worker: from now on it ends, without clean-up, as soon as its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_end, args=(parent.sentinel,), daemon=True).start()


def _wait_and_end(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


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
