"""Subjects to parts: dev in every fold, else test in one fold, validation or training in the others.

A subject's parts come from a salted SHA-256 of its id alone, so they do not depend on who else is in the cohort, and
MIMIC-IV 2.2 and 3.1 agree. For small cohorts `stratify` deals subjects out stratum by stratum instead.
"""

from __future__ import annotations

import hashlib
from typing import Any

import polars as pl

from pipeline.params import Splits

PARTS = ("train", "val", "test", "dev")


def uniform(*key: object) -> float:
    """A number in [0, 1) that depends on nothing but the key: 53 bits of SHA-256, the same on every machine."""
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def parts_of_subject(subject_id: int, rules: Splits) -> list[str]:
    """The subject's part in each fold."""
    if uniform(rules.salt, "dev", subject_id) < rules.dev_share:
        return ["dev"] * rules.folds
    test = int(uniform(rules.salt, "test", subject_id) * rules.folds)
    return [
        "test" if fold == test else "val" if uniform(rules.salt, "val", fold, subject_id) < rules.val_share else "train"
        for fold in range(rules.folds)
    ]


def _chosen(position: int, share: float) -> bool:
    """Whether the item at `position` belongs to an evenly spread `share` of a list."""
    return int((position + 1) * share + 1e-9) > int(position * share + 1e-9)


def _dealt(strata: pl.DataFrame, rules: Splits) -> dict[int, list[str]]:
    """Parts per subject, dealt out along the subjects sorted by stratum and, within it, by hash."""
    rows = sorted(strata.iter_rows(), key=lambda row: (row[1], uniform(rules.salt, "deal", row[0])))
    parts: dict[int, list[str]] = {}
    place = 0
    in_val = [0] * rules.folds
    for position, (subject_id, _) in enumerate(rows):
        if _chosen(position, rules.dev_share):
            parts[subject_id] = ["dev"] * rules.folds
            continue
        test, place = place % rules.folds, place + 1
        row = []
        for fold in range(rules.folds):
            if fold == test:
                row.append("test")
                continue
            row.append("val" if _chosen(in_val[fold], rules.val_share) else "train")
            in_val[fold] += 1
        parts[subject_id] = row
    return parts


def split(stays: pl.DataFrame, labels: pl.DataFrame, rules: Splits) -> pl.DataFrame:
    """Columns stay_id, fold, subject_id, part; sorted by stay_id and fold.

    `stays` has stay_id, subject_id, has_cxr; `labels` has stay_id, icu_mortality, los_class (read only to stratify).
    """
    if rules.stratify:
        strata = (
            stays.join(labels, on="stay_id")
            .group_by("subject_id")
            .agg(pl.col("icu_mortality").max(), pl.col("has_cxr").max(), pl.col("los_class").max())
            .select("subject_id", pl.concat_str("icu_mortality", "has_cxr", "los_class", separator="/"))
        )
        parts = _dealt(strata, rules)
    else:
        parts = {subject: parts_of_subject(subject, rules) for subject in stays["subject_id"].unique().to_list()}
    subjects = stays["subject_id"].to_list()
    return (
        stays.select(
            "stay_id",
            pl.Series("fold", [list(range(rules.folds))] * stays.height, dtype=pl.List(pl.Int8)),
            "subject_id",
            pl.Series("part", [parts[subject] for subject in subjects], dtype=pl.List(pl.String)),
        )
        .explode("fold", "part")
        .sort("stay_id", "fold")
    )


def balance(splits: pl.DataFrame, stays: pl.DataFrame, labels: pl.DataFrame) -> list[dict[str, Any]]:
    """One row per fold and part: stays, subjects, share of deaths and images, mean length of stay; for the report."""
    return (
        splits.join(stays.select("stay_id", "has_cxr", "los_days"), on="stay_id")
        .join(labels.select("stay_id", "icu_mortality"), on="stay_id")
        .sort("stay_id", "fold")
        .group_by("fold", "part", maintain_order=True)
        .agg(
            stays=pl.len(),
            subjects=pl.col("subject_id").n_unique(),
            mortality=pl.col("icu_mortality").mean(),
            has_cxr=pl.col("has_cxr").mean(),
            los_mean=pl.col("los_days").mean(),
        )
        .sort("fold", pl.col("part").cast(pl.Enum(PARTS)))
        .to_dicts()
    )
