"""MedFuse's data folder: a CSV of 17 channels a stay, a listfile a task and part of one fold, and the lists beside.

Channels and their texts are those of the discretiser of mimic3-benchmarks (Harutyunyan et al. 2019), which MedFuse
(Hayat et al. 2022) uses; its reader wants hours that do not lie on an edge of a bin. docs/exports.md tells the rest.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from pipeline.exporting.source import new_folder, packed_series, parts_of, require
from pipeline.params import INPUT_HOURS
from pipeline.strict import read_yaml
from pipeline.tasks import PHENOTYPES_FILE

EYES = ("1 No Response", "2 To pain", "3 To speech", "4 Spontaneously")
MOTOR = (
    *("1 No Response", "2 Abnorm extensn", "3 Abnorm flexion"),
    *("4 Flex-withdraws", "5 Localizes Pain", "6 Obeys Commands"),
)
VERBAL = ("1 No Response", "2 Incomp sounds", "3 Inapprop words", "4 Confused", "5 Oriented")
TOTAL = ("", "", *map(str, range(3, 16)))
# channel -> our variable (none: always empty), and the texts of its scores, from 1
CHANNELS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "Capillary refill rate": (None, ()),
    "Diastolic blood pressure": ("dbp", ()),
    "Fraction inspired oxygen": ("fio2", ()),
    "Glascow coma scale eye opening": ("gcs_eyes", EYES),
    "Glascow coma scale motor response": ("gcs_motor", MOTOR),
    "Glascow coma scale total": ("gcs_total", TOTAL),
    "Glascow coma scale verbal response": ("gcs_verbal", VERBAL),
    "Glucose": ("glucose", ()),
    "Heart Rate": ("heart_rate", ()),
    "Height": ("height", ()),
    "Mean blood pressure": ("mbp", ()),
    "Oxygen saturation": ("spo2", ()),
    "Respiratory rate": ("resp_rate", ()),
    "Systolic blood pressure": ("sbp", ()),
    "Temperature": ("temperature", ()),
    "Weight": ("weight", ()),
    "pH": ("ph", ()),
}
DIVIDED = {"fio2": 100.0}  # ours is a percentage
# MedFuse's two tasks, and the benchmark's own mortality in the form of the first
TASKS = {"in-hospital-mortality": "hospital_mortality", "icu-mortality": "icu_mortality", "phenotyping": ""}
FOLDERS = {"train": "train", "val": "train", "test": "test"}  # of a part's series: those of val stand beside train's
log = logging.getLogger("export")


def write_medfuse(data: Path, out: Path, fold: int | None = None) -> None:
    """Writes TASK/{train,val,test}_listfile.csv, TASK/{train,test}/, root/ and the images' split to the new folder.

    `fold`: the first where None. Stays of `dev` are in no list. Raises InputError where a file or the fold is absent.
    """
    require(data, "cohort/stays.parquet", "cohort/labels.parquet", "cohort/cxr.parquet")
    values, variables = packed_series(data)
    place = {variable.name: index for index, variable in enumerate(variables)}
    stays = _stays(data, fold)
    first, *others = TASKS
    with new_folder(out) as folder:
        for task in TASKS:
            for below in set(FOLDERS.values()):
                (folder / task / below).mkdir(parents=True)
            for part, rows in _listfiles(stays, task):
                rows.write_csv(folder / task / f"{part}_listfile.csv")
        for stay in tqdm(list(stays.iter_rows(named=True)), desc="timeseries", unit="stay"):
            if stay["part"] in FOLDERS:
                name = f"{FOLDERS[stay['part']]}/{stay['stay']}"
                timeseries(values[stay["row"]], place).write_csv(folder / first / name)
                for task in others:
                    _again(folder / first / name, folder / task / name)
        every = stays.select("subject_id", "hadm_id", "stay_id", "intime", "outtime")
        (folder / "root").mkdir()
        every.write_csv(folder / "root/all_stays.csv", datetime_format="%Y-%m-%d %H:%M:%S")
        _image_split(data, stays).write_csv(folder / "mimic-cxr-ehr-split.csv")
    counts = dict(stays.group_by("part").len().iter_rows())
    log.info("%s stays: %s", ", ".join(f"{part} {counts.get(part, 0)}" for part in FOLDERS), out)


def _stays(data: Path, fold: int | None) -> pl.DataFrame:
    """Stays with `row` (in values.npy), part, labels, and `stay`: the name of the series, counted by subject."""
    episode = pl.struct("intime", "stay_id").rank("ordinal").over("subject_id")
    return (
        pl.read_parquet(data / "cohort/stays.parquet")
        .with_row_index("row")
        .with_columns(stay=pl.format("{}_episode{}_timeseries.csv", "subject_id", episode))
        .join(parts_of(data, fold).drop("subject_id"), on="stay_id", how="left", maintain_order="left")
        .join(pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id", how="left", maintain_order="left")
    )


def _listfiles(stays: pl.DataFrame, task: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """Part and rows: stay, period_length (hours), stay_id, then y_true or the 25 phenotypes; 1 is positive."""
    titles = {row["slug"]: row["label"] for row in read_yaml(PHENOTYPES_FILE)["phenotypes"]}
    labels = {TASKS[task]: "y_true"} if TASKS[task] else titles
    for part in FOLDERS:
        yield (
            part,
            stays.filter(pl.col("part") == part).select(
                "stay",
                pl.lit(float(INPUT_HOURS)).alias("period_length"),
                "stay_id",
                *(pl.col(label).cast(pl.Int8).alias(title) for label, title in labels.items()),
            ),
        )


def timeseries(values: np.ndarray[Any, Any], place: dict[str, int]) -> pl.DataFrame:
    """`values` [48, V] as Hours (the middle of each) and the 17 channels; what was not charted is null.

    `place`: variable -> its place in V. Scores are the discretiser's texts.
    """
    columns = [pl.Series("Hours", np.arange(len(values)) + 0.5)]
    for channel, (name, texts) in CHANNELS.items():
        if name not in place:
            columns.append(pl.Series(channel, [None] * len(values), dtype=pl.String))
            continue
        found = values[:, place[name]] / np.float32(DIVIDED.get(name, 1.0))
        if texts:
            told = [None if np.isnan(score) else texts[int(score) - 1] for score in found]
            columns.append(pl.Series(channel, told, dtype=pl.String))
        else:
            columns.append(pl.Series(channel, found, dtype=pl.Float32, nan_to_null=True))
    return pl.DataFrame(columns)


def _again(there: Path, here: Path) -> None:
    """The same file under another task: a link, where the disk has any."""
    try:
        os.link(there, here)
    except OSError:
        shutil.copyfile(there, here)


def _image_split(data: Path, stays: pl.DataFrame) -> pl.DataFrame:
    """dicom_id, study_id, subject_id, split (train, validate, test) of the cohort's eligible images, each once."""
    named = {"train": "train", "val": "validate", "test": "test"}
    parts = stays.select("stay_id", "part").filter(pl.col("part").is_in(list(named)))
    return (
        pl.read_parquet(data / "cohort/cxr.parquet")
        .join(parts, on="stay_id")
        .select(
            "dicom_id", "study_id", "subject_id", split=pl.col("part").replace_strict(named, return_dtype=pl.String)
        )
        .unique()
        .sort("dicom_id")
    )
