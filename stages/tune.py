"""tune: the same number of trials for every strategy, chosen on dev; with `tuning.trials: 0`, what params.yaml has."""

from pathlib import Path

from pipeline.params import read
from pipeline.training.settings import Common
from pipeline.training.store import Store
from pipeline.training.tuning import tune
from stages import stage


@stage
def main() -> None:
    """Writes data/tuned/{STRATEGY.yaml,trials.csv,hours.json}."""
    grid, strategies, tuning, judged, *common = read(
        "grid", "strategies", "tuning", "scales.tuning", "series.tier", "training", "scales.encoders", "scales.training"
    )
    data = Path("data")
    store = Store.of(data)
    tune(Common(*common), grid, strategies, tuning, judged, store, data, data / "tuned")


if __name__ == "__main__":
    main()
