"""fairness: every cell by subgroup, gaps between groups, and whether fusion widens or narrows them."""

from pathlib import Path

from pipeline.params import read
from pipeline.questions.fair.fairness import fairness, write
from stages import stage


@stage
def main() -> None:
    """Writes reports/tables/fairness_{groups,gaps,fusion}.{csv,md}."""
    grid, training, evaluation, knobs, size = read(
        "grid", "scales.training", "evaluation", "fairness", "scales.fairness"
    )
    tables = fairness(Path("data"), grid, training, evaluation, knobs, size)
    write(tables, Path("reports/tables"), evaluation.confidence)


if __name__ == "__main__":
    main()
