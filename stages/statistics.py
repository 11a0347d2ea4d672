"""statistics: median and scale of every variable, per fold, from training rows."""

import numpy as np
import polars as pl

from pipeline import files
from pipeline.data.statistics import fold_statistics
from pipeline.mimic.variables import load_variables
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes data/series/statistics.json."""
    (tier,) = read("series.tier")
    variables = load_variables(tier)
    names, numeric = [v.name for v in variables], [v.kind != "category" for v in variables]
    values = np.load("data/series/values.npy", mmap_mode="r")
    stays = pl.read_parquet("data/cohort/stays.parquet", columns=["stay_id"])
    splits = pl.read_parquet("data/splits.parquet")
    found = {}
    for fold in splits["fold"].unique().sort().to_list():
        part = stays.join(splits.filter(pl.col("fold") == fold), on="stay_id", how="left", maintain_order="left")[
            "part"
        ]
        found[fold] = fold_statistics(values, (part == "train").to_numpy(), names, numeric)
    files.write_json(found, "data/series/statistics.json", digits=9)


if __name__ == "__main__":
    main()
