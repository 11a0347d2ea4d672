"""train STRATEGY: one cell of the matrix, with all tasks; its runs come from the run store where they are finished."""

import sys
from pathlib import Path

from pipeline.errors import InputError
from pipeline.params import read
from pipeline.training.cell import train_cell
from pipeline.training.grid import runs
from pipeline.training.store import Store, data_fingerprint, work_folder
from stages import stage


@stage
def main() -> None:
    """Writes data/runs/STRATEGY/{runs,card}.json and data/runs/STRATEGY/TASK/{predictions.parquet,history.csv}."""
    if len(sys.argv) != 2:
        raise InputError("needs one argument: STRATEGY")
    (strategy,) = sys.argv[1:]
    hyper, tasks, tier, training, encoders, scale = read(
        f"strategies.{strategy}", "grid.tasks", "series.tier", "training", "scales.encoders", "scales.training"
    )
    specs = [
        spec
        for task in tasks
        for spec in runs(strategy, task, hyper=hyper, tier=tier, training=training, encoders=encoders, scale=scale)
    ]
    data = Path("data")
    train_cell(specs, Store(work_folder(), data_fingerprint(data)), data, data / "runs" / strategy)


if __name__ == "__main__":
    main()
