"""robustness: what missing images and records cost each strategy, and whether there are absent images to imitate."""

from pathlib import Path

from pipeline import files
from pipeline.params import read
from pipeline.questions.robust.overlap import overlap
from pipeline.questions.robust.robustness import robustness
from pipeline.questions.robust.text import markdown
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
