"""`python -m pipeline.first`: a first result in minutes, apart: `dvc repro` of a small grid in a copy of the project.

The copy lies in the folder of runs (work/first), with its data, run store, DVC cache and page: nothing else is touched,
and to remove it is to remove the folder. The same command goes on where it was interrupted, and makes anew what a
change of the code asks for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path

from pipeline import files
from pipeline.closure import ROOT
from pipeline.errors import InputError
from pipeline.evaluation.reading import read_table
from pipeline.options import add_changes
from pipeline.params import FILE, Params, content, load
from pipeline.presentation.tables import METRIC_TITLES
from pipeline.presentation.text import number, with_interval
from pipeline.processes import alone
from pipeline.questions.when.contest import SCHEMA
from pipeline.questions.when.tables import confirmatory
from pipeline.tasks import get_task
from pipeline.work_folder import work_folder

# The built-in hospital, and of it what two idle cores make in less than two minutes: deaths enough to be counted.
CHANGES = (
    "data.mimiciv=data/raw/synthetic/mimiciv",
    "data.mimic_cxr=data/raw/synthetic/mimic-cxr-jpg",
    "data.cxr_tables=csv.gz",
    "scale=tiny",
    "scales.tiny.synthetic.patients=400",
    "scales.tiny.training.cohorts=[base]",
    "scales.tiny.training.max_epochs=8",
    "scales.tiny.training.patience=8",
    "grid.strategies=[transformer,resnet,late_fusion]",
    "grid.tasks=[mortality]",
    "grid.ensembles=[]",
    "tuning.trials=0",
)
CODE = ("pipeline", "stages", "encoders", ".dvc/plots")
SINGLE = ("dvc.yaml", "pyproject.toml", ".dvcignore", ".dvc/config")
APART = "[core]\n    no_scm = true\n"  # DVC would ask the repository around the copy, which ignores it
STAGE = re.compile(r"(?:Running s|S)tage '([^']+)'(?:.*(skipping))?")
TOLD = 15  # lines of DVC's, where it failed


def copy(root: Path, folder: Path, changes: Sequence[str]) -> Params:
    """The code of the project in `root` as it is now, and its params with CHANGES and `changes`, in `folder`.

    What else is in `folder` stays. Raises InputError for params that cannot be.
    """
    asked = content(root / FILE, [*CHANGES, *changes])
    files.write_yaml(asked, folder / FILE)
    params = load(folder / FILE)
    with files.writing(folder):
        for name in CODE:
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in SINGLE:
            shutil.copy2(root / name, folder / name)
    files.write_text(APART, folder / ".dvc/config.local")
    return params


def repro(folder: Path) -> Generator[tuple[str, bool]]:
    """Stages as `dvc repro` comes to them in `folder`: the name, and whether there is something to do.

    All that it prints is in log.txt. Raises InputError with its last lines where it fails. Where the caller stops
    early (closed, or by Ctrl-C), DVC and its stage are told so, and waited for.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # stages are run by `python`
    ours = {**kept, "PATH": path, "PYTHONPATH": "", "FUSION_WORK": str(folder / "work")}
    command, last, log = [sys.executable, "-m", "dvc", "repro"], deque[str](maxlen=TOLD), folder / "log.txt"
    with (
        log.open("w", encoding="utf-8") as told,
        subprocess.Popen(
            command,
            cwd=folder,
            env=ours,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches us alone
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                told.write(line)
                last.append(line)
                if found := STAGE.match(line):
                    yield found[1], not found[2]
        finally:
            if process.poll() is None and sys.exc_info()[0]:
                os.killpg(process.pid, signal.SIGINT)
            process.wait()
    if process.returncode:
        raise InputError(f"dvc repro ended with status {process.returncode}; {log} ends in\n{''.join(last).rstrip()}")


def result(folder: Path) -> list[str]:
    """Of each task and cohort a line: its headline as reports/tables/gain.csv has it."""
    table = confirmatory(read_table(folder / "reports/tables/gain.csv", SCHEMA))
    lines = []
    for row in table.iter_rows(named=True):
        labels = get_task(row["task"]).labels
        if len(labels) > 1 and row["label"] in labels:  # their mean is told
            continue
        sides = [("strategy", ""), ("ehr", "ehr_"), ("image", "image_")]
        scores = ", ".join(f"{row[name]} {number(row[f'{start}value'])}" for name, start in sides if row[name])
        less = with_interval(row["difference"], row["low"], row["high"])
        lines.append(
            f"{row['task']}, {row['cohort']} cohort, {row['n']} test stays: {METRIC_TITLES[row['metric']]} {scores}; "
            f"fusion less the better of the two {less}: {row['verdict']}"
        )
    return lines


def main() -> None:
    """Makes the copy, runs DVC in it, and tells what came out and where its page lies."""
    options = argparse.ArgumentParser(prog="python -m pipeline.first", description="A first result, in minutes, apart.")
    add_changes(options)
    changes, folder, start = options.parse_args().changes, (work_folder() / "first").resolve(), time.monotonic()
    try:
        with alone(folder / ".lock", "pipeline.first"):
            params = copy(ROOT, folder, changes)
            print(f"{', '.join(params.grid.strategies)} on {', '.join(params.grid.tasks)}, in {folder}", flush=True)
            with contextlib.closing(repro(folder)) as stages:
                for name, todo in stages:
                    print(f"{time.monotonic() - start:5.0f} s  {name}{'' if todo else ': made already'}", flush=True)
        print("\n".join(result(folder)))
    except InputError as error:
        sys.exit(f"first: error: {error}")
    except KeyboardInterrupt:
        print("first: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    if f"data.mimiciv={params.data.mimiciv}" in CHANGES:
        patients = params.get("scales.synthetic").patients
        print(f"made-up patients, {patients} of them: that all works is shown, nothing about fusion")
    print(f"page: {folder / 'reports/index.html'}")


if __name__ == "__main__":
    main()
