"""Hourly series of the cohort: data/series/{hourly.parquet,values.npy,rules.json}, reports/data/series.json."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline import files
from pipeline.mimic.series import write_series
from pipeline.mimic.variables import load_variables
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Read the interim tables and the cohort, write the declared outputs."""
    ingest, series = read("ingest", "series")
    report = write_series(
        interim=Path("data/interim"),
        stays_file=Path("data/cohort/stays.parquet"),
        variables=load_variables(series.tier),
        series=series,
        ingest=ingest,
        folder=Path("data/series"),
    )
    files.write_json(dataclasses.asdict(series), "data/series/rules.json")
    files.write_json(report, "reports/data/series.json")


if __name__ == "__main__":
    main()
