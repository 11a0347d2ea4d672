"""One script per DVC stage: read params, call the library, write the outputs. `stage` is their common frame."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import InputError

INTERRUPTED = "interrupted; the same command goes on from what is finished"


def _interrupted_early(number: int, frame: object) -> None:
    """Ctrl-C while a stage's imports take their second."""
    print(INTERRUPTED, file=sys.stderr)
    os._exit(130)


if sys.argv[0] == "-m":  # `python -m stages.NAME` imports this package first
    signal.signal(signal.SIGINT, _interrupted_early)


def stage(main: Callable[[], None]) -> Callable[[], None]:
    """Run `main` as a stage: log to stderr; bad input and Ctrl-C end in one line and an exit status, no traceback."""
    name = Path(main.__code__.co_filename).stem

    @functools.wraps(main)
    def run() -> None:
        logging.basicConfig(level=logging.INFO, format=f"{name}: %(message)s", stream=sys.stderr)
        start = time.perf_counter()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            main()
        except InputError as error:
            sys.exit(f"{name}: error: {error}")
        except FileNotFoundError as error:  # of what the stages before write; raw files are the manifest's affair
            sys.exit(f"{name}: error: {' '.join(str(error).split())}; have the stages before it run (dvc repro)?")
        except KeyboardInterrupt:
            print(f"{name}: {INTERRUPTED}", file=sys.stderr)
            sys.exit(130)
        logging.getLogger(name).info("%.1f s", time.perf_counter() - start)

    return run
