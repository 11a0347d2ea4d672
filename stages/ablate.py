"""ablate: strategies of the grid with some knobs otherwise, for their own tables; runs come from the run store."""

from pathlib import Path

from pipeline.params import read
from pipeline.training.ablations import ablate
from pipeline.training.settings import Common
from pipeline.training.store import Store
from stages import stage


@stage
def main() -> None:
    """Writes data/ablations/{STRATEGY.ABLATION/,STRATEGY.teachers_NAME/,parameters.csv}."""
    grid, ablations, *common = read(
        "grid", "ablations", "series.tier", "training", "scales.encoders", "scales.training"
    )
    data = Path("data")
    store = Store.of(data)
    ablate(Common(*common), grid, ablations, store, data, data / "ablations")


if __name__ == "__main__":
    main()
