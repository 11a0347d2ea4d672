"""Ctrl-C while a stage is inside of a library: one line, no traceback."""

import subprocess
import sys

import pytest

from stages import INTERRUPTED

SCRIPT = """
import os, signal, threading, time
import duckdb
from stages import stage

@stage
def main():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    {work}

main()
"""
WORK = {
    "python": "time.sleep(60)",
    "duckdb": "duckdb.execute('select sum(hash(i)) from range(1000000000000) t(i)').fetchall()",
}


@pytest.mark.parametrize("where", WORK)
def test_ctrl_c_is_one_line_wherever_the_stage_is(root, tmp_path, where):
    (tmp_path / "long.py").write_text(SCRIPT.format(work=WORK[where]))
    done = subprocess.run(
        [sys.executable, "long.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 130
    assert done.stderr.lstrip() == f"long: {INTERRUPTED}\n"
