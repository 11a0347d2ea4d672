"""Tuning: the same number of settings is tried of every strategy, and the best on `dev` is chosen, task by task.

A trial is a run like any other, in the run store: it is made once, whoever asks, and more trials only add to the list.
It learns from the training part of the first fold, stops by validation, and is judged by the dev stays alone, who are
in no training and no test. The first trial is what params.yaml says; the others follow a scrambled Sobol list, whose
first dimensions are the knobs that all strategies share.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from pipeline import files
from pipeline.closure import ROOT
from pipeline.errors import InputError
from pipeline.modelling.registry import module_name
from pipeline.params import MOST_OWN, Dimension, Grid, Tuning, TuningScale
from pipeline.strict import build, read_yaml
from pipeline.tasks import Task, get_task
from pipeline.training.executors import execute
from pipeline.training.grid import RunSpec
from pipeline.training.monitor import monitor_score
from pipeline.training.settings import Common, Settings, needed
from pipeline.training.store import Store
from pipeline.training.trials import HOURS, TRIALS, TRIALS_SCHEMA

log = logging.getLogger("tune")
SHARED = ("lr", "dropout", "weight_decay")


@dataclass(frozen=True)
class Dev:
    """The dev stays of a fold: ids [n], whether they have an image [n], and targets [n, labels]. Nobody else."""

    stay_id: np.ndarray[Any, Any]
    has_cxr: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tuned:
    """What a train cell reads: how many trials chose, and per task the settings of the strategy and of those it needs.

    `code`: digests of the files of the strategies that it needs.
    """

    trials: int
    code: dict[str, str]
    tasks: dict[str, dict[str, Settings]]


def trials(first: Settings, tuning: Tuning, own: Mapping[str, Dimension]) -> list[Settings]:
    """`tuning.trials` settings, at least the first: what is written, then the Sobol list over what the strategy has.

    A list of the same dimensions for everyone, so that two strategies' n-th trials agree in what they share, and a
    longer list begins with the shorter one.
    """
    from scipy.stats import qmc

    count = max(0, tuning.trials - 1)
    sobol = qmc.Sobol(len(SHARED) + MOST_OWN, scramble=True, seed=tuning.seed)
    points = sobol.random_base2(max(1, (max(1, count) - 1).bit_length()))[:count]
    shared = {name: getattr(tuning.space, name) for name in SHARED} if "lr" in first.hyper else {}
    found = [first]
    for point in points:
        drawn = {name: space.at(float(share)) for (name, space), share in zip(shared.items(), point, strict=False)}
        hyper = {
            name: space.at(float(share))
            for (name, space), share in zip(own.items(), point[len(SHARED) :], strict=False)
        }
        if "lr" in drawn:
            hyper["lr"] = drawn["lr"]
        found.append(
            Settings(
                {**first.hyper, **hyper},
                float(drawn.get("dropout", first.dropout)),
                float(drawn.get("weight_decay", first.weight_decay)),
            )
        )
    return found


def dev_stays(data: Path, fold: int, task: Task) -> Dev:
    """The dev stays below `data`; labels of others are not read."""
    dev = pl.scan_parquet(data / "splits.parquet").filter(pl.col("fold") == fold, pl.col("part") == "dev")
    rows = (
        dev.select("stay_id")
        .join(pl.scan_parquet(data / "cohort/stays.parquet").select("stay_id", "has_cxr"), on="stay_id", how="left")
        .join(pl.scan_parquet(data / "cohort/labels.parquet").select("stay_id", *task.labels), on="stay_id", how="left")
        .sort("stay_id")
        .collect()
    )
    targets = rows.select(pl.col(name).cast(pl.Float32) for name in task.labels).to_numpy()
    return Dev(rows["stay_id"].to_numpy().astype(np.int64), rows["has_cxr"].to_numpy(), targets)


def dev_score(
    stay_id: np.ndarray[Any, Any], p: np.ndarray[Any, Any], dev: Dev, cohort: str, task: Task
) -> float | None:
    """The task's monitor of predictions [m, outputs] of stays [m], on the cohort's dev stays; None: not estimable."""
    asked = dev.stay_id[dev.has_cxr] if cohort == "matched" else dev.stay_id
    targets = dev.targets[dev.has_cxr] if cohort == "matched" else dev.targets
    order = np.argsort(stay_id)
    return monitor_score(task, targets, p[order[np.searchsorted(stay_id, asked, sorter=order)]])


@dataclass(frozen=True)
class Choice:
    """What tuning gives: settings by task and strategy, rows of TRIALS_SCHEMA, hours by strategy and task.

    `needs`: by strategy, those whose runs it needs, or which it is built around.
    """

    settings: dict[str, dict[str, Settings]]
    rows: list[dict[str, Any]]
    hours: dict[str, dict[str, float]]
    needs: dict[str, tuple[str, ...]]


def choose(
    common: Common,
    grid: Grid,
    strategies: Mapping[str, dict[str, Any]],
    tuning: Tuning,
    judged: TuningScale,
    store: Store,
    data: Path,
    make: Callable[[Sequence[RunSpec], Store, Path], None] = execute,
) -> Choice:
    """Tries settings of all strategies of the grid and those that they need; `make` makes the trials' runs.

    With `tuning.trials` 0 no run is made and the settings are the written ones, `strategies`. Those whose runs others
    need are tuned first, and the others' trials then start from the chosen ones. Raises InputError where strategies
    need each other's runs.
    """
    needs: dict[str, tuple[str, ...]] = {}
    todo = list(grid.strategies)
    while todo:
        name = todo.pop()
        needs[name] = needed(name, strategies[name], common.training.start)
        todo += [each for each in needs[name] if each not in needs]
    found = Choice({task: {} for task in grid.tasks}, [], {}, needs)
    todo = sorted(needs)
    while todo:
        ready = [name for name in todo if not set(needs[name]) & set(todo)]
        if not ready:
            raise InputError(f"strategies: {', '.join(todo)} need each other's runs")
        tried = {name: trials(common.written(strategies[name]), tuning, tuning.own.get(name, {})) for name in ready}
        if tuning.trials:
            _choose(_judged(common, judged), tried, found, store, data, make)
        else:
            for of_task in found.settings.values():
                of_task.update({name: tried[name][0] for name in ready})
        todo = [name for name in todo if name not in ready]
    return found


def tune(
    common: Common,
    grid: Grid,
    strategies: Mapping[str, dict[str, Any]],
    tuning: Tuning,
    judged: TuningScale,
    store: Store,
    data: Path,
    out: Path,
) -> None:
    """Writes STRATEGY.yaml (Tuned) for every strategy of the grid, trials.csv (TRIALS_SCHEMA) and hours.json to `out`.

    hours.json: {strategy: {task: hours of its trials' processes}}, the one file that differs from one time to the next;
    trials with the same settings are the same runs, and count once. Raises InputError as `choose` does.
    """
    found = choose(common, grid, strategies, tuning, judged, store, data)
    for name in grid.strategies:
        needs = _all_needed(name, found.needs)
        code = {each: files.sha256(ROOT / f"{module_name(each).replace('.', '/')}.py") for each in needs}
        tasks = {task: {each: of_task[each] for each in (name, *needs)} for task, of_task in found.settings.items()}
        files.write_yaml(dataclasses.asdict(Tuned(tuning.trials, code, tasks)), out / f"{name}.yaml")
    files.write_csv(pl.DataFrame(found.rows, schema=TRIALS_SCHEMA), out / TRIALS, digits=9)
    files.write_json(found.hours, out / HOURS)


def _all_needed(name: str, needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Those that a strategy needs, and those that these need."""
    found = list(needs[name])
    for each in found:  # grows meanwhile
        found += [other for other in needs[each] if other not in found]
    return found


def _judged(common: Common, judged: TuningScale) -> Common:
    """The runs by which a trial is judged: one fold, every image there."""
    scale = common.scale
    seeds = scale.seeds[: judged.seeds]
    scale = dataclasses.replace(scale, cohorts=judged.cohorts, folds=scale.folds[:1], seeds=seeds, train_missing=(0.0,))
    return dataclasses.replace(common, scale=scale)


def _choose(
    common: Common,
    tried: Mapping[str, Sequence[Settings]],
    choice: Choice,
    store: Store,
    data: Path,
    make: Callable[[Sequence[RunSpec], Store, Path], None],
) -> None:
    """Makes the trials of strategies, and adds the best of each, all rows and hours to the choice."""
    specs = {
        (task, name, number): common.runs(name, task, {**of_task, name: each})
        for task, of_task in choice.settings.items()
        for name, settings_of in tried.items()
        for number, each in enumerate(settings_of)
    }
    make(list({store.name(spec): spec for each in specs.values() for spec in each}.values()), store, data)
    for task, of_task in choice.settings.items():
        dev = dev_stays(data, common.scale.folds[0], get_task(task))
        for name, settings_of in tried.items():
            found = [_trial(specs[task, name, number], dev, store) for number in range(len(settings_of))]
            scores = [-np.inf if each["score"] is None else each["score"] for each in found]
            best = int(np.argmax(scores))  # of equals the first, so that what is written needs no reason
            of_task[name] = settings_of[best]
            made = {store.name(spec): spec for number in range(len(settings_of)) for spec in specs[task, name, number]}
            hours = sum(_seconds(spec, store) for spec in made.values()) / 3600
            choice.hours.setdefault(name, {})[task] = hours
            for number, each in enumerate(found):
                told = json.dumps(dataclasses.asdict(settings_of[number]), sort_keys=True)
                about = {"strategy": name, "task": task, "trial": number + 1, "chosen": number == best}
                choice.rows.append({**about, **each, "settings": told})
            log.info("%s %s: trial %d of %d, %.3f on dev", name, task, best + 1, len(scores), scores[best])


def _trial(specs: Sequence[RunSpec], dev: Dev, store: Store) -> dict[str, Any]:
    """Score on dev and epochs of a trial's finished runs."""
    scores, epochs = [], 0
    for spec in specs:
        folder = store.folder(spec)
        told = load_file(folder / "predictions.safetensors")
        scores.append(dev_score(told["stay_id"], told["p"], dev, spec.train_cohort, get_task(spec.task)))
        epochs += len(json.loads((folder / "history.json").read_text(encoding="utf-8")))
    known = [score for score in scores if score is not None]
    score = sum(known) / len(known) if len(known) == len(scores) else None
    return {"score": score, "epochs": epochs}


def _seconds(spec: RunSpec, store: Store) -> float:
    """How long a finished run took where it was made."""
    return float(json.loads((store.folder(spec) / "result.json").read_text(encoding="utf-8"))["seconds"])


def read_tuned(path: Path) -> Tuned:
    """What `tune` has written for a strategy. Raises InputError where it is absent or damaged."""
    try:
        found: Tuned = build(Tuned, read_yaml(path), "")
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run the stage tune") from None
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return found
