"""report: the page and its figures, from what all stages left."""

from pathlib import Path

from pipeline.page.page import build, write
from pipeline.params import read
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
    "ensembles",
    "ablations",
    "embedding",
    "training",
    "tuning",
    "evaluation",
    "verdicts",
    "worth",
    "fairness",
    "compare",
    "report",
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
