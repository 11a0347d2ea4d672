"""The stage `ablate`: strategies with some knobs otherwise, each a cell like a train cell's; and their teachers.

A cell in data/ablations is called STRATEGY.ABLATION, and STRATEGY.teachers_NAME where networks of several sizes teach:
their mean probability, run by run. A strategy's own table holds it against these (pipeline.questions.which).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline import files
from pipeline.modelling.cards import read_card
from pipeline.modelling.sizes import sized
from pipeline.params import Grid
from pipeline.training.cell import predictions, train_cell
from pipeline.training.executors import execute
from pipeline.training.grid import Ablations, RunSpec, ablated, ablation_scale
from pipeline.training.settings import Common, Settings, ablation_runs
from pipeline.training.store import RESULT, Store
from pipeline.training.tuning import read_tuned

PARAMETERS_SCHEMA: dict[str, Any] = {"cell": pl.String, "task": pl.String, "parameters": pl.Int64}


def ablate(common: Common, grid: Grid, ablations: Ablations, store: Store, data: Path, out: Path) -> None:
    """Makes the runs of the ablations of the grid's strategies, and writes their cells to `out`.

    parameters.csv beside them: of each cell, and of the strategy as it is; of teachers, of all together.
    """
    asked = [name for name in grid.strategies if ablations.get(name)]
    settings: dict[str, dict[str, Settings]] = {task: {} for task in grid.tasks}
    for strategy in grid.strategies if asked else ():
        tuned = read_tuned(data / "tuned" / f"{strategy}.yaml").tasks
        for task, of_task in settings.items():
            of_task.update(tuned[task])
    specs: dict[str, list[RunSpec]] = {}
    for (cell, _), each in ablation_runs(common, grid, ablations, settings).items():
        specs.setdefault(cell, []).extend(each)
    whole = dataclasses.replace(common, scale=ablation_scale(common.scale))
    taught = {name: [spec for task in grid.tasks for spec in whole.runs(name, task, settings[task])] for name in asked}
    execute([spec for each in (*taught.values(), *specs.values()) for spec in each], store, data)
    out.mkdir(parents=True, exist_ok=True)
    for name, own in specs.items():
        train_cell(own, store, data, out / name)
    counts = [_parameters(name, own, store) for name, own in (taught | specs).items()]
    counts += [_teachers(name, own, store, data, out) for name, own in taught.items()]
    rows = [row for each in counts for row in each]
    files.write_csv(pl.DataFrame(rows, schema=PARAMETERS_SCHEMA, orient="row"), out / "parameters.csv")


def _count(spec: RunSpec, store: Store) -> int:
    result = json.loads((store.folder(spec) / RESULT).read_text(encoding="utf-8"))
    return int(result["parameters"])


def _parameters(cell: str, specs: Sequence[RunSpec], store: Store) -> list[dict[str, Any]]:
    first = {spec.task: spec for spec in reversed(specs)}
    return [{"cell": cell, "task": task, "parameters": _count(first[task], store)} for task in sorted(first)]


def _teachers(strategy: str, specs: Sequence[RunSpec], store: Store, data: Path, out: Path) -> list[dict[str, Any]]:
    """Writes predictions.parquet of each kind of teacher; their parameters. Nothing where nobody teaches."""
    splits = pl.read_parquet(data / "splits.parquet")
    found = []
    for teacher in read_card(strategy).needs:
        for task in dict.fromkeys(spec.task for spec in specs):
            own = [spec for spec in specs if spec.task == task]
            names = [sized(teacher, size) for size in own[0].hyper.get("sizes", ())]
            if not names or not set(names) <= set(own[0].needs):
                continue
            cell = ablated(strategy, f"teachers_{teacher}")
            frames = [_answers(own, name, store, splits) for name in names]
            p = [column for column in frames[0].columns if column.startswith("p_")]
            mean = np.mean([frame.select(p).to_numpy() for frame in frames], axis=0, dtype=np.float64)
            frame = frames[0].drop(p).hstack(pl.DataFrame(mean.astype(np.float32), schema=p))
            files.write_parquet(frame, out / cell / task / "predictions.parquet")
            count = sum(_count(own[0].needs[name], store) for name in names)
            found.append({"cell": cell, "task": task, "parameters": count})
    return found


def _answers(specs: Sequence[RunSpec], name: str, store: Store, splits: pl.DataFrame) -> pl.DataFrame:
    """What the needed runs `name` predict, under the keys of the runs that they teach."""
    found = []
    for spec in specs:
        frame = predictions([spec.needs[name]], store, splits)
        found.append(frame.with_columns(pl.lit(spec.train_cohort).alias("train_cohort")))
    return pl.concat(found)
