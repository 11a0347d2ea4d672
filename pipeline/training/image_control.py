"""Positive control of the image encoders: does what they make of a picture tell the findings in its radiology report?

A logistic regression on the maps of the last stage of each of a model's CNNs, pooled, frozen, fitted on the fold's
training stays and asked about its test stays. Random filters tell a good deal already (Alain & Bengio 2016, arXiv
1610.01644, section 3): the model as it was built, before training, is asked beside the trained one. Where training
taught the encoder nothing, "the image adds nothing" is a statement about the encoder. Of a frozen encoder, whose
embeddings the model sees, they are the pooled vectors; beside it stands the CNN as built, which sees the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.tensors import Array, FoldTensors
from pipeline.modelling.encoders import ImageEncoder
from pipeline.modelling.interface import Strategy
from pipeline.modelling.views import latest_images
from pipeline.training.grid import RunSpec
from pipeline.training.loop import EVAL_BATCH, autocast

FINDINGS = {"effusion": "Pleural Effusion", "edema": "Edema"}  # columns of data/interim/cxr_findings.parquet
CONTROL_SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "train_cohort": pl.String,
    "fold": pl.Int8,
    "seed": pl.Int32,
    "finding": pl.String,
    "encoder": pl.String,
    "stay_id": pl.Int64,
    "present": pl.Boolean,
    "score": pl.Float64,
}
FEWEST = 5  # training stays with, and without, a finding


def read_findings(data: Path) -> pl.DataFrame:
    """stay_id and, per finding, 1.0, 0.0 or null (uncertain, not mentioned): CheXpert labels of the stay's image."""
    chosen = pl.read_parquet(data / "cohort/cxr.parquet").filter(pl.col("rank") == 1).select("stay_id", "study_id")
    told = pl.read_parquet(data / "interim/cxr_findings.parquet").select(
        "study_id", *(pl.when(pl.col(column) >= 0).then(column).alias(name) for name, column in FINDINGS.items())
    )
    return chosen.join(told, on="study_id", how="left").drop("study_id").cast({"stay_id": pl.Int64}).sort("stay_id")


def image_features(strategy: Strategy, spec: RunSpec, batches: Batches, rows: Tensor) -> Array | None:
    """Pooled maps [len(rows), C] of the last stages of the strategy's image encoders; None where no image passes one.

    A strategy may call an encoder whole, from a later stage on or stage by stage: the last stage hears all of them.
    """
    caught: list[Tensor] = []

    def catch(module: torch.nn.Module, given: Any, output: Tensor) -> None:
        caught.append(output.float().mean(dim=(2, 3)))

    encoders = [module for module in strategy.modules() if isinstance(module, ImageEncoder)]
    frozen = encoders[0].frozen if encoders else None
    hooks = [encoder.stages[-1].register_forward_hook(catch) for encoder in encoders if not frozen]
    found = []
    try:
        with torch.inference_mode(), autocast(batches.device, spec.training.precision):
            for part in rows.split(EVAL_BATCH):
                caught.clear()
                batch = latest_images(batches.gather(part))
                if frozen:  # one for all encoders, whatever the strategy takes of them
                    caught.append(frozen(batch.images))
                else:
                    strategy(batch)
                if not caught:
                    return None
                found.append(torch.cat(caught, dim=1))
    finally:
        for hook in hooks:
            hook.remove()
    features: Array = torch.cat(found).cpu().numpy()
    return features


def image_control(
    encoders: Mapping[str, tuple[Strategy, Batches]], spec: RunSpec, tensors: FoldTensors, findings: pl.DataFrame
) -> pl.DataFrame:
    """Rows of CONTROL_SCHEMA: test stays with an image whose report tells of a finding or its absence, and their score.

    `encoders` are models of one strategy, each with what it sees of the stays of `tensors`, by what the column calls
    them. None where the strategy has no image encoder, or the training stays hold too few of either.
    """
    nothing = pl.DataFrame(schema=CONTROL_SCHEMA)
    told = pl.DataFrame({"stay_id": tensors.stay_id}).join(findings, on="stay_id", how="left", maintain_order="left")
    truth = told.select(*FINDINGS).to_numpy()
    used = tensors.pictured & np.isin(tensors.part, ("train", "test")) & ~np.isnan(truth).all(axis=1)
    rows = np.flatnonzero(used)
    if not len(rows):
        return nothing
    found = [nothing]
    for encoder, (strategy, batches) in encoders.items():
        if not any(isinstance(module, ImageEncoder) for module in strategy.modules()):
            continue
        features = image_features(strategy, spec, batches, torch.from_numpy(rows).to(batches.device))
        if features is None:
            continue
        for column, finding in enumerate(FINDINGS):
            known = ~np.isnan(truth[rows, column])
            train, test = (known & (tensors.part[rows] == part) for part in ("train", "test"))
            present = truth[rows, column] == 1
            if min((present & train).sum(), (~present & train).sum()) < FEWEST or not test.any():
                continue
            constants = {"task": spec.task, "train_cohort": spec.train_cohort, "fold": spec.fold, "seed": spec.seed}
            constants |= {"finding": finding, "encoder": encoder}
            found.append(
                pl.DataFrame(
                    {
                        **{name: [value] * int(test.sum()) for name, value in constants.items()},
                        "stay_id": tensors.stay_id[rows[test]],
                        "present": present[test],
                        "score": _scores(features[train], present[train], features[test]),
                    },
                    schema=CONTROL_SCHEMA,
                )
            )
    return files.significant(pl.concat(found))


def _scores(features: Array, present: Array, asked: Array) -> Array:
    """Probabilities of `asked` [m, D] from a ridge logistic regression on standardised features [n, D]."""
    import sklearn.utils  # noqa: F401 - loads the OpenMP whose threads are limited
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    centre, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    spread[spread == 0] = 1.0
    with threadpool_limits(1):
        model = LogisticRegression(C=0.1, max_iter=1000).fit((features - centre) / spread, present)
        found: Array = model.predict_proba((asked - centre) / spread)[:, 1]
    return found
