"""robustness: what missing images and records cost each strategy, and whether there are absent images to imitate."""

from pathlib import Path

from pipeline import files
from pipeline.evaluation.overlap import overlap
from pipeline.evaluation.robustness import robustness
from pipeline.evaluation.robustness_text import markdown
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes reports/tables/{robustness,robustness_summary,robustness_natural,robustness_families,overlap}.csv."""
    grid, training, probe, evaluation, size = read(
        "grid", "scales.training", "scales.probe", "evaluation", "scales.evaluation"
    )
    data, folder = Path("data"), Path("reports/tables")
    tables = robustness(data, grid, training, probe, evaluation, size.draws)
    tables["overlap"] = overlap(data, training.folds)
    for name, table in tables.items():
        files.write_csv(table, folder / f"{name}.csv")
    files.write_text(markdown(tables, evaluation.confidence), folder / "robustness.md")


if __name__ == "__main__":
    main()
