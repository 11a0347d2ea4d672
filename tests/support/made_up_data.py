"""A small, made-up data/ folder in the shape of docs/artefacts.md, with a signal planted in series and pixels."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import files
from pipeline.data.masks import masks
from pipeline.data.splits import split
from pipeline.data.statistics import fold_statistics
from pipeline.mimic.variables import load_variables
from pipeline.params import Masks, Splits
from pipeline.tasks import LOS_EDGES, phenotype_slugs

START = datetime(2150, 1, 1)


def stays_frame(n: int, rng: np.random.Generator) -> pl.DataFrame:
    """n stays, about a fifth of them second stays of a subject."""
    subjects = 10_000 + np.sort(rng.integers(0, max(1, int(n * 0.9)), n))
    has_cxr = rng.random(n) < 0.5
    intime = [START + timedelta(hours=int(h)) for h in rng.integers(0, 50_000, n)]
    los = 2.0 + rng.exponential(3.0, n)
    return pl.DataFrame(
        {
            "stay_id": np.arange(n, dtype=np.int32) + 30_000_000,
            "subject_id": subjects.astype(np.int32),
            "hadm_id": np.arange(n, dtype=np.int32) + 20_000_000,
            "intime": intime,
            "outtime": [t + timedelta(days=float(d)) for t, d in zip(intime, los, strict=True)],
            "los_days": los,
            "age": rng.integers(18, 91, n),
            "gender": rng.choice(["M", "F"], n),
            "race_group": rng.choice(["WHITE", "BLACK", "UNKNOWN"], n),
            "admission_group": rng.choice(["EMERGENCY", "ELECTIVE"], n),
            "admission_type": rng.choice(["EW EMER.", "ELECTIVE"], n),
            "insurance": rng.choice(["Medicare", "Other"], n),
            "era": rng.choice(["2011 - 2013", "2014 - 2016"], n),
            "icd_version": rng.choice([9, 10], n).astype(np.int8),
            "first_careunit": rng.choice(["MICU", "SICU"], n),
            "has_cxr": has_cxr,
            "cxr_status": np.where(has_cxr, "present", "not_taken"),
        }
    )


def fabricate(folder: Path, n: int = 160, px: int = 16, seed: int = 0, noise: float = 0.5, tier: str = "core") -> Path:
    """Writes the packed artefacts of `n` stays below `folder` and returns it.

    Odd phenotypes and mortality follow the heart rate, even phenotypes the brightness of the image where there is one;
    so does edema in the reports, and effusion in every second one.
    """
    rng = np.random.default_rng(seed)
    stays = stays_frame(n, rng)
    variables = load_variables(tier)
    series_cause, image_cause = rng.standard_normal(n), rng.standard_normal(n)

    values = np.full((n, 48, len(variables)), np.nan, np.float32)
    values[:, :, 0] = 80 + 15 * series_cause[:, None] + rng.standard_normal((n, 48))
    values[:, ::4, 1] = 120 + 10 * rng.standard_normal((n, 12))
    category = next(i for i, v in enumerate(variables) if v.kind == "category")
    values[:, ::6, category] = rng.integers(0, len(variables[category].vocabulary), (n, 8))
    for column, variable in enumerate(variables):
        if variable.tier == "plus":  # a lab a night, a tube or none
            values[:, 5::24, column] = np.round(variable.low + rng.random((n, 2)) * (variable.high - variable.low))

    rows = np.flatnonzero(stays["has_cxr"].to_numpy())
    pixels = np.clip(128 + 40 * image_cause[rows, None, None] + 10 * rng.standard_normal((len(rows), px, px)), 0, 255)
    pixels = pixels.astype(np.uint8)
    index = stays[rows].select(
        pl.int_range(pl.len(), dtype=pl.Int32).alias("row"),
        "stay_id",
        pl.Series("dicom_id", [f"image-{i:04d}" for i in rows]),
        pl.Series("hours_from_intime", rng.uniform(0, 48, len(rows))),
        pl.when(pl.col("stay_id") % 2 == 0).then(pl.lit("AP")).otherwise(pl.lit("PA")).alias("view"),
        pl.lit(1, pl.Int32).alias("rank"),
        pl.lit(px, pl.Int32).alias("height"),
        pl.lit(px, pl.Int32).alias("width"),
        pl.Series("sha256", [hashlib.sha256(p.tobytes()).hexdigest() for p in pixels]),
    )

    slugs = phenotype_slugs()
    cause = {slug: series_cause if i % 2 else image_cause * stays["has_cxr"].to_numpy() for i, slug in enumerate(slugs)}
    labels = pl.DataFrame(
        {
            "stay_id": stays["stay_id"],
            "icu_mortality": series_cause + noise * rng.standard_normal(n) > 0.8,
            "hospital_mortality": series_cause + noise * rng.standard_normal(n) > 0.8,
            "los_class": (np.searchsorted(LOS_EDGES, stays["los_days"].to_numpy(), side="right") - 1).astype(np.int8),
            **{slug: cause[slug] + noise * rng.standard_normal(n) > 0.5 for slug in slugs},
        }
    )
    splits = split(
        stays,
        labels,
        Splits(scheme="folds", test_from_year=2014, salt="test", folds=3, dev_share=0.1, val_share=0.2, stratify=False),
    )
    removal, _ = masks(stays, splits, Masks(salt="test"))
    statistics = {}
    for fold in range(3):
        part = stays.join(splits.filter(pl.col("fold") == fold), on="stay_id", maintain_order="left")["part"]
        statistics[fold] = fold_statistics(
            values, (part == "train").to_numpy(), [v.name for v in variables], [v.kind != "category" for v in variables]
        )
    files.write_parquet(stays, folder / "cohort/stays.parquet")
    eligible = index.select(
        "stay_id",
        "dicom_id",
        "hours_from_intime",
        "view",
        pl.lit(1, pl.Int32).alias("rank"),
        (pl.col("row") + 50_000_000).alias("study_id"),
    )
    second = eligible.filter(pl.col("stay_id") % 3 == 0).with_columns(
        rank=pl.lit(2, pl.Int32), view=pl.lit("PA"), study_id=pl.col("study_id") + 1_000_000
    )
    told = np.where(image_cause[rows] > 0.1, 1.0, np.where(image_cause[rows] < -0.1, 0.0, -1.0))
    findings = index.select(
        (pl.col("row") + 50_000_000).alias("study_id"),
        pl.Series("Edema", told),
        pl.when(pl.col("row") % 2 == 0).then(pl.Series(told)).alias("Pleural Effusion"),
    )
    files.write_parquet(pl.concat([eligible, second]).sort("stay_id", "rank"), folder / "cohort/cxr.parquet")
    files.write_parquet(findings, folder / "interim/cxr_findings.parquet")
    files.write_parquet(labels, folder / "cohort/labels.parquet")
    files.write_parquet(index, folder / "images/index.parquet")
    files.write_array(pixels, folder / "images/pixels.npy")
    files.write_array(values, folder / "series/values.npy")
    files.write_json(statistics, folder / "series/statistics.json", digits=9)
    files.write_parquet(splits, folder / "splits.parquet")
    files.write_parquet(removal, folder / "masks.parquet")
    return folder


def with_older_images(folder: Path) -> Path:
    """The data of `fabricate`, where every other stay with an image has a second, five hours older, inverted."""
    index, pixels = pl.read_parquet(folder / "images/index.parquet"), np.load(folder / "images/pixels.npy")
    older = index.filter(pl.col("row") % 2 == 0).with_columns(
        row=index.height + pl.int_range(pl.len(), dtype=pl.Int32),
        rank=pl.lit(2, pl.Int32),
        hours_from_intime=pl.col("hours_from_intime") - 5,
    )
    files.write_array(np.concatenate([pixels, 255 - pixels[::2]]), folder / "images/pixels.npy")
    files.write_parquet(pl.concat([index, older]), folder / "images/index.parquet")
    return folder
