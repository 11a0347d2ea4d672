"""What the probe leaves, made up beside made_up_runs.py: masks, traits, answers without a modality, swaps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.data.masks import masks
from pipeline.params import Masks
from pipeline.tasks import get_task

KEY = ["train_cohort", "fold", "seed", "train_missing", "train_mechanism"]


def add_probes(
    root: Path,
    strategies: dict[str, tuple[Sequence[str], str]],
    tasks: Sequence[str],
    swapped: int = 25,
    permutations: int = 2,
) -> None:
    """Adds traits to stays.parquet, masks.parquet, and data/probes; `strategies`: modalities and missing of each card.

    Answers without an image are half-way between the truth-blind 0.3 and what was answered with it.
    """
    data = root / "data"
    random = np.random.default_rng(5)
    stays = pl.read_parquet(data / "cohort/stays.parquet")
    n = stays.height
    collectable = random.random(n) < 0.6
    stays = stays.with_columns(
        gender=pl.Series(random.choice(["F", "M"], n)),
        race_group=pl.Series(random.choice(["WHITE", "BLACK"], n)),
        admission_group=pl.Series(random.choice(["EMERGENCY", "ELECTIVE"], n)),
        era=pl.Series(random.choice(["2011 - 2013", "2014 - 2016"], n)),
        first_careunit=pl.Series(random.choice(["MICU", "SICU"], n)),
        cxr_status=pl.when("has_cxr")
        .then(pl.lit("present"))
        .when(pl.Series(collectable))
        .then(pl.lit("not_taken"))
        .otherwise(pl.lit("not_collectable")),
    )
    stays.write_parquet(data / "cohort/stays.parquet")
    splits = pl.read_parquet(data / "splits.parquet")
    masks(stays, splits.drop("subject_id"), Masks(salt="x"))[0].write_parquet(data / "masks.parquet")
    for name, (modalities, missing) in strategies.items():
        _probe(data, name, set(modalities), missing, tasks, stays, swapped, permutations, random)


def _probe(data, name, modalities, missing, tasks, stays, swapped, permutations, random) -> None:
    removal, swaps, control = [], [], []
    path = data / "runs" / name / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "modalities": sorted(modalities), "missing": missing}))
    for task in tasks:
        p = [f"p_{each}" for each in get_task(task).outputs]
        test = (
            pl.read_parquet(data / "runs" / name / task / "predictions.parquet")
            .filter(part="test")
            .join(stays.select("stay_id", "has_cxr"), on="stay_id")
            .with_columns(task=pl.lit(task))
        )
        keep = 0.8 if missing == "native" else 0.2
        less = test.with_columns(pl.col(p) * keep + (1 - keep) / (len(p) if len(p) == 7 else 3))
        about = [
            ("cxr", 1.0, "whole", less.filter("has_cxr"), bool({"cxr", "presence"} & modalities)),
            ("ehr", 1.0, "whole", less.with_columns(pl.col(p) * 0 + 1 / 7), "ehr" in modalities),
            ("ehr", 0.25, "last_hours", less, "ehr" in modalities),
        ]
        for modality, share, mechanism, rows, there in about:
            if there:
                removal.append(
                    rows.with_columns(
                        test_modality=pl.lit(modality), test_missing=pl.lit(share), test_mechanism=pl.lit(mechanism)
                    )
                )
        pictured = test.filter("has_cxr", train_missing=0.0)
        for run in pictured.partition_by(KEY, maintain_order=True):
            chosen = run.head(swapped)
            if {"ehr", "cxr"} <= modalities:
                for kind in ("full", "emap", "cxr_permuted", "ehr_permuted", "both_permuted"):
                    for draw in range(permutations if kind.endswith("permuted") else 1):
                        moved = (
                            chosen.select(p)[random.permutation(chosen.height)] if draw or kind[0] == "b" else chosen
                        )
                        swaps.append(
                            chosen.drop(p).with_columns(*(moved[c] for c in p), kind=pl.lit(kind), draw=pl.lit(draw))
                        )
            if "cxr" in modalities:
                for encoder in ("trained", "untrained"):
                    control.append(
                        chosen.select(
                            "task",
                            "train_cohort",
                            "fold",
                            "seed",
                            pl.lit("edema").alias("finding"),
                            pl.lit(encoder).alias("encoder"),
                            "stay_id",
                            (pl.col("stay_id") % 2 == 0).alias("present"),
                            pl.Series("score", random.random(chosen.height)),
                        )
                    )
    every = [f"p_{each}" for task in tasks for each in get_task(task).outputs]
    out = data / "probes" / name
    out.mkdir(parents=True, exist_ok=True)
    nothing = pl.DataFrame(schema=dict.fromkeys(every, pl.Float32))
    tells = {"task": pl.String, "train_cohort": pl.String, "fold": pl.Int64, "seed": pl.Int64, "stay_id": pl.Int64}
    swap_key = pl.DataFrame(schema={**tells, "kind": pl.String, "draw": pl.Int32})
    finding = pl.DataFrame(
        schema={**tells, "finding": pl.String, "encoder": pl.String, "present": pl.Boolean, "score": pl.Float64}
    )
    pl.concat([nothing, *removal], how="diagonal").write_parquet(out / "removal.parquet")
    pl.concat([swap_key, *swaps, nothing], how="diagonal_relaxed").write_parquet(out / "swaps.parquet")
    pl.concat([finding, *control], how="diagonal_relaxed").write_parquet(out / "image_control.parquet")
