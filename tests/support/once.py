"""What is made once for all processes of a test run, though each has its own session (pytest-xdist)."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, which all processes see, filled by `make(folder)`: by who asks first; others wait for it.

    It is not to be changed. Where `make` fails, the next who asks tries again.
    """
    above = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        above = above.parent  # a worker's own folder lies in that of the run
    folder, made = above / name, above / f"{name}.made"
    with (above / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
