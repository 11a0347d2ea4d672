"""masks: which images and records are removed at which rate, by which mechanism."""

import polars as pl

from pipeline import files
from pipeline.data.masks import masks
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes data/masks.parquet."""
    (rules,) = read("masks")
    stays, splits = pl.read_parquet("data/cohort/stays.parquet"), pl.read_parquet("data/splits.parquet")
    frame, facts = masks(stays, splits, rules)
    files.write_parquet(frame, "data/masks.parquet")
    files.write_json(facts, "reports/data/masks.json")


if __name__ == "__main__":
    main()
