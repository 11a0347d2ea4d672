"""Leaks by missingness: masks that are not the same for everybody, or that follow the labels."""

from __future__ import annotations

import math

import polars as pl

from pipeline.data.audit.artefacts import Artefacts, Leak, leak_of

KEY = ["stay_id", "fold", "modality", "mechanism"]
KINDS = (("cxr", "mcar"), ("cxr", "mar"), ("ehr", "mcar"))
# What mar removal may follow; among stays that share these the order is to be a coin's.
TRAITS = ("gender", "race_group", "admission_group", "era", "first_careunit", "decade")
SPREADS = 6.5  # beyond it a standard normal lies once in 10^10


def masks_not_nested_or_shared(a: Artefacts) -> Leak | None:
    """Masks that could differ between strategies or that are not nested in the rate: a column beside the contract's, a
    stay with two numbers for the same fold, modality and mechanism (one number makes them nested) or with none (images:
    the stays of cxr.parquet; records: all), or numbers that are not 0, 1/n ... (n-1)/n within a fold's part, so that a
    rate would not remove that share of each part."""
    if set(a.masks.columns) != {*KEY, "removed_at"}:
        return Leak(f"masks.parquet has the columns {', '.join(a.masks.columns)}")
    twice = leak_of("with two numbers", a.masks.filter(pl.struct(KEY).is_duplicated()))
    if twice:
        return twice
    folds = a.splits.select("fold").unique()
    kinds = pl.DataFrame(KINDS, schema=["modality", "mechanism"], orient="row")
    stays = a.stays.select("stay_id", image=pl.col("stay_id").is_in(a.cxr["stay_id"].unique().to_list()))
    due = (
        stays.join(folds, how="cross").join(kinds, how="cross").filter(pl.col("image") | (pl.col("modality") == "ehr"))
    )
    place = (pl.col("removed_at").rank("ordinal") - 1).over("fold", "modality", "mechanism", "part")
    count = pl.len().over("fold", "modality", "mechanism", "part")
    uneven = a.masks.join(a.splits.select("stay_id", "fold", "part"), on=["stay_id", "fold"]).filter(
        ((pl.col("removed_at") * count - place).abs() > 1e-6).fill_null(True)
    )
    return (
        leak_of("without a number", due.join(a.masks, on=KEY, how="anti"))
        or leak_of("with a number for what is not there", a.masks.join(due, on=KEY, how="anti"))
        or leak_of("not evenly spread", uneven)
    )


def masks_follow_labels(a: Artefacts) -> Leak | None:
    """removed_at that is higher or lower where a label is true: rank sums over strata (a fold's part; for mar also
    gender, race, admission group, era, unit and decade of age, which it may follow) as a standard normal, beyond 6.5.
    The order owes itself to a hash, so a clean file is beyond it once in 10^10 tests, and there are about 400. Too few
    stays (some 15 in each class) cannot get there. Recounted from masks.parquet, stays.parquet and labels.parquet."""
    labels = [name for name, kind in a.labels.schema.items() if kind == pl.Boolean]
    traits = a.stays.with_columns(decade=pl.col("age") // 10).select("stay_id", *TRAITS).unique("stay_id")
    frame = (
        a.masks.join(a.splits.select("stay_id", "fold", "part"), on=["stay_id", "fold"])
        .join(a.labels.select("stay_id", *labels).unique("stay_id"), on="stay_id")
        .join(traits, on="stay_id")
    )
    for (fold, modality, mechanism), rows in sorted(frame.group_by("fold", "modality", "mechanism")):
        strata = ["part", *(TRAITS if mechanism == "mar" else ())]
        rank, n = pl.col("removed_at").rank(), pl.len().cast(pl.Float64)
        z = (
            rows.with_columns(rank=rank.over(strata))
            .group_by(strata)
            .agg(
                # of n ranks, the sum of k drawn at random has this mean and this variance
                *(
                    (pl.col("rank").filter(pl.col(x)).sum() - pl.col(x).sum() * (n + 1) / 2).alias(f"{x}_excess")
                    for x in labels
                ),
                *((pl.col(x).sum() * (n - pl.col(x).sum()) * (n + 1) / 12).alias(f"{x}_variance") for x in labels),
            )
            .select((pl.col(f"{x}_excess").sum().abs() / pl.col(f"{x}_variance").sum().sqrt()).alias(x) for x in labels)
        )
        for label, distance in z.row(0, named=True).items():
            if distance > SPREADS and math.isfinite(distance):
                return Leak(f"{mechanism} removal of {modality} in fold {fold} follows the label {label}")
    return None
