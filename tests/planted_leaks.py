"""Leaks to plant into clean artefacts: functions from Artefacts to the fields that change, by the check meant for them.

Each is as well hidden as its author could: what goes with the change is changed alike, so that the other checks that
look at the same file find nothing of their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from pipeline.data.audit import Artefacts

Changes = dict[str, Any]


def where(frame: pl.DataFrame, name: str, row: int, value: Any) -> pl.DataFrame:
    """`frame` with `value` (an expression or a literal) in one row of a column."""
    chosen = pl.int_range(pl.len()) == row
    value = value if isinstance(value, pl.Expr) else pl.lit(value)
    return frame.with_columns(pl.when(chosen).then(value).otherwise(pl.col(name)).alias(name))


def column_of(a: Artefacts, name: str) -> int:
    return [variable.name for variable in a.variables].index(name)


def common_label(a: Artefacts) -> str:
    """The boolean label that is nearest to one in two."""
    names = [name for name, kind in a.labels.schema.items() if kind == pl.Boolean]
    return min(names, key=lambda name: abs(a.labels[name].mean() - 0.5))


def of_several_admissions(a: Artefacts, *parts: str) -> pl.DataFrame:
    """Rows of the splits' fold 0 of a subject with two admissions in the cohort, that is in one of `parts`."""
    rows = a.splits.filter(pl.col("fold") == 0, pl.col("part").is_in(parts)).join(a.stays, on="stay_id")
    several = rows.filter(pl.col("hadm_id").n_unique().over("subject_id") > 1)
    return several.filter(pl.col("subject_id") == several["subject_id"][0])


def moved(a: Artefacts, fold: int, stays: pl.Series, part: str) -> Changes:
    """The splits with these stays in another part of the fold."""
    chosen = (pl.col("fold") == fold) & pl.col("stay_id").is_in(stays.to_list())
    return {"splits": a.splits.with_columns(part=pl.when(chosen).then(pl.lit(part)).otherwise("part"))}


# --- people ----------------------------------------------------------------------------------------------------------


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


# --- series ----------------------------------------------------------------------------------------------------------


def event_at_hour_48(a):
    return {"hourly": where(a.hourly, "hour", 5, pl.lit(48, pl.Int8))}


def shifted(a, hours):
    """Both files: every value stands `hours` earlier than it was charted."""
    values = np.full_like(a.values, np.nan)
    source, target = slice(max(hours, 0), 48 + min(hours, 0)), slice(max(-hours, 0), 48 - max(hours, 0))
    values[:, target] = a.values[:, source]
    hourly = a.hourly.with_columns(hour=pl.col("hour") - hours).filter(pl.col("hour").is_between(0, 47))
    return {"hourly": hourly, "values": values}


def series_of_the_hour_after(a):
    return shifted(a, 1)


def series_of_another_time_zone(a):
    return shifted(a, 5)


def series_from_before_intime(a):
    return shifted(a, -3)


def swapped_stays(a, frame):
    one, two = a.stays["stay_id"][2], a.stays["stay_id"][9]
    return frame.with_columns(pl.col("stay_id").replace({one: two, two: one})).sort("stay_id", "hour")


def series_of_another_stay(a):
    values = np.array(a.values)
    values[[2, 9]] = values[[9, 2]]
    return {"hourly": swapped_stays(a, a.hourly), "values": values}


def with_heart_rate(a, chosen, value):
    """Both files with `value` (an expression on hourly's columns) as the heart rate where `chosen` is true."""
    hourly = a.hourly.with_columns(heart_rate=pl.when(chosen).then(value).otherwise("heart_rate"))
    return {"hourly": hourly, "values": packed(a, hourly)}


def packed(a, hourly):
    """values.npy with the heart rate of `hourly`."""
    values = np.array(a.values)
    rows = hourly.join(a.stays.select("stay_id").with_row_index("row"), on="stay_id")
    values[:, :, 0] = np.nan
    values[rows["row"], rows["hour"], 0] = rows["heart_rate"].cast(pl.Float32).to_numpy()
    return values


def value_of_hour_48_in_hour_47(a):
    """One heart rate that was charted after the window, in its last hour."""
    rows = a.events["chartevents"].rows.filter(pl.col("itemid") == 220045).join(a.stays.lazy(), on="stay_id")
    late = rows.filter(pl.col("time") >= pl.col("intime") + timedelta(hours=48)).collect().sort("stay_id", "time")
    there = a.hourly.filter((pl.col("hour") == 47) & pl.col("heart_rate").is_not_null())
    late = late.join(there, on="stay_id").filter((pl.col("number") - pl.col("heart_rate")).is_between(1, 100))
    chosen = (pl.col("stay_id") == late["stay_id"][0]) & (pl.col("hour") == 47)
    return with_heart_rate(a, chosen, late["number"][0])


def future_carried_backwards_in_both_files(a):
    known = pl.col("heart_rate").is_not_null()
    return with_heart_rate(a, ~known, pl.col("heart_rate").backward_fill().over("stay_id"))


def values_left_out_where_the_label_is_true(a):
    ill = a.labels.filter(common_label(a))["stay_id"].to_list()
    return with_heart_rate(a, pl.col("stay_id").is_in(ill) & (pl.col("hour") == 20), None)


def urine_that_looks_ahead(a):
    """The sum of the six hours to come, not of those gone by."""
    ahead = pl.col("urine_output_6h").shift(-5).over("stay_id")
    ahead = pl.when(pl.col("urine_output_6h").is_not_null()).then(ahead).otherwise(None)
    return {"hourly": a.hourly.with_columns(urine_output_6h=ahead)}


def packed_value_that_was_never_charted(a):
    values = np.array(a.values)
    row, hour = np.argwhere(np.isnan(values[:, :, 2]))[0]
    values[row, hour, 2] = 70.0
    return {"values": values}


def packed_rows_permuted(a):
    values = np.array(a.values)
    values[[7, 8]] = values[[8, 7]]
    return {"values": values}


def packed_columns_swapped(a):
    values = np.array(a.values)
    values[:, :, [1, 2]] = values[:, :, [2, 1]]
    return {"values": values}


def packed_future_carried_backwards(a):
    values = np.array(a.values)
    for hour in range(46, -1, -1):
        gap = np.isnan(values[:, hour, 0])
        values[gap, hour, 0] = values[gap, hour + 1, 0]
    return {"values": values}


def packed_category_of_another_entry(a):
    values = np.array(a.values)
    column = next(i for i, v in enumerate(a.variables) if v.kind == "category")
    row, hour = np.argwhere(~np.isnan(values[:, :, column]))[0]
    values[row, hour, column] = (values[row, hour, column] + 1) % len(a.variables[column].vocabulary)
    return {"values": values}


def packed_stay_too_many(a):
    return {"values": np.concatenate([a.values, a.values[:1]])}


def hour_twice(a):
    return {"hourly": pl.concat([a.hourly, a.hourly[:1]])}


def stay_without_series(a):
    return {"hourly": a.hourly.filter(pl.col("stay_id") != a.stays["stay_id"][4])}


def stay_without_labels(a):
    return {"labels": a.labels[1:]}


def stay_with_two_labels(a):
    return {"labels": pl.concat([a.labels, a.labels[:1]])}


def described(column):
    low, median, high = np.percentile(column.to_numpy().astype(np.float32).astype(np.float64), [25, 50, 75]).tolist()
    return {"median": median, "iqr": high - low, "scale": high - low, "count": column.len()}


def statistics_of(a, *parts):
    """Fold 0's statistics of the heart rate, from these parts."""
    rows = a.splits.filter((pl.col("fold") == 0) & pl.col("part").is_in(parts))
    column = a.hourly.join(rows, on="stay_id", how="semi")["heart_rate"].drop_nulls()
    return {"statistics": {**a.statistics, "0": {**a.statistics["0"], "heart_rate": described(column)}}}


def statistics_of_everybody(a):
    return statistics_of(a, "train", "val", "test", "dev")


def statistics_of_training_and_validation(a):
    return statistics_of(a, "train", "val")


def statistics_of_another_fold(a):
    return {"statistics": {**a.statistics, "0": a.statistics["1"], "1": a.statistics["0"]}}


def statistics_of_test_rows_in_equal_number(a):
    count = a.statistics["1"]["heart_rate"]["count"]
    rows = a.splits.filter((pl.col("fold") == 1) & (pl.col("part") != "train"))
    column = a.hourly.join(rows, on="stay_id", how="semi")["heart_rate"].drop_nulls()
    column = pl.concat([column] * 20)[:count]
    return {"statistics": {**a.statistics, "1": {**a.statistics["1"], "heart_rate": described(column)}}}


def spread_of_everybody(a):
    """Median and count are those of the training rows."""
    wide = statistics_of_everybody(a)["statistics"]["0"]["heart_rate"]
    entry = {**a.statistics["0"]["heart_rate"], "scale": wide["scale"] + 0.01}
    return {"statistics": {**a.statistics, "0": {**a.statistics["0"], "heart_rate": entry}}}


# --- images ----------------------------------------------------------------------------------------------------------


def retaken(a, row, hours):
    """All files agree that the image of this row of the index was taken `hours` after intime."""
    dicom, stay = a.images["dicom_id"][row], a.images["stay_id"][row]
    time = a.stays.filter(stay_id=stay)["intime"][0] + timedelta(hours=hours)
    it = pl.col("dicom_id") == dicom
    return {
        "metadata": a.metadata.with_columns(study_time=pl.when(it).then(time).otherwise("study_time")),
        "cxr": a.cxr.with_columns(
            cxr_time=pl.when(it).then(time).otherwise("cxr_time"),
            hours_from_intime=pl.when(it).then(hours).otherwise("hours_from_intime"),
        ),
        "images": a.images.with_columns(hours_from_intime=pl.when(it).then(hours).otherwise("hours_from_intime")),
    }


def image_a_second_after_the_window(a):
    return retaken(a, 2, 48 + 1 / 3600)


def image_before_intime(a):
    return retaken(a, 2, -1 / 3600)


def image_whose_link_hides_its_time(a):
    """cxr.parquet and the index say hour 40; the metadata know better."""
    true = retaken(a, 2, 60.0)
    return {**retaken(a, 2, 40.0), "metadata": true["metadata"]}


def hour_of_image_that_models_see(a):
    return {"images": where(a.images, "hours_from_intime", 2, 47.5)}


def with_image(a, row, dicom):
    """Row `row` of the index, and its link, name another image of the archive."""
    stay = a.images["stay_id"][row]
    link = (pl.col("stay_id") == stay) & (pl.col("rank") == 1)
    return {
        "images": where(a.images, "dicom_id", row, dicom),
        "cxr": a.cxr.with_columns(dicom_id=pl.when(link).then(pl.lit(dicom)).otherwise("dicom_id")),
    }


def image_of_another_subject(a):
    return with_image(a, 2, a.images["dicom_id"][3])


def image_of_another_stay_of_the_subject(a):
    """Packed from another admission of the same patient: not linked to this stay."""
    person = a.icustays.filter(stay_id=a.images["stay_id"][2])["subject_id"][0]
    other = where(a.metadata, "subject_id", a.metadata["dicom_id"].index_of(a.images["dicom_id"][3]), person)
    return {"metadata": other, "images": where(a.images, "dicom_id", 2, a.images["dicom_id"][3])}


def packed_image_of_a_lower_rank(a):
    """The link's ranks were exchanged after packing."""
    return {"cxr": a.cxr.with_columns(pl.col("rank") + 1)}


def has_cxr_without_a_link(a):
    row = a.stays["has_cxr"].index_of(False)
    return {"stays": where(a.stays, "has_cxr", row, pl.lit(True))}


def two_images_of_a_stay(a):
    images = pl.concat([a.images, a.images[:1].with_columns(row=pl.lit(a.images.height, pl.Int32))])
    return {"images": images, "pixels": np.concatenate([a.pixels, a.pixels[:1]])}


def pixels_in_another_order(a):
    pixels = np.array(a.pixels)
    pixels[[1, 2]] = pixels[[2, 1]]
    return {"pixels": pixels}


def pixel_row_too_few(a):
    return {"pixels": a.pixels[:-1]}


def copied(a, change):
    """The picture of a test stay, changed, under a training stay's dicom_id, with the digest that fits."""
    part = a.images.join(a.splits.filter(pl.col("fold") == 0), on="stay_id", how="left", maintain_order="left")["part"]
    train, test = part.index_of("train"), part.index_of("test")
    pixels = np.array(a.pixels)
    pixels[train] = change(pixels[test])
    digest = hashlib.sha256(pixels[train].tobytes()).hexdigest()
    return {"pixels": pixels, "images": where(a.images, "sha256", train, pl.lit(digest))}


def same_pixels_in_train_and_test(a):
    return copied(a, lambda picture: picture)


def same_image_in_train_and_test(a):
    """By its dicom_id, under other pixels."""
    part = a.images.join(a.splits.filter(pl.col("fold") == 0), on="stay_id", how="left", maintain_order="left")["part"]
    return {"images": where(a.images, "dicom_id", part.index_of("train"), a.images["dicom_id"][part.index_of("test")])}


def image_saved_anew_in_train_and_test(a):
    """Under another dicom_id, with noise of a grey level: no digest is the same."""
    noise = np.random.default_rng(0).integers(-1, 2, a.pixels.shape[1:])
    return copied(a, lambda picture: np.clip(picture + noise, 0, 255).astype(np.uint8))


# --- labels ----------------------------------------------------------------------------------------------------------


def survivor_labelled_dead(a):
    row = a.labels["icu_mortality"].index_of(False)
    return {"labels": where(a.labels, "icu_mortality", row, pl.lit(True))}


def death_in_hospital_hidden(a):
    row = a.labels["hospital_mortality"].index_of(True)
    return {"labels": where(a.labels, "hospital_mortality", row, pl.lit(False))}


def labels_permuted(a):
    order = np.random.default_rng(0).permutation(a.labels.height)
    return {"labels": a.labels[order].with_columns(a.labels["stay_id"])}


def los_class_one_too_high(a):
    return {"labels": where(a.labels, "los_class", a.labels["los_class"].index_of(0), pl.lit(1, pl.Int8))}


def phenotype_of_another_admission(a):
    """A code of the subject's next admission: the future of this one."""
    slug = common_label(a)
    row = a.labels[slug].index_of(False)
    return {"labels": where(a.labels, slug, row, pl.lit(True))}


def phenotype_lost(a):
    row = a.labels["shock"].index_of(True)
    return {"labels": where(a.labels, "shock", row, pl.lit(False))}


def label_by_name(a):
    """In all files alike."""
    *others, last = a.variables
    statistics = {
        fold: {"icu_mortality" if name == last.name else name: entry for name, entry in known.items()}
        for fold, known in a.statistics.items()
    }
    return {
        "variables": [*others, dataclasses.replace(last, name="icu_mortality")],
        "hourly": a.hourly.rename({last.name: "icu_mortality"}),
        "statistics": statistics,
    }


def outcome_in_the_hourly_table(a):
    return {"hourly": a.hourly.join(a.stays.select("stay_id", "los_days"), on="stay_id")}


def with_label(a, give):
    """values.npy with `give(values of the glucose, label [N, 1])` for the glucose."""
    values = np.array(a.values)
    column = column_of(a, "glucose")
    label = a.labels[common_label(a)].to_numpy()[:, None]
    values[:, :, column] = give(values[:, :, column], label)
    return {"values": values}


def label_by_value(a):
    return with_label(a, lambda glucose, label: np.where(np.isnan(glucose), np.nan, label))


def label_by_value_in_one_hour(a):
    return with_label(a, lambda glucose, label: np.where(np.arange(48) == 30, 120.0 + label, glucose))


def label_with_noise(a):
    noise = np.random.default_rng(0).uniform(0, 0.9, (a.stays.height, 48))
    return with_label(a, lambda glucose, label: 100 + label + noise)


def label_by_presence(a):
    return with_label(a, lambda glucose, label: np.where(label, np.nanmedian(glucose) + 0 * glucose, np.nan))


def label_by_presence_in_the_last_hour(a):
    return with_label(
        a, lambda glucose, label: np.where(np.arange(48) < 47, glucose, np.where(label, 100.0 + np.arange(48), np.nan))
    )


def label_as_a_category(a):
    values = np.array(a.values)
    column = column_of(a, "ectopy_type")
    there = ~np.isnan(values[:, :, column])
    label = np.broadcast_to(a.labels[common_label(a)].to_numpy()[:, None], there.shape)
    values[:, :, column] = np.where(there, np.where(label, 3.0, 9.0), np.nan)
    return {"values": values}


def length_of_stay_among_the_inputs(a):
    values = np.array(a.values)
    values[:, 0, column_of(a, "glucose")] = 100 + 10 * a.labels["los_class"].to_numpy()
    return {"values": values}


def label_by_presence_of_the_image(a):
    """Images where the label is true, and nowhere else."""
    with_image_now = a.stays["stay_id"].is_in(a.images["stay_id"].to_list())
    return {"labels": a.labels.with_columns(with_image_now.alias(common_label(a)))}


# --- masks -----------------------------------------------------------------------------------------------------------


def ranked(frame, order):
    """`frame` with removed_at by `order` within fold, modality, mechanism and part."""
    group = ["fold", "modality", "mechanism", "part"]
    place = (order.rank("ordinal") - 1).over(group) / pl.len().over(group)
    return frame.with_columns(removed_at=place)


def masks_by_label(a, modality, mechanism):
    it = (pl.col("modality") == modality) & (pl.col("mechanism") == mechanism)
    frame = a.masks.join(a.splits.select("stay_id", "fold", "part"), on=["stay_id", "fold"], maintain_order="left")
    frame = frame.join(a.labels.select("stay_id", common_label(a)), on="stay_id", maintain_order="left")
    order = pl.when(it).then(pl.col(common_label(a)).cast(pl.Float64) + pl.col("removed_at") / 2)
    return ranked(frame, order.otherwise("removed_at")).select(a.masks.columns)


def records_removed_by_label(a):
    return {"masks": masks_by_label(a, "ehr", "mcar")}


def images_removed_by_label_under_mar(a):
    """Among stays whose traits are the same."""
    traits = {name: a.stays[name][0] for name in ("gender", "race_group", "admission_group", "era", "first_careunit")}
    stays = a.stays.with_columns(*(pl.lit(value).alias(name) for name, value in traits.items()), age=pl.lit(60))
    return {"masks": masks_by_label(a, "cxr", "mar"), "stays": stays}


def masks_by_strategy(a):
    return {"masks": a.masks.with_columns(strategy=pl.lit("late_fusion"))}


def masks_that_are_not_nested(a):
    """A stay that is gone at a tenth, there at a half, gone again later takes two numbers."""
    return {"masks": pl.concat([a.masks, a.masks[:1].with_columns(removed_at=0.5)])}


def stay_that_is_never_removed(a):
    return {"masks": a.masks[1:]}


def mask_of_an_image_that_is_not_there(a):
    bare = a.stays.filter(~pl.col("has_cxr"))["stay_id"][0]
    row = a.masks.filter(modality="cxr")[:1].with_columns(stay_id=pl.lit(bare, a.masks["stay_id"].dtype))
    return {"masks": pl.concat([a.masks, row])}


def part_of_which_little_is_removed(a):
    """The share that a rate removes is not that of the test part."""
    frame = a.masks.join(a.splits.select("stay_id", "fold", "part"), on=["stay_id", "fold"], maintain_order="left")
    late = pl.when(pl.col("part") == "test").then(0.5 + pl.col("removed_at") / 2).otherwise("removed_at")
    return {"masks": frame.with_columns(removed_at=late).select(a.masks.columns)}


PLANTED = {
    "stays_contradict_records": (
        intime_six_hours_later,
        stay_of_another_subject,
        stay_of_another_admission,
        length_of_stay_of_another,
        stay_twice,
        stay_of_no_admission,
    ),
    "dead_at_prediction_time": (
        dead_at_hour_45_though_the_bed_was_left_later,
        dead_at_hour_40_without_deathtime,
        discharged_at_hour_47,
    ),
    "subjects_cross_parts": (
        readmission_in_another_part,
        test_subject_in_training_of_the_same_fold,
        splits_by_stay_under_a_false_subject,
        dev_subject_in_training,
    ),
    "subjects_not_tested_once": (subject_tested_twice, subject_never_tested),
    "later_era_in_training": (training_stay_of_a_tested_era, training_stay_without_era),
    "splits_incomplete": (stay_without_part, stay_in_a_fold_twice, part_of_no_name),
    "events_outside_window": (
        event_at_hour_48,
        series_of_the_hour_after,
        series_of_another_time_zone,
        series_from_before_intime,
        series_of_another_stay,
        value_of_hour_48_in_hour_47,
        future_carried_backwards_in_both_files,
        values_left_out_where_the_label_is_true,
        urine_that_looks_ahead,
    ),
    "packed_values_differ": (
        packed_value_that_was_never_charted,
        packed_rows_permuted,
        packed_columns_swapped,
        packed_future_carried_backwards,
        packed_category_of_another_entry,
        packed_stay_too_many,
        hour_twice,
    ),
    "stays_without_series": (stay_without_series, stay_without_labels, stay_with_two_labels),
    "statistics_beyond_training": (
        statistics_of_everybody,
        statistics_of_training_and_validation,
        statistics_of_another_fold,
        statistics_of_test_rows_in_equal_number,
        spread_of_everybody,
    ),
    "images_outside_window": (
        image_a_second_after_the_window,
        image_before_intime,
        image_whose_link_hides_its_time,
        hour_of_image_that_models_see,
    ),
    "images_of_others": (
        image_of_another_subject,
        image_of_another_stay_of_the_subject,
        packed_image_of_a_lower_rank,
        has_cxr_without_a_link,
        two_images_of_a_stay,
    ),
    "packed_images_differ": (pixels_in_another_order, pixel_row_too_few),
    "images_cross_parts": (same_pixels_in_train_and_test, same_image_in_train_and_test),
    "images_nearly_alike": (image_saved_anew_in_train_and_test,),
    "mortality_contradicts_admissions": (survivor_labelled_dead, death_in_hospital_hidden, labels_permuted),
    "los_contradicts_times": (los_class_one_too_high,),
    "phenotypes_contradict_diagnoses": (phenotype_of_another_admission, phenotype_lost),
    "labels_among_inputs": (
        label_by_name,
        outcome_in_the_hourly_table,
        label_by_value,
        label_by_value_in_one_hour,
        label_with_noise,
        label_by_presence,
        label_by_presence_in_the_last_hour,
        label_as_a_category,
        length_of_stay_among_the_inputs,
        label_by_presence_of_the_image,
    ),
    "masks_not_nested_or_shared": (
        masks_by_strategy,
        masks_that_are_not_nested,
        stay_that_is_never_removed,
        mask_of_an_image_that_is_not_there,
        part_of_which_little_is_removed,
    ),
    "masks_follow_labels": (records_removed_by_label, images_removed_by_label_under_mar),
}
