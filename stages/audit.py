"""audit: looks for leaks in all of the data; fails the pipeline on one."""

from pathlib import Path

from pipeline import files
from pipeline.data.audit import audit, read_artefacts
from pipeline.errors import InputError
from pipeline.mimic.phenotypes import MAPS
from pipeline.mimic.variables import load_variables
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes reports/audit.json, and data/audit.ok where every check passes."""
    series, cohort, splits, labels, per_stay = read("series", "cohort", "splits", "labels", "images.per_stay")
    data = Path("data")
    (data / "audit.ok").unlink(missing_ok=True)  # of a run before: not to outlive a leak
    artefacts = read_artefacts(
        data,
        load_variables(series.tier),
        MAPS[labels.phenotypes](),
        cohort.cxr_hours_before,
        cohort.cxr_hours_after,
        splits.test_from_year if splits.scheme == "temporal" else None,
        series.lab_time,
        series.max_jump,
        per_stay,
    )
    checks, leaks = audit(artefacts)
    files.write_json({"checks": checks}, "reports/audit.json")
    if leaks:
        raise InputError(f"leak: {'; '.join(leaks)}")
    files.write_text("no leak found\n", data / "audit.ok")


if __name__ == "__main__":
    main()
