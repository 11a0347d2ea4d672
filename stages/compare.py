"""compare: which strategy? Ranks, calibration, decision curves, length of stay in days, score against cost, tuning."""

from pathlib import Path

import polars as pl

from pipeline.params import read
from pipeline.questions.which.compare import compare, write
from stages import stage


@stage
def main() -> None:
    """Writes NAME.csv of the tables of SCHEMAS to reports/tables, and NAME.md of those in MARKDOWN."""
    grid, training, judged, evaluation, settings, size, scale = read(
        "grid", "scales.training", "scales.tuning", "evaluation", "compare", "scales.evaluation", "scale"
    )
    costs = pl.read_csv("reports/cost.csv", infer_schema_length=None)
    costs = costs.filter(scale="paper" if scale == "paper" else "demo")  # it knows these two
    tables = compare(Path("data"), grid, training, judged, evaluation, settings, size.draws, costs)
    write(tables, Path("reports/tables"), grid, evaluation, settings)


if __name__ == "__main__":
    main()
