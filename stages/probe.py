"""probe STRATEGY: its trained models again, without images or records and with those of others."""

import sys
from pathlib import Path

from pipeline.errors import InputError
from pipeline.params import read
from pipeline.training.cell import read_runs
from pipeline.training.probe import probe
from pipeline.training.store import Store
from stages import stage


@stage
def main() -> None:
    """Writes data/probes/STRATEGY/{removal,swaps,image_control}.parquet."""
    if len(sys.argv) != 2:
        raise InputError("needs one argument: STRATEGY")
    (strategy,) = sys.argv[1:]
    (size,) = read("scales.probe")
    data = Path("data")
    store = Store.of(data)
    probe(read_runs(data / "runs" / strategy, store), store, data, data / "probes" / strategy, size)


if __name__ == "__main__":
    main()
