"""New stays as tensors of a run: what training.load_fold makes of its own, with the scaling of its training stays.

No label, split or mask is read of them: there is none.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.data.inputs import build_inputs
from pipeline.data.statics import STATICS, model_variables, static_values
from pipeline.data.statistics import describe
from pipeline.data.tensors import Array, FoldTensors, image_places, most_images, read_images
from pipeline.tasks import get_task
from pipeline.training.grid import RunSpec


def parts(data: Path, fold: int) -> pl.DataFrame:
    """The stays of training in the order of stays.parquet: stay_id, age, gender, admission_group, has_cxr, part."""
    stays = pl.read_parquet(
        data / "cohort/stays.parquet", columns=["stay_id", *(each.name for each in STATICS), "has_cxr"]
    )
    of_fold = pl.read_parquet(data / "splits.parquet").filter(pl.col("fold") == fold).select("stay_id", "part")
    return stays.join(of_fold, on="stay_id", how="left", maintain_order="left", validate="1:1")


def new_tensors(folder: Path, data: Path, spec: RunSpec) -> FoldTensors:
    """The stays below `folder` (`stays.read_stays`) as the run saw its own, which lie below `data`.

    `part` is `new`, no image is removed, and targets are NaN: nobody may look at them.
    """
    stays = pl.read_parquet(folder / "cohort/stays.parquet")
    index, pixels, embeddings = read_images(folder, spec.training.image)
    counts = pl.read_parquet(folder / "cohort/cxr.parquet", columns=["stay_id"]).group_by("stay_id").len("count")
    rows = stays.join(counts, on="stay_id", how="left", maintain_order="left", validate="1:1")
    values = np.load(folder / "series/values.npy")
    statistics = json.loads((data / "series/statistics.json").read_text(encoding="utf-8"))[str(spec.fold)]
    if spec.training.statics:
        trained = parts(data, spec.fold).filter(part="train")
        ages = static_values(trained)[:, 0]
        statistics["age"] = describe(ages[~np.isnan(ages)])
        shape = (*values.shape[:2], len(STATICS))
        values = np.concatenate([values, np.broadcast_to(static_values(rows)[:, None], shape)], axis=2)
    labels = len(get_task(spec.task).labels)
    stay_id = rows["stay_id"].to_numpy().astype(np.int64)
    per_stay = most_images(pl.read_parquet(data / "images/index.parquet", columns=["rank"]))
    return FoldTensors(
        stay_id=stay_id,
        part=np.full(rows.height, "new"),
        series=build_inputs(values, model_variables(spec.tier, spec.training.statics), statistics),
        pixels=pixels,
        embeddings=embeddings,
        places=image_places(index, stay_id, per_stay),
        image_count=rows["count"].fill_null(0).to_numpy().astype(np.int64),
        removed_at=np.ones(rows.height),
        targets=np.full((rows.height, labels), np.nan, np.float32),
    )


def outsiders(data: Path, fold: int) -> tuple[Array, int]:
    """Rows of the stays that the fold did not train on, and the number of all.

    A strategy may remember stays of training by their row (Batch.index): a new stay must pass for none of them.
    """
    part = parts(data, fold)["part"].to_numpy()
    return np.flatnonzero(part != "train"), len(part)
