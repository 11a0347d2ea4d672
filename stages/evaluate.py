"""evaluate: scores of all cells that the grid names, with intervals, as tables, metrics files and curves."""

from pathlib import Path

from pipeline.evaluation.evaluate import evaluate, write
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes reports/metrics/{dev,test}/TASK.json and sweep/STRATEGY.json, reports/tables/ and reports/plots/."""
    grid, training, evaluation, size = read("grid", "scales.training", "evaluation", "scales.evaluation")
    results = evaluate(Path("data"), grid, training, evaluation, size.draws)
    write(results, Path("reports"), evaluation.confidence)


if __name__ == "__main__":
    main()
