"""Leaks by people: whose stay it is, whether the patient is there at prediction time, and in which part."""

from __future__ import annotations

import polars as pl

from pipeline.data.audit.artefacts import WINDOW, Artefacts, Leak, died_at, leak_of

PARTS = ("train", "val", "test", "dev")


def _parted(a: Artefacts) -> pl.DataFrame:
    """stay_id, subject_id (of the raw ICU stays), fold, part."""
    return a.splits.select("stay_id", "fold", "part").join(a.icustays.select("stay_id", "subject_id"), on="stay_id")


def stays_contradict_records(a: Artefacts) -> Leak | None:
    """A stay that is in stays.parquet twice, whose subject, admission, intime, outtime or length are not those of
    interim/icustays (hour 48 would be another one), or whose admission interim/admissions does not know."""
    record = ["stay_id", "subject_id", "hadm_id", "intime", "outtime"]
    days = (pl.col("outtime") - pl.col("intime")).dt.total_microseconds() / 86_400_000_000
    return (
        leak_of("twice in stays.parquet", a.stays.filter(pl.col("stay_id").is_duplicated()))
        or leak_of("not as in icustays", a.stays.join(a.icustays, on=record, how="anti"))
        or leak_of("of another length", a.stays.filter(((pl.col("los_days") - days).abs() > 1e-6).fill_null(True)))
        or leak_of("of no admission", a.stays.join(a.admissions, on=["subject_id", "hadm_id"], how="anti"))
    )


def dead_at_prediction_time(a: Artefacts) -> Leak | None:
    """Death in hospital, in whatever admission of the subject, or the end of the stay, before intime + 48 h: the label
    would be known when the prediction is made. Recounted from interim/icustays and interim/admissions (deathtime, else
    dischtime of who died there). Not from dod: a date without time, which linkage can get wrong."""
    cohort = a.icustays.join(a.stays.select("stay_id"), on="stay_id", how="semi")
    deaths = a.admissions.group_by("subject_id").agg(died_at().min().alias("died_at"))
    frame = cohort.join(deaths, on="subject_id", how="left")
    end = pl.col("intime") + WINDOW
    return leak_of("dead before intime + 48 h", frame.filter(pl.col("died_at") < end)) or leak_of(
        "discharged before intime + 48 h", frame.filter((pl.col("outtime") < end).fill_null(True))
    )


def subjects_cross_parts(a: Artefacts) -> Leak | None:
    """A subject (by interim/icustays) whose stays are in two parts of one fold, or that is in dev in one fold and in
    another part in another."""
    parted = _parted(a)
    mixed = parted.group_by("fold", "subject_id").agg(pl.col("part").n_unique()).filter(pl.col("part") > 1)
    dev = parted.group_by("subject_id").agg((pl.col("part") == "dev").any() & (pl.col("part") != "dev").any())
    return leak_of("in two parts of a fold", mixed, "subject_id") or leak_of(
        "in dev beside another part", dev.filter("part"), "subject_id"
    )


def subjects_not_tested_once(a: Artefacts) -> Leak | None:
    """A subject (by interim/icustays) in the test of two folds; with several folds also one that is in the test of
    none, dev apart. Where there is one fold, as in a split by time, subjects may go without a test."""
    folds = a.splits["fold"].n_unique()
    tested = (
        _parted(a)
        .filter(pl.col("part") != "dev")
        .group_by("subject_id")
        .agg(tests=pl.col("fold").filter(pl.col("part") == "test").n_unique())
    )
    return leak_of("in the test of several folds", tested.filter(pl.col("tests") > 1), "subject_id") or leak_of(
        "in the test of no fold", tested.filter((pl.col("tests") == 0) & pl.lit(folds > 1)), "subject_id"
    )


def later_era_in_training(a: Artefacts) -> Leak | None:
    """With splits.scheme temporal: a training or validation stay of an era that is tested, or of no era."""
    if a.test_from_year is None:
        return None
    fitted = a.splits.filter(pl.col("part").is_in(["train", "val"])).join(
        a.stays.select("stay_id", "era"), on="stay_id"
    )
    early = (pl.col("era").str.head(4).cast(pl.Int32) < a.test_from_year).fill_null(False)
    return leak_of(f"trained on, and not before {a.test_from_year}", fitted.filter(~early))


def splits_incomplete(a: Artefacts) -> Leak | None:
    """A stay of stays.parquet that is not in splits.parquet once in every fold, a part that is none of train, val, test
    and dev, a stay of the splits that is not in the cohort, or folds that are not counted from 0."""
    folds = a.splits["fold"].unique().sort().to_list()
    if folds != list(range(len(folds))):
        return Leak(f"the folds are {folds}")
    rows = a.splits.group_by("stay_id").agg(n=pl.len(), folds=pl.col("fold").n_unique())
    counted = a.stays.join(rows, on="stay_id", how="left").with_columns(pl.col("n", "folds").fill_null(0))
    return (
        leak_of("not once in every fold", counted.filter((pl.col("n") != len(folds)) | (pl.col("folds") != len(folds))))
        or leak_of("in no known part", a.splits.filter(~pl.col("part").is_in(PARTS).fill_null(False)))
        or leak_of("not of the cohort", a.splits.join(a.stays, on="stay_id", how="anti"))
    )
