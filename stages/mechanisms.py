"""mechanisms: the tables of what single strategies are about; without rows where the grid does not have them."""

from pathlib import Path

from pipeline import files
from pipeline.params import read
from pipeline.questions.which.ablations import Source
from pipeline.questions.which.curriculum import curriculum
from pipeline.questions.which.distillation import distillation
from stages import stage


@stage
def main() -> None:
    """Writes reports/tables/{curriculum,curriculum_epochs,distillation}.csv."""
    grid, ablations, training, evaluation, size = read(
        "grid", "ablations", "scales.training", "evaluation", "scales.evaluation"
    )
    source = Source.of(Path("data"), grid, ablations, training, evaluation, size.draws)
    for name, table in (curriculum(source) | {"distillation": distillation(source)}).items():
        files.write_csv(table, Path("reports/tables") / f"{name}.csv", digits=6)


if __name__ == "__main__":
    main()
