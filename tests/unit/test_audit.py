"""Each check of the leak audit: silent on clean data, and caught by name where its fault is planted."""

import dataclasses
import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from pipeline.data.audit import CHECKS, Artefacts, audit
from pipeline.mimic.series import hourly_frame
from pipeline.mimic.variables import load_variables
from tests.fabricate import fabricate

CORE = load_variables("core")
CHARTED = [variable for variable in CORE if variable.items]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    data = fabricate(tmp_path_factory.mktemp("audit"), n=120)
    stays = pl.read_parquet(data / "cohort/stays.parquet")
    values = np.load(data / "series/values.npy")
    hourly = hourly_frame(stays["stay_id"], values.astype(np.float64), CORE)
    middle = pl.duration(seconds=3600 * pl.col("hour").cast(pl.Int64) + 1800)
    events = pl.concat(
        hourly.filter(pl.col(v.name).is_not_null())
        .join(stays.select("stay_id", "intime"), on="stay_id")
        .select(
            "stay_id",
            (pl.col("intime") + middle).alias("charttime"),
            pl.lit(v.items[-1].itemid, pl.Int32).alias("itemid"),
        )
        for v in CHARTED
    )
    images = pl.read_parquet(data / "images/index.parquet")
    cxr = images.join(stays, on="stay_id").select(
        "stay_id",
        pl.lit(1).alias("rank"),
        "dicom_id",
        "subject_id",
        (pl.col("intime") + pl.duration(microseconds=pl.col("hours_from_intime") * 3.6e9)).alias("cxr_time"),
        "hours_from_intime",
    )
    return Artefacts(
        stays=stays,
        admissions=stays.select(
            "hadm_id",
            pl.lit(None, pl.Datetime).alias("deathtime"),
            pl.col("outtime").alias("dischtime"),
            pl.lit(0, pl.Int16).alias("hospital_expire_flag"),
        ),
        cxr=cxr,
        images=images,
        labels=pl.read_parquet(data / "cohort/labels.parquet"),
        splits=pl.read_parquet(data / "splits.parquet"),
        events=events.lazy(),
        hourly=hourly,
        values=values,
        statistics=json.loads((data / "series/statistics.json").read_text()),
        variables=CORE,
        hours_before=0,
        hours_after=48,
    )


def where(frame, name, row, value):
    """`frame` with `value` (an expression or a literal) in one row of a column."""
    chosen = pl.int_range(pl.len()) == row
    return frame.with_columns(pl.when(chosen).then(value).otherwise(pl.col(name)).alias(name))


def subject_in_two_parts(a):
    train = a.splits.with_row_index().filter((pl.col("fold") == 0) & (pl.col("part") == "train"))
    again = train.filter(pl.col("subject_id").is_duplicated())["index"][0]
    return {"splits": where(a.splits, "part", again, pl.lit("val"))}


def dev_subject_in_training(a):
    subject = a.splits.filter(pl.col("part") == "dev")["subject_id"][0]
    moved = (pl.col("subject_id") == subject) & (pl.col("fold") == 1)
    return {"splits": a.splits.with_columns(part=pl.when(moved).then(pl.lit("train")).otherwise("part"))}


def stay_without_part(a):
    return {"splits": a.splits[1:]}


def dead_at_hour_45(a):
    return {"admissions": where(a.admissions, "deathtime", 3, pl.lit(a.stays["intime"][3] + timedelta(hours=45)))}


def dead_at_hour_40_without_deathtime(a):
    admissions = where(a.admissions, "hospital_expire_flag", 3, pl.lit(1, pl.Int16))
    return {"admissions": where(admissions, "dischtime", 3, pl.lit(a.stays["intime"][3] + timedelta(hours=40)))}


def discharged_at_hour_47(a):
    return {"stays": where(a.stays, "outtime", 3, pl.col("intime") + timedelta(hours=47))}


def event_at_hour_48(a):
    return {"hourly": where(a.hourly, "hour", 5, pl.lit(48, pl.Int8))}


def value_of_the_hour_after(a):
    """The future by an hour, in both files alike: no hour is out of range, and the two agree."""
    values = np.roll(a.values, -1, axis=1)
    values[:, -1] = np.nan
    return {"hourly": hourly_frame(a.stays["stay_id"], values.astype(np.float64), CORE), "values": values}


def event_of_another_stay(a):
    row = a.hourly.filter(pl.col("sbp").is_null()).head(1)
    moved = (pl.col("stay_id") == row["stay_id"][0]) & (pl.col("hour") == row["hour"][0])
    return {"hourly": a.hourly.with_columns(sbp=pl.when(moved).then(120.0).otherwise("sbp"))}


def packed_value_that_was_never_charted(a):
    values = a.values.copy()
    values[7, 11, 2] = 70.0
    return {"values": values}


def packed_value_of_another_hour(a):
    values = a.values.copy()
    values[7, 11, 0] = values[7, 12, 0]
    return {"values": values}


def packed_category_of_another_entry(a):
    values = a.values.copy()
    column = next(i for i, v in enumerate(CORE) if v.kind == "category")
    values[7, 6, column] = (values[7, 6, column] + 1) % len(CORE[column].vocabulary)
    return {"values": values}


def packed_stay_too_many(a):
    return {"values": np.concatenate([a.values, a.values[:1]])}


def image_after_the_window(a):
    return {"cxr": where(a.cxr, "cxr_time", 2, pl.col("cxr_time") + timedelta(hours=48, seconds=1))}


def packed_image_of_another_stay(a):
    return {"images": where(a.images, "dicom_id", 2, pl.lit("from-elsewhere"))}


def statistics_of_everybody(a):
    values = a.hourly["heart_rate"].drop_nulls()
    fold = a.statistics["0"]
    entry = {**fold["heart_rate"], "median": float(values.median()), "count": values.len()}
    return {"statistics": {**a.statistics, "0": {**fold, "heart_rate": entry}}}


def statistics_of_test_rows_in_equal_number(a):
    fold = a.statistics["1"]
    entry = {**fold["heart_rate"], "median": fold["heart_rate"]["median"] + 0.5}
    return {"statistics": {**a.statistics, "1": {**fold, "heart_rate": entry}}}


def label_by_name(a):
    return {"variables": [*CORE[:-1], dataclasses.replace(CORE[-1], name="icu_mortality")]}


def label_by_value(a):
    death = a.labels.select("stay_id", pl.col("icu_mortality").cast(pl.Float64).alias("glucose"))
    return {"hourly": a.hourly.drop("glucose").join(death, on="stay_id"), "values": a.values}


def same_pixels_in_train_and_test(a):
    placed = a.images.with_row_index("i").join(a.splits.filter(pl.col("fold") == 0), on="stay_id")
    train = placed.filter(pl.col("part") == "train")["i"][0]
    test = placed.filter(pl.col("part") == "test")["sha256"][0]
    return {"images": where(a.images, "sha256", train, pl.lit(test))}


def stay_without_series(a):
    return {"hourly": a.hourly.filter(pl.col("stay_id") != a.stays["stay_id"][4])}


def stay_without_labels(a):
    return {"labels": a.labels[1:]}


PLANTED = {
    subject_in_two_parts: "subjects_cross_parts",
    dev_subject_in_training: "subjects_cross_parts",
    stay_without_part: "splits_incomplete",
    dead_at_hour_45: "dead_at_prediction_time",
    dead_at_hour_40_without_deathtime: "dead_at_prediction_time",
    discharged_at_hour_47: "dead_at_prediction_time",
    event_at_hour_48: "events_outside_window",
    value_of_the_hour_after: "events_outside_window",
    event_of_another_stay: "events_outside_window",
    packed_value_that_was_never_charted: "packed_values_differ",
    packed_value_of_another_hour: "packed_values_differ",
    packed_category_of_another_entry: "packed_values_differ",
    packed_stay_too_many: "packed_values_differ",
    image_after_the_window: "images_outside_window",
    packed_image_of_another_stay: "images_outside_window",
    statistics_of_everybody: "statistics_beyond_training",
    statistics_of_test_rows_in_equal_number: "statistics_beyond_training",
    label_by_name: "labels_among_inputs",
    label_by_value: "labels_among_inputs",
    same_pixels_in_train_and_test: "images_cross_parts",
    stay_without_series: "stays_without_series",
    stay_without_labels: "stays_without_series",
}


def test_clean_data_pass(clean):
    rows, leaks = audit(clean)
    assert [row for row in rows if not row["passed"]] == []
    assert leaks == []


def test_every_check_has_a_planted_fault():
    assert set(PLANTED.values()) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_leak_is_caught_by_its_check(clean, plant):
    check = next(check for check in CHECKS if check.__name__ == PLANTED[plant])
    leak = check(dataclasses.replace(clean, **plant(clean)))
    assert leak is not None
    assert "\n" not in leak.text


def test_the_report_counts_and_the_error_names_an_id(clean):
    rows, leaks = audit(dataclasses.replace(clean, **stay_without_labels(clean)))
    (found,) = [row for row in rows if not row["passed"]]
    assert found["detail"] == "without a row in labels.parquet: 1 stay_id(s)"
    assert leaks == [f"stays_without_series: {found['detail']}, the first stay_id {clean.stays['stay_id'][0]}"]
