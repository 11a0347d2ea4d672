"""report: the page and its figures, from what all stages left."""

from pathlib import Path

from pipeline.params import read
from pipeline.report.page import build, write
from stages import stage

SHOWN = (
    "scale",
    "data",
    "synthetic",
    "ingest",
    "cohort",
    "labels",
    "series",
    "images",
    "splits",
    "masks",
    "grid",
    "training",
    "evaluation",
    "verdicts",
    "fairness",
    "compare",
    "scales",
    "strategies",
)


@stage
def main() -> None:
    """Writes reports/index.html and reports/figures/*.svg."""
    params = dict(zip(SHOWN, read(*SHOWN), strict=True))
    page, figures = build(Path("data"), Path("reports"), params)
    write(page, figures, Path("reports"))


if __name__ == "__main__":
    main()
