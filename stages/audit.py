"""audit: looks for leaks in all of the data; fails the pipeline on one."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import files
from pipeline.data.audit import Artefacts, audit
from pipeline.errors import InputError
from pipeline.mimic.variables import load_variables
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes reports/audit.json, and data/audit.ok where every check passes."""
    series, cohort = read("series", "cohort")
    data = Path("data")
    (data / "audit.ok").unlink(missing_ok=True)  # of a run before: not to outlive a leak
    checks, leaks = audit(
        Artefacts(
            stays=pl.read_parquet(data / "cohort/stays.parquet"),
            admissions=pl.read_parquet(data / "interim/admissions.parquet"),
            cxr=pl.read_parquet(data / "cohort/cxr.parquet"),
            images=pl.read_parquet(data / "images/index.parquet"),
            labels=pl.read_parquet(data / "cohort/labels.parquet"),
            splits=pl.read_parquet(data / "splits.parquet"),
            events=pl.concat(
                pl.scan_parquet(data / f"interim/{name}.parquet").select("stay_id", "charttime", "itemid")
                for name in ("chart", "output")
            ),
            hourly=pl.read_parquet(data / "series/hourly.parquet"),
            values=np.load(data / "series/values.npy", mmap_mode="r"),
            statistics=json.loads((data / "series/statistics.json").read_text(encoding="utf-8")),
            variables=load_variables(series.tier),
            hours_before=cohort.cxr_hours_before,
            hours_after=cohort.cxr_hours_after,
        )
    )
    files.write_json({"checks": checks}, "reports/audit.json")
    if leaks:
        raise InputError(f"leak: {'; '.join(leaks)}")
    files.write_text("no leak found\n", data / "audit.ok")


if __name__ == "__main__":
    main()
