"""train STRATEGY TASK: one cell of the matrix; its runs come from the run store where they are finished."""

import sys
from pathlib import Path

from pipeline.errors import InputError
from pipeline.params import read
from pipeline.tasks import get_task
from pipeline.training.cell import train_cell
from pipeline.training.grid import runs
from pipeline.training.store import Store, data_fingerprint, work_folder
from stages import stage


@stage
def main() -> None:
    """Writes data/runs/TASK/STRATEGY/{predictions.parquet,history.csv,card.json}."""
    if len(sys.argv) != 3:
        raise InputError("needs two arguments: STRATEGY TASK")
    strategy, task = sys.argv[1:]
    hyper, tier, training, encoders, scale = read(
        f"strategies.{strategy}", "series.tier", "training", "scales.encoders", "scales.training"
    )
    specs = runs(
        strategy,
        task,
        hyper=hyper,
        tier=tier,
        training=training,
        encoders=encoders,
        scale=scale,
    )
    data = Path("data")
    store = Store(work_folder(), data_fingerprint(data))
    train_cell(specs, store, data, data / "runs" / task / strategy, get_task(task))


if __name__ == "__main__":
    main()
