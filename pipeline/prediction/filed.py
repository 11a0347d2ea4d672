"""The finished runs of the store, read back from their folders: which there are, and the one that is meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.params import END_TO_END
from pipeline.strict import build
from pipeline.training.grid import RunSpec
from pipeline.training.store import MADE, RESULT, code_digest, versions

SHOWN = 3  # of the runs that an ambiguous prefix could mean


class Filed(NamedTuple):
    """A run: the name it is filed under, its folder, its spec (`needs` left out) and the fingerprint of its data.

    `training.pretrained` is the content's digest where it was a file, `training.image` that of the embeddings, where
    the run sees such. `current`: made with the code and the package versions that are here now.
    """

    name: str
    folder: Path
    spec: RunSpec
    data: str
    current: bool


def read(folder: Path) -> Filed:
    """The finished run in `folder`.

    Raises InputError where it is not finished, its spec cannot be read, or other code filed it with other knobs.
    """
    if not (folder / RESULT).is_file():
        raise InputError(f"{folder}: not finished; the same command as before goes on with it")
    path = folder / "spec.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # what the identity leaves out: it changes no answer
        training = {"image": END_TO_END, **content["spec"]["training"], "checkpoint_seconds": 0.0}
        spec = build(RunSpec, {**content["spec"], "training": training, "needs": {}}, "spec")
        now = {"code": code_digest(spec), **versions()}
        return Filed(folder.name, folder, spec, str(content["data"]), {name: content.get(name) for name in now} == now)
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


def find(work: Path, name: str) -> Filed:
    """The run that is called `name`, or whose name alone begins so; its files are there.

    Raises InputError where there is none, where there are several, and where its weights or answers are gone.
    """
    found = [folder for folder in _folders(work) if folder.name.startswith(name)]
    if not found:
        raise InputError(f"{name}: no such run in {work / 'runs'}; --list prints those that are there")
    if len(found) > 1 and found[0].name != name:
        more = ", …" if len(found) > SHOWN else ""
        raise InputError(f"{name}: ambiguous: {', '.join(folder.name for folder in found[:SHOWN])}{more}")
    run = read(found[0])
    for file in MADE:
        if not (run.folder / file).is_file():
            raise InputError(f"{run.folder / file}: not found; the run must be made again")
    return run


def every(work: Path) -> tuple[list[Filed], int]:
    """The finished runs that can be read, by strategy, task, cohort, fold, seed; and how many cannot."""
    runs, unread = list[Filed](), 0
    for folder in _folders(work):
        if (folder / RESULT).is_file():
            try:
                runs.append(read(folder))
            except InputError:  # filed by code that knew other knobs
                unread += 1
    return sorted(runs, key=_place), unread


def table(runs: Sequence[Filed], data: str) -> list[list[str]]:
    """A head and a row a run. `data`: the fingerprint of the data that are here."""
    rows = [["strategy", "task", "cohort", "fold", "seed", "removed", "data", "code", "run"]]
    for run in runs:
        spec = run.spec
        removed = f"{spec.train_mechanism} {spec.train_missing:g}" if spec.train_missing else "none"
        here = "here" if run.data == data else "other", "current" if run.current else "other"
        rows.append([spec.strategy, spec.task, spec.train_cohort, str(spec.fold), str(spec.seed), removed])
        rows[-1] += [*here, run.name]
    return rows


def _place(run: Filed) -> tuple[str | float, ...]:
    spec = run.spec
    key = spec.strategy, spec.task, spec.train_cohort, spec.fold, spec.seed, spec.train_missing, spec.train_mechanism
    return (*key, run.name)


def _folders(work: Path) -> list[Path]:
    runs = work / "runs"
    return sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
