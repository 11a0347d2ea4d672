"""One script per DVC stage: read params, call the library, write the outputs. `stage` is their common frame.

A stage is alone with its outputs (a lock in data/.locks), and where DVC runs it, it ends with DVC: `kill -9` of
`dvc repro` would leave it at work otherwise, to write its outputs after those of its successor.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import FULL
from pipeline.processes import alone, end_with_giver_of

INTERRUPTED = "interrupted; finished stages, finished runs and checkpoints are kept, the same command goes on from them"
LOCKS = Path("data/.locks")
NO_LINKS = (Path("data"), Path("data/raw"))  # DVC would let a stage work, and then refuse what it has written
PATIENCE_SECONDS = 3.0


def _interrupted_early(number: int, frame: object) -> None:
    """Ctrl-C while a stage's imports take their second."""
    print(INTERRUPTED, file=sys.stderr)
    os._exit(130)


if sys.argv[0] == "-m":  # `python -m stages.NAME` imports this package first
    signal.signal(signal.SIGINT, _interrupted_early)
    if "DVC_STAGE" in os.environ:
        end_with_giver_of("DVC_STAGE")


@contextlib.contextmanager
def _interruptible(name: str) -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt in the block; where that has not left it in PATIENCE_SECONDS, the process ends.

    DuckDB may keep it from Python until a query is done. What is half-written then is what `kill -9` leaves, too: files
    aside, which the next run removes.
    """
    signals, wakeup = os.pipe()
    over = threading.Event()

    def watch() -> None:
        while number := os.read(signals, 1):
            if number[0] == signal.SIGINT and not over.wait(PATIENCE_SECONDS):
                print(f"\n{name}: {INTERRUPTED}", file=sys.stderr, flush=True)
                os._exit(130)
        os.close(signals)

    os.set_blocking(wakeup, False)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, handler)
        os.close(wakeup)


def _refuse_links() -> None:
    for folder in NO_LINKS:
        if folder.is_symlink():
            raise InputError(
                f"{folder}: a symbolic link, and DVC keeps no outputs behind one; make it a folder (README.md, On real "
                "data, tells how to put data on another disk)"
            )


def stage(main: Callable[[], None]) -> Callable[[], None]:
    """Run `main` as a stage: log to stderr; bad input, a full disk and Ctrl-C end in one line and an exit status."""
    name = Path(main.__code__.co_filename).stem

    @functools.wraps(main)
    def run() -> None:
        if {"-h", "--help"} & set(sys.argv[1:]):
            print(f"{main.__globals__['__doc__']}\n\n{main.__doc__}\n\nA stage of dvc.yaml; run from the root.")
            return
        logging.basicConfig(level=logging.INFO, format=f"{name}: %(message)s", stream=sys.stderr)
        start = time.perf_counter()
        cell = "-".join([name, *sys.argv[1:]])
        try:
            _refuse_links()
            with _interruptible(name), alone(LOCKS / re.sub(r"[^\w.-]", "_", cell), f"the stage {cell}"):
                main()
        except InputError as error:
            sys.exit(f"{name}: error: {error}")
        except FileNotFoundError as error:  # of what the stages before write; raw files are the manifest's affair
            sys.exit(f"{name}: error: {' '.join(str(error).split())}; have the stages before it run (dvc repro)?")
        except OSError as error:
            if error.errno not in FULL:
                raise
            sys.exit(f"{name}: error: {error.filename or 'the disk'}: cannot be written: {error.strerror}")
        except (KeyboardInterrupt, RuntimeError) as error:
            if isinstance(error, RuntimeError) and str(error) != "Query interrupted":  # DuckDB's way to say Ctrl-C
                raise
            print(f"{name}: {INTERRUPTED}", file=sys.stderr)
            sys.exit(130)
        logging.getLogger(name).info("%.1f s", time.perf_counter() - start)

    return run
