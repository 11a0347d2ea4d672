"""splits: subjects to dev, test, validation and training parts."""

from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.data.splits import balance, split
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes data/splits.parquet and the balance over folds."""
    (rules,) = read("splits")
    cohort = Path("data/cohort")
    stays, labels = pl.read_parquet(cohort / "stays.parquet"), pl.read_parquet(cohort / "labels.parquet")
    splits = split(stays, labels, rules)
    files.write_parquet(splits, "data/splits.parquet")
    files.write_json({"folds": balance(splits, stays, labels)}, "reports/data/splits.json")


if __name__ == "__main__":
    main()
