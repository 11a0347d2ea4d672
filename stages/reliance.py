"""reliance: what each fusion strategy's score rests on (EMAP, Shapley values), and what the image encoders see."""

from pathlib import Path

from pipeline import files
from pipeline.params import read
from pipeline.questions.when.reliance import reliance
from pipeline.questions.when.tables import reliance_markdown
from stages import stage


@stage
def main() -> None:
    """Writes reports/tables/{reliance,image_control}.csv."""
    grid, training, evaluation, size = read("grid", "scales.training", "evaluation", "scales.evaluation")
    table, control = reliance(Path("data"), grid, training, evaluation, size.draws)
    folder = Path("reports/tables")
    files.write_csv(table, folder / "reliance.csv")
    files.write_csv(control, folder / "image_control.csv")
    files.write_text(reliance_markdown(table, control, evaluation.confidence), folder / "reliance.md")


if __name__ == "__main__":
    main()
