"""Leaks by missingness: masks that are not the same for everybody, or follow the labels."""

from __future__ import annotations

import polars as pl

from tests.support.planted.changes import common_label


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
