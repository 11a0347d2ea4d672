"""Leaks by people: whose stay it is, who is dead, who is in which part."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from tests.support.planted.changes import moved, of_several_admissions, where


def intime_six_hours_later(a):
    """The window of one stay begins later, and with it ends later."""
    return {"stays": where(a.stays, "intime", 3, pl.col("intime") + timedelta(hours=6))}


def stay_of_another_subject(a):
    return {"stays": where(a.stays, "subject_id", 3, a.stays["subject_id"][4])}


def stay_of_another_admission(a):
    return {"stays": where(a.stays, "hadm_id", 3, a.stays["hadm_id"][4])}


def length_of_stay_of_another(a):
    return {"stays": where(a.stays, "los_days", 3, a.stays["los_days"][4] + 0.01)}


def stay_twice(a):
    return {"stays": pl.concat([a.stays, a.stays[5:6]]).sort("stay_id")}


def stay_of_no_admission(a):
    return {"admissions": a.admissions.filter(pl.col("hadm_id") != a.stays["hadm_id"][3])}


def admission_of(a, row, name, value):
    chosen = pl.col("hadm_id") == a.stays["hadm_id"][row]
    return a.admissions.with_columns(pl.when(chosen).then(value).otherwise(pl.col(name)).alias(name))


def dead_at_hour_45_though_the_bed_was_left_later(a):
    return {"admissions": admission_of(a, 3, "deathtime", pl.lit(a.stays["intime"][3] + timedelta(hours=45)))}


def dead_at_hour_40_without_deathtime(a):
    gone = pl.col("hadm_id") == a.stays["hadm_id"][3]
    return {
        "admissions": admission_of(a, 3, "hospital_expire_flag", pl.lit(1, pl.Int16)).with_columns(
            deathtime=pl.when(gone).then(None).otherwise("deathtime"),
            dischtime=pl.when(gone).then(a.stays["intime"][3] + timedelta(hours=40)).otherwise("dischtime"),
        )
    }


def dead_in_an_admission_before(a):
    """Of a stay that begins as if the patient had come back: an organ donor's second admission."""
    rows = of_several_admissions(a, "train", "val", "test", "dev").sort("intime")
    before = pl.col("hadm_id") == rows["hadm_id"][0]
    death = rows["intime"][1] - timedelta(hours=5)
    return {"admissions": a.admissions.with_columns(deathtime=pl.when(before).then(death).otherwise("deathtime"))}


def discharged_at_hour_47(a):
    short = a.stays["intime"][3] + timedelta(hours=47)
    row = pl.col("stay_id") == a.stays["stay_id"][3]
    return {"icustays": a.icustays.with_columns(outtime=pl.when(row).then(short).otherwise("outtime"))}


def readmission_in_another_part(a):
    """A subject's second admission goes to validation, the first stays in training."""
    return moved(a, 0, of_several_admissions(a, "train")["stay_id"][-1:], "val")


def test_subject_in_training_of_the_same_fold(a):
    return moved(a, 0, of_several_admissions(a, "test")["stay_id"][:1], "train")


def splits_by_stay_under_a_false_subject(a):
    """The splits' own subject_id says that all is well."""
    changes = readmission_in_another_part(a)
    stay = of_several_admissions(a, "train")["stay_id"][-1]
    chosen = pl.col("stay_id") == stay
    splits = changes["splits"].with_columns(subject_id=pl.when(chosen).then(1).otherwise("subject_id").cast(pl.Int32))
    return {"splits": splits, "stays": a.stays.with_columns(pl.when(chosen).then(1).otherwise("subject_id"))}


def dev_subject_in_training(a):
    subject = a.splits.filter(pl.col("part") == "dev")["subject_id"][0]
    return moved(a, 1, a.stays.filter(pl.col("subject_id") == subject)["stay_id"], "train")


def subject_tested_twice(a):
    subject = a.splits.filter((pl.col("part") == "test") & (pl.col("fold") == 0))["subject_id"][0]
    return moved(a, 1, a.stays.filter(pl.col("subject_id") == subject)["stay_id"], "test")


def subject_never_tested(a):
    subject = a.splits.filter((pl.col("part") == "test") & (pl.col("fold") == 0))["subject_id"][0]
    return moved(a, 0, a.stays.filter(pl.col("subject_id") == subject)["stay_id"], "train")


def temporal(a, era):
    """One fold in which everyone is early, but for one training stay of `era`."""
    train = a.splits.filter(fold=0, part="train")["stay_id"][0]
    stays = a.stays.with_columns(era=pl.lit("2011 - 2013"))
    row = stays["stay_id"].index_of(train)
    changed = where(stays, "era", row, pl.lit(era, pl.String))
    return {"stays": changed, "splits": a.splits.filter(fold=0), "test_from_year": 2014}


def training_stay_of_a_tested_era(a):
    return temporal(a, "2014 - 2016")


def training_stay_without_era(a):
    return temporal(a, None)


def stay_without_part(a):
    return {"splits": a.splits[1:]}


def stay_in_a_fold_twice(a):
    return {"splits": pl.concat([a.splits, a.splits[7:8]])}


def part_of_no_name(a):
    return {"splits": where(a.splits, "part", 7, pl.lit("holdout"))}
