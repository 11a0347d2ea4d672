"""splits: subjects to dev, test, validation and training parts."""

from pathlib import Path
from typing import Any

import polars as pl

from pipeline import files
from pipeline.data.splits import balance, eras, split
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes data/splits.parquet and its balance."""
    (rules,) = read("splits")
    cohort = Path("data/cohort")
    stays, labels = pl.read_parquet(cohort / "stays.parquet"), pl.read_parquet(cohort / "labels.parquet")
    splits = split(stays, labels, rules)
    files.write_parquet(splits, "data/splits.parquet")
    counts: dict[str, Any] = {"folds": balance(splits, stays, labels)}
    if rules.scheme == "temporal":
        counts |= {"eras": eras(splits, stays, rules), "test_from_year": rules.test_from_year}
    files.write_json(counts, "reports/data/splits.json")


if __name__ == "__main__":
    main()
