"""train STRATEGY: one cell of the matrix, with all tasks; its runs come from the run store where they are finished."""

import sys
from pathlib import Path

from pipeline.errors import InputError
from pipeline.params import read
from pipeline.training.cell import train_cell
from pipeline.training.settings import Common
from pipeline.training.store import Store
from pipeline.training.tuning import read_tuned
from stages import stage


@stage
def main() -> None:
    """Writes data/runs/STRATEGY/{runs,card}.json and data/runs/STRATEGY/TASK/{predictions.parquet,history.csv}."""
    if len(sys.argv) != 2:
        raise InputError("needs one argument: STRATEGY")
    (strategy,) = sys.argv[1:]
    tasks, *common = read("grid.tasks", "series.tier", "training", "scales.encoders", "scales.training")
    data = Path("data")
    settings = read_tuned(data / "tuned" / f"{strategy}.yaml").tasks
    specs = [spec for task in tasks for spec in Common(*common).runs(strategy, task, settings[task])]
    train_cell(specs, Store.of(data), data, data / "runs" / strategy)


if __name__ == "__main__":
    main()
