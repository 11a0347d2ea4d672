"""A train cell: a strategy's runs on all tasks, made by an executor, and what is left of them below data/runs.

runs.json names the runs that the rest was made of, as the run store files them: who asks the trained models again (the
probe) reads them there, and depends on nothing else that training depends on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import polars.selectors as cs
from safetensors.numpy import load_file

from pipeline import files
from pipeline.errors import InputError
from pipeline.modelling.cards import read_card
from pipeline.strict import build
from pipeline.tasks import get_task
from pipeline.training.executors import execute
from pipeline.training.grid import KEY, RunSpec
from pipeline.training.store import Store

RUNS = "runs.json"
EXACT = 30  # decimals: a number is read as it was written


def predictions(specs: Sequence[RunSpec], store: Store, splits: pl.DataFrame) -> pl.DataFrame:
    """A task's predictions.parquet (docs/artefacts.md): a row a run and stay of its val, test and dev parts."""
    task = get_task(specs[0].task)
    found = []
    for spec in specs:
        arrays = load_file(store.folder(spec) / "predictions.safetensors")
        part = splits.filter(pl.col("fold") == spec.fold).select("stay_id", "part")
        rows = pl.DataFrame({"stay_id": arrays["stay_id"]}).join(
            part.cast({"stay_id": pl.Int64}), on="stay_id", how="left", maintain_order="left"
        )
        found.append(
            rows.select(
                pl.lit(spec.train_cohort).alias("train_cohort"),
                pl.lit(spec.fold, pl.Int8).alias("fold"),
                pl.lit(spec.seed, pl.Int32).alias("seed"),
                pl.lit(spec.train_missing, pl.Float64).alias("train_missing"),
                pl.lit(spec.train_mechanism).alias("train_mechanism"),
                "part",
                pl.lit("none").alias("test_modality"),
                pl.lit(0.0, pl.Float64).alias("test_missing"),
                pl.lit("none").alias("test_mechanism"),
                "stay_id",
                *(pl.Series(f"p_{name}", arrays["p"][:, i]) for i, name in enumerate(task.outputs)),
            )
        )
    frame = pl.concat(found)
    return frame.sort([name for name in frame.columns if not name.startswith("p_")])


def history(specs: Sequence[RunSpec], store: Store) -> pl.DataFrame:
    """A task's history.csv: a row a run and epoch."""
    rows = []
    for spec in specs:
        epochs = json.loads((store.folder(spec) / "history.json").read_text(encoding="utf-8"))
        rows += [{**spec.key, **epoch} for epoch in epochs]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    losses, scores = cs.starts_with("train_") - cs.by_name(*KEY), cs.starts_with("val_", "own_")
    return frame.select(*KEY, "epoch", losses, scores, "lr", "monitor", "best")


def train_cell(specs: Sequence[RunSpec], store: Store, data: Path, out: Path) -> None:
    """Makes the runs of a strategy, and writes what is left of them to `out`.

    runs.json, card.json (of the strategy), and TASK/predictions.parquet and TASK/history.csv for each task of the runs.
    """
    card = read_card(specs[0].strategy)
    execute(specs, store, data)
    splits = pl.read_parquet(data / "splits.parquet")
    for task in dict.fromkeys(spec.task for spec in specs):
        own = [spec for spec in specs if spec.task == task]
        files.write_parquet(predictions(own, store, splits), out / task / "predictions.parquet")
        files.write_csv(history(own, store), out / task / "history.csv", digits=9)
    files.write_json(dataclasses.asdict(card), out / "card.json")
    write_runs(specs, store, out)


def write_runs(specs: Sequence[RunSpec], store: Store, cell: Path) -> None:
    """runs.json of the train cell in the folder `cell`: [{run: name in the run store, spec: all of RunSpec}]."""
    filed = [{"run": store.name(spec), "spec": dataclasses.asdict(spec)} for spec in specs]
    files.write_json(filed, cell / RUNS, digits=EXACT)


def read_runs(cell: Path, store: Store) -> list[RunSpec]:
    """The runs that the train cell in the folder `cell` was made of.

    Raises InputError where the file is absent or damaged, and where the store would file one under another name: it was
    made with other code, data or versions than are there now.
    """
    path = cell / RUNS
    try:
        filed = json.loads(path.read_text(encoding="utf-8"))
        specs = [build(RunSpec, each["spec"], "spec") for each in filed]
        names = [str(each["run"]) for each in filed]
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run the stage train") from None
    except (ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    for spec, name in zip(specs, names, strict=True):
        if store.name(spec) != name:
            raise InputError(f"{path}: {spec.name} was made with other code, data or versions; train it again")
    return specs
