"""CareBench's benchmark_data folder: hourly CSV a stay, five folds; Parquet, YAML and .npy where it has code to run.

CareBench keeps a stay's images as the text of a Python expression in its fold CSVs, and caches model input in pickles:
both run what a file says. Here the first is a typed column, the second an array that loads with `allow_pickle=False`.
Columns and rules are those that its loader reads (docs/exports.md).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from pipeline import files
from pipeline.exporting.source import folds_of, new_folder, packed_series, parts_of, require
from pipeline.params import INPUT_HOURS
from pipeline.strict import read_yaml
from pipeline.tasks import PHENOTYPES_FILE

RHYTHM = "rhythm_"  # its loader gives no mask to names that begin so
_VITALS = ("heart_rate", "sbp", "dbp", "mbp", "resp_rate", "temperature", "spo2", "glucose")
_RHYTHMS = ("heart_rhythm", "ectopy_type", "ectopy_frequency", "ectopy_type_secondary", "ectopy_frequency_secondary")
# Our variables under CareBench's names, as far as these are public; others keep their own.
NAMES = {
    **{name: f"vitalsign_{name}" for name in _VITALS},
    **{name: f"gcs_{name}" for name in ("gcs_eyes", "gcs_motor", "gcs_verbal")},
    "gcs_total": "gcs_gcs",
    **{name: f"{RHYTHM}{name}" for name in _RHYTHMS},
}
BLOCK = 1024  # stays
Array = np.ndarray[Any, Any]
Statistics = dict[str, float | bool | None]
log = logging.getLogger("export")


def write_carebench(data: Path, out: Path) -> None:
    """Writes merged/, splits/ and stays_meta_with_labels.parquet to the new folder `out`; fold K is its fold K + 1.

    `data`: the packed data. Raises InputError where a file of it is absent.
    """
    require(data, "cohort/stays.parquet", "cohort/labels.parquet", "cohort/cxr.parquet", "interim/admissions.parquet")
    values, variables = packed_series(data)
    names = [NAMES.get(variable.name, variable.name) for variable in variables]
    stays = stay_table(data)
    with new_folder(out) as folder:
        files.write_parquet(stays, folder / "stays_meta_with_labels.parquet")
        _write_merged(stays["stay_id"], values, names, folder / "merged")
        files.write_yaml({"chartlab_feature": names}, folder / "splits/features.yaml")
        for fold in tqdm(folds_of(data), desc="folds", unit="fold"):
            part = stays.select("stay_id").join(parts_of(data, fold), on="stay_id", how="left", maintain_order="left")
            below = folder / f"splits/fold{fold + 1}"
            train = np.flatnonzero((part["part"] == "train").to_numpy())
            told = {name: describe(values[train, :, i], name) for i, name in enumerate(names)}
            files.write_yaml(told, below / "train_stats.yaml")
            for name in part["part"].unique().sort():
                rows = np.flatnonzero((part["part"] == name).to_numpy())
                files.write_parquet(stays[rows], below / f"stays_{name}.parquet")
                _write_inputs(values, rows, names, told, below / f"ehr_{name}.npy")
    log.info("%d stays, %d of them with an image: %s", stays.height, (stays["valid_cxrs"].list.len() > 0).sum(), out)


def stay_table(data: Path) -> pl.DataFrame:
    """A row a stay, in the order of stays.parquet, with what CareBench's loader reads.

    It finds the 25 phenotypes by their place, the 26th to the 2nd column from the right, and takes the last of
    `valid_cxrs` for the image.
    """
    titles = {row["slug"]: row["label"] for row in read_yaml(PHENOTYPES_FILE)["phenotypes"]}
    images = (
        pl.read_parquet(data / "cohort/cxr.parquet")
        .sort("stay_id", "rank", descending=[False, True])
        .group_by("stay_id", maintain_order=True)
        .agg(pl.struct("dicom_id", "cxr_time").alias("valid_cxrs"))
    )
    race = pl.read_parquet(data / "interim/admissions.parquet", columns=["hadm_id", "race"])
    return (
        pl.read_parquet(data / "cohort/stays.parquet")
        .join(pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id", how="left", maintain_order="left")
        .join(race, on="hadm_id", how="left", maintain_order="left")
        .join(images, on="stay_id", how="left", maintain_order="left")
        .select(
            *("stay_id", "subject_id", "hadm_id", "intime", "outtime", pl.col("los_days").alias("los")),
            pl.col("icu_mortality").cast(pl.Int8),
            *("age", "gender", "admission_type", "race", pl.col("valid_cxrs").fill_null([])),
            *(pl.col(slug).cast(pl.Int8).alias(title) for slug, title in titles.items()),
            pl.col("hospital_mortality").cast(pl.Int8),
        )
    )


def coded(values: Array, names: Sequence[str]) -> Array:
    """Rhythms as place in the vocabulary, from 1: CareBench writes 0 where none was charted."""
    return values + np.array([name.startswith(RHYTHM) for name in names], np.float32)


def masked(names: Sequence[str]) -> list[str]:
    """The features that have a mask."""
    return [name for name in names if not name.startswith(RHYTHM)]


def _write_merged(stay_ids: pl.Series, values: Array, names: Sequence[str], folder: Path) -> None:
    """STAY_ID.csv: timestep (hour), the features, empty where nothing was charted, and their masks: 1 is missing."""
    folder.mkdir()
    hours = pl.Series("timestep", range(INPUT_HOURS))
    masks = [pl.col(name).is_null().cast(pl.Int8).alias(f"{name}_mask") for name in masked(names)]
    for row, stay_id in enumerate(tqdm(stay_ids, desc="merged", unit="stay")):
        frame = pl.DataFrame(coded(values[row], names), schema=list(names)).fill_nan(None)
        frame.select(hours, *names, *masks).write_csv(folder / f"{stay_id}.csv")


def describe(values: Array, name: str) -> Statistics:
    """What train_stats.yaml says of a feature's observed `values` (NaN: not observed); of a rhythm's places.

    All null where nothing was observed.
    """
    told = values[~np.isnan(values)].astype(np.float64) + name.startswith(RHYTHM)
    if not told.size:
        return dict.fromkeys(("iqr", "max", "mean", "median", "min", "std"), None) | {"normalize": False}
    low, median, high = np.percentile(told, [25, 50, 75])
    found = {"iqr": high - low, "max": told.max(), "mean": told.mean(), "median": median, "min": told.min()}
    found["std"] = told.std()
    rounded = {key: float(f"{value:.9g}") for key, value in found.items()}  # the last bits follow from the processor
    return {**rounded, "normalize": not name.startswith(RHYTHM)}


def inputs(values: Array, names: Sequence[str], told: dict[str, Statistics]) -> Array:
    """Model input [N, 48, F + M] of `values` [N, 48, F]: filled and scaled features, then the M masks (1: missing).

    Forward fill within the stay, before it the training median; (x − median) / IQR, by the standard deviation where
    that is 0, undivided where both are. A rhythm is its place, 0 where none was charted.
    """
    absent = np.isnan(values)
    hours = np.arange(values.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(absent, 0, hours), axis=1)
    filled = np.take_along_axis(coded(values, names), last, axis=1)
    for column, name in enumerate(names):
        if name.startswith(RHYTHM):
            filled[:, :, column] = np.nan_to_num(coded(values, names)[:, :, column])
            continue
        known = told[name]
        median = known["median"] or 0.0
        scale = known["iqr"] or known["std"] or 1.0
        filled[:, :, column] = (np.nan_to_num(filled[:, :, column], nan=median) - median) / scale
    masks = absent[:, :, [column for column, name in enumerate(names) if not name.startswith(RHYTHM)]]
    return np.concatenate([filled, masks.astype(np.float32)], axis=2)


def _write_inputs(values: Array, rows: Array, names: Sequence[str], told: dict[str, Statistics], path: Path) -> None:
    """`inputs` of these rows as .npy, a block of stays at a time."""
    array = files.create_array(path, (len(rows), INPUT_HOURS, len(names) + len(masked(names))), np.float32)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        array[start : start + len(block)] = inputs(np.asarray(values[block]), names, told)
    array.flush()
