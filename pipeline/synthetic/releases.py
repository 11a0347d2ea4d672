"""What MIMIC-IV 3.1 and MIMIC-CXR-JPG 2.1.0 do otherwise than 2.2 and 2.0.0, whose layout the other modules write.

3.1 leaves the patients of 2.2, and their rows, as they are, and adds a fifth more of 2020 - 2022 (with ICU names of
their own). Everybody's insurance and language are told more finely; some who died in hospital have no deathtime, or a
dod some days off (mimic-code discussion 2167). 2.1.0 keeps the four tables and adds two files.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.synthetic.streams import pick, stream

Tables = dict[str, pl.DataFrame]
NAMES = {"mimiciv": "MIMIC-IV", "mimic-cxr-jpg": "MIMIC-CXR-JPG"}
NEWCOMERS = 364_627 / 299_712 - 1  # patients that 3.1 adds to each of 2.2
OTHER_INSURANCE = {"Private": 85, "Other": 7, "No charge": 2, None: 6}  # what 2.2 calls Other
NO_ENGLISH = {  # what 2.2 calls "?"
    "Spanish": 35, "Russian": 15, "Chinese": 14, "Kabuverdianu": 8, "Haitian": 7, "Portuguese": 7, "Vietnamese": 4,
    "Other": 5, None: 5,
}  # fmt: skip
NO_DEATHTIME, DOD_OFF = 0.05, 0.05  # shares of those who died in hospital; more than in 3.1, to be there in small files
LABELED_FILE = "mimic-cxr-2.1.0-test-set-labeled.csv"
LABELED = (  # the order of the columns is a guess, their names are not
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Airspace Opacity", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
    "No Finding",
)  # fmt: skip


def newcomers_seed(seed: int) -> int:
    """The seed of the patients that 3.1 adds."""
    return zlib.crc32(f"newcomers of {seed}".encode())


def join(parts: Sequence[Tables]) -> Tables:
    """The tables of several groups of patients, one after the other, with row numbers that differ."""
    joined, *later = parts
    for part in later:
        part = dict(part)
        for name, column in (("hosp/transfers", "transfer_id"), ("hosp/labevents", "specimen_id")):
            part[name] = part[name].with_columns(_apart(part[name][column], joined[name][column]))
        last = joined["hosp/labevents"]["labevent_id"].max()
        part["hosp/labevents"] = part["hosp/labevents"].with_columns(pl.col("labevent_id") + last)
        joined = {name: pl.concat([frame, part[name]]) for name, frame in joined.items()}
    return joined


def _apart(numbers: pl.Series, taken: pl.Series) -> pl.Series:
    """`numbers`, those in `taken` replaced by the next free one."""
    used, new = {*taken, *numbers}, {}
    for number in sorted({*numbers} & {*taken}):
        free = number
        while free in used:
            free += 1
        used.add(free)
        new[number] = free
    return numbers.replace(new)


def as_3_1(seed: int, tables: Tables) -> Tables:
    """Tables of 2.2, times in seconds, as 3.1 tells them. No stay's length, label or window changes."""
    rng = stream(seed, "release 3.1")
    admissions, patients = tables["hosp/admissions"], tables["hosp/patients"]
    n = admissions.height
    insurance = pl.Series(pick(rng, OTHER_INSURANCE, n).tolist(), dtype=pl.String)
    tongues = patients.select(
        "subject_id", tongue=pl.Series(pick(rng, NO_ENGLISH, patients.height).tolist(), dtype=pl.String)
    )
    # only where dischtime says the same, so that no label changes
    silent = pl.Series(rng.random(n) < NO_DEATHTIME) & pl.col("deathtime").eq(pl.col("dischtime"))
    admissions = (
        admissions.join(tongues, on="subject_id", how="left", maintain_order="left")
        .with_columns(
            insurance=pl.when(pl.col("insurance") == "Other").then(insurance).otherwise("insurance"),
            language=pl.when(pl.col("language") == "?").then("tongue").otherwise(pl.lit("English")),
            deathtime=pl.when(silent).then(None).otherwise("deathtime"),
        )
        .select(admissions.columns)
    )
    died = admissions.filter(pl.col("hospital_expire_flag") == 1)["subject_id"].unique()
    off = pl.col("subject_id").is_in(died.implode()) & pl.Series(rng.random(patients.height) < DOD_OFF)
    days = pl.Series(rng.integers(2, 8, patients.height), dtype=pl.Int32)
    patients = patients.with_columns(dod=pl.when(off).then(pl.col("dod") + days).otherwise("dod"))
    return tables | {"hosp/admissions": admissions, "hosp/patients": patients}


def add_2_1_0(root: Path, images: Sequence[str], split: pl.DataFrame, chexpert: pl.DataFrame) -> None:
    """The files that 2.1.0 adds: the paths of all images, and the labels that radiologists gave to test studies.

    Of the studies in the official test part, the labels are those of the report; a small hospital may have none.
    """
    files.write_text("".join(f"{path}\n" for path in images), root / "IMAGE_FILENAMES")
    test = split.filter(pl.col("split") == "test")["study_id"].unique()
    labeled = chexpert.filter(pl.col("study_id").is_in(test.implode())).rename({"Lung Opacity": "Airspace Opacity"})
    frame = labeled.select("study_id", pl.col(LABELED).cast(pl.Int8)).sort("study_id")
    files.write_csv(frame, root / LABELED_FILE)
