"""Which images and records a robustness experiment removes: fixed, shared by all strategies, nested in the rate.

Per stay, fold, modality and mechanism one number `removed_at` in [0, 1): gone at rate r where removed_at < r. Within a
fold's part these are ranks over n, so that ceil(r n) of n are gone. `mcar` ranks by a salted hash. `mar` (images only)
lets stays go first whose traits make an image unlikely: an exponential race with the odds of absence under a logistic
propensity model, which is fitted on training stays where an image could have been taken.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from pipeline.data.splits import uniform
from pipeline.params import Masks

TRAITS = ("gender", "race_group", "admission_group", "era", "first_careunit")


def _features(stays: pl.DataFrame) -> np.ndarray[Any, Any]:
    """Traits known at admission: age in decades and one-hot categories; float64 [N, K]."""
    frame = stays.select((pl.col("age") / 10.0).alias("age"), *(pl.col(name).fill_null("") for name in TRAITS))
    return frame.to_dummies(TRAITS, drop_first=True).to_numpy().astype(np.float64)


def absence_odds(
    stays: pl.DataFrame, train: np.ndarray[Any, Any], more: np.ndarray[Any, Any] | None = None
) -> tuple[np.ndarray[Any, Any], bool]:
    """Odds of having no image per stay, from the rows in `train` (bool [N]); and whether a model could be fitted.

    `more` [N, K] is what the model sees besides traits known at admission.
    Where the training rows do not hold both outcomes, all odds are 1: removal is then at random, and the flag says so.
    """
    from sklearn.linear_model import LogisticRegression

    usable = train & (stays["cxr_status"] != "not_collectable").to_numpy()
    has_cxr = stays["has_cxr"].to_numpy()
    if len(set(has_cxr[usable].tolist())) < 2:
        return np.ones(stays.height), False
    seen = _features(stays) if more is None else np.concatenate([_features(stays), more], axis=1)
    model = LogisticRegression(max_iter=1000).fit(seen[usable], ~has_cxr[usable])
    share = np.clip(model.predict_proba(seen)[:, 1], 1e-3, 1 - 1e-3)
    return share / (1 - share), True


def _ranked(frame: pl.DataFrame) -> pl.DataFrame:
    """`key` to removed_at: its rank within the part (ties by stay_id) over the part's size."""
    return (
        frame.sort("part", "key", "stay_id")
        .with_columns(removed_at=pl.int_range(pl.len()).over("part") / pl.len().over("part"))
        .drop("part", "key")
    )


def masks(stays: pl.DataFrame, splits: pl.DataFrame, rules: Masks) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Columns stay_id, fold, modality, mechanism, removed_at; sorted by the first four. And facts for the report."""
    found: list[pl.DataFrame] = []
    fitted: dict[str, bool] = {}
    for (fold,), rows in sorted(splits.group_by("fold")):
        part = stays.select("stay_id").join(rows, on="stay_id", how="left", maintain_order="left")["part"]
        odds, fitted[str(fold)] = absence_odds(stays, (part == "train").to_numpy())
        for modality, mechanism in (("cxr", "mcar"), ("cxr", "mar"), ("ehr", "mcar")):
            draw = [uniform(rules.salt, modality, fold, stay) for stay in stays["stay_id"].to_list()]
            weight = odds if mechanism == "mar" else np.ones(stays.height)
            keys = [-math.log1p(-u) / w for u, w in zip(draw, weight.tolist(), strict=True)]
            frame = stays.select("stay_id", "has_cxr").with_columns(part=part, key=pl.Series(keys, dtype=pl.Float64))
            if modality == "cxr":
                frame = frame.filter("has_cxr")
            found.append(
                _ranked(frame.drop("has_cxr")).select(
                    "stay_id",
                    pl.lit(fold, dtype=pl.Int8).alias("fold"),
                    pl.lit(modality).alias("modality"),
                    pl.lit(mechanism).alias("mechanism"),
                    "removed_at",
                )
            )
    facts = {"rows": sum(frame.height for frame in found), "propensity_fitted": fitted}
    return pl.concat(found).sort("stay_id", "fold", "modality", "mechanism"), facts
