"""Fixtures that several test folders share."""

import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIRST = ("test_browser.py", "test_faults.py")


def pytest_collection_modifyitems(items):
    """FIRST make what tests of other processes share (`page`, `project`): who comes later finds it, and never waits."""
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As every run on a CPU: beside other processes, small tensors take twenty times as long with a thread a core."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Under nohup or as a background job Ctrl-C is ignored, and all processes that tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Who forbids Python to keep compiled code has every process that tests start compile the project anew."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def demo_data() -> Path:
    """The folder that holds mimic-iv-demo and mimic-cxr-jpg-demo; skips where it is absent."""
    folder = Path(os.environ.get("FUSION_DEMO_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mimic-iv-demo" / "icu").is_dir():
        pytest.skip(f"the open demo data are not in {folder} (set FUSION_DEMO_DATA)")
    return folder.resolve()
