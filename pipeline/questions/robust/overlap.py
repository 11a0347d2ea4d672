"""Overlap: how likely an image was for those who have one, and for those who could have had one and have none.

Removal in dependence on patient traits imitates the absence of images only where both groups hold people alike. The
propensity is that of data/masks.parquet (pipeline.evaluation.propensity, on traits known at admission).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.disclosure import protected
from pipeline.evaluation.propensity import could, image_chances, in_part

BINS = 10
OVERLAP: dict[str, Any] = {
    "fold": pl.Int64,
    "image": pl.String,
    "from": pl.Float64,
    "to": pl.Float64,
    "stays": pl.String,
}


def overlap(data: Path, folds: Iterable[int]) -> pl.DataFrame:
    """Stays by fold, presence of an image and tenth of the propensity scale; stays as pipeline.disclosure
    lets them be told.

    Of a fold whose training stays allow no model there are no rows.
    """
    stays = pl.read_parquet(data / "cohort/stays.parquet")
    splits = pl.read_parquet(data / "splits.parquet")
    has_cxr = stays["has_cxr"].to_numpy()
    rows = []
    for fold in folds:
        chance = image_chances(stays, in_part(stays, splits, fold, "train"))
        if chance is None:
            continue
        place = np.minimum((BINS * chance).astype(int), BINS - 1)
        for image, chosen in (("present", has_cxr), ("absent", could(stays) & ~has_cxr)):
            counts = protected(np.bincount(place[chosen], minlength=BINS).tolist(), [range(BINS)])
            for i, count in enumerate(counts):
                row = {"fold": fold, "image": image, "from": i / BINS, "to": (i + 1) / BINS}
                rows.append({**row, "stays": str(count)})
    return pl.DataFrame(rows, schema=OVERLAP, orient="row")
