"""Leaks by time: hours, packed values, statistics."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from tests.support.planted.changes import common_label, where


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
