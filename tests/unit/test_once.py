"""tests/support/once.py: one process makes it, whoever asks; and what failed is tried again."""

import os
import subprocess
import sys

import pytest

from tests.support.once import once

TEST = """
import os
import time

import pytest

from tests.support.once import once


def make(folder):
    with (folder.parent / "told").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.5)
    (folder / "whole").touch()


@pytest.mark.parametrize("number", range(2))
def test_it_is_there_and_was_made_once(tmp_path_factory, number):
    folder = once(tmp_path_factory, "shared", make)
    assert (folder / "whole").is_file()
    (folder.parent / f"seen-{os.getpid()}").touch()
"""


def test_workers_find_what_one_of_them_made(root, tmp_path):
    (tmp_path / "test_shared.py").write_text(TEST)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "load", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'base'}", "--rootdir", tmp_path, tmp_path / "test_shared.py"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "base/told").read_text().split()) == 1
    assert len(list((tmp_path / "base").glob("seen-*"))) == 2


class Factory:
    def __init__(self, folder):
        self.folder = folder

    def getbasetemp(self):
        return self.folder


def test_what_failed_is_made_anew_from_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def fails(folder):
        (folder / "half").touch()
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError):
        once(Factory(tmp_path), "it", fails)
    folder = once(Factory(tmp_path), "it", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
