"""A train cell: its runs, made by an executor, and their predictions and histories in two files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import polars.selectors as cs
from safetensors.numpy import load_file

from pipeline import files
from pipeline.modelling.cards import read_card
from pipeline.tasks import Task
from pipeline.training.executors import execute
from pipeline.training.grid import KEY, RunSpec
from pipeline.training.store import Store


def predictions(specs: Sequence[RunSpec], store: Store, splits: pl.DataFrame, task: Task) -> pl.DataFrame:
    """The cell's predictions.parquet (docs/artefacts.md): a row a run and stay of its val, test and dev parts."""
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
    """The cell's history.csv: a row a run and epoch."""
    rows = []
    for spec in specs:
        epochs = json.loads((store.folder(spec) / "history.json").read_text(encoding="utf-8"))
        rows += [{**spec.key, **epoch} for epoch in epochs]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.select(
        *KEY, "epoch", cs.starts_with("train_") - cs.by_name(*KEY), cs.starts_with("val_"), "lr", "monitor", "best"
    )


def train_cell(specs: Sequence[RunSpec], store: Store, data: Path, out: Path, task: Task) -> None:
    """Makes the cell's runs and writes predictions.parquet, history.csv and card.json (of the strategy) to `out`."""
    card = read_card(specs[0].strategy)
    execute(specs, store, data)
    splits = pl.read_parquet(data / "splits.parquet")
    files.write_parquet(predictions(specs, store, splits, task), out / "predictions.parquet")
    files.write_csv(history(specs, store), out / "history.csv", digits=9)
    files.write_json(dataclasses.asdict(card), out / "card.json")
