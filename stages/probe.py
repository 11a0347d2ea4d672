"""probe STRATEGY: the trained models of all its cells again, without images or records and with those of others."""

import sys
from pathlib import Path

from pipeline.errors import InputError
from pipeline.params import read
from pipeline.training.grid import runs
from pipeline.training.probe import probe
from pipeline.training.store import Store, data_fingerprint, work_folder
from stages import stage


@stage
def main() -> None:
    """Writes data/probes/STRATEGY/{removal,swaps,image_control}.parquet."""
    if len(sys.argv) != 2:
        raise InputError("needs one argument: STRATEGY")
    (strategy,) = sys.argv[1:]
    hyper, tasks, tier, training, encoders, scale, size = read(
        f"strategies.{strategy}",
        "grid.tasks",
        "series.tier",
        "training",
        "scales.encoders",
        "scales.training",
        "scales.probe",
    )
    specs = [
        spec
        for task in tasks
        for spec in runs(strategy, task, hyper=hyper, tier=tier, training=training, encoders=encoders, scale=scale)
    ]
    data = Path("data")
    probe(specs, Store(work_folder(), data_fingerprint(data)), data, data / "probes" / strategy, size)


if __name__ == "__main__":
    main()
