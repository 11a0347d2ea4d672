"""The small question 2 that its tests ask."""

import polars as pl

from pipeline import files
from pipeline.params import Compare, Evaluation, Grid, TuningScale
from pipeline.questions.which.compare import SCHEMAS, compare
from pipeline.questions.which.tuning import tuning
from tests.support.made_up_runs import training

SCALE = training(folds=(0, 1), seeds=(0, 1))
JUDGED = TuningScale(("base", "matched"), 2)
EVALUATION = Evaluation(confidence=0.95, ece_bins=10, seed=1)
GRID = Grid(("lstm", "resnet", "late_fusion"), ("mortality", "phenotype", "los"))
SETTINGS = Compare(los_cap_days=30.0)
COSTS = pl.DataFrame(
    {
        "strategy": ["lstm", "late_fusion", "resnet"],
        "scale": ["demo"] * 3,
        "px": [32] * 3,
        "parameters": [10, 300, 200],
        "flops_with_image": [1000, 5000, 5000],
        "flops_without_image": [1000, 1000, 0],
    }
)


def run(data, grid=GRID, scale=SCALE, draws=40, settings=SETTINGS):
    return compare(data, grid, scale, JUDGED, EVALUATION, settings, draws, COSTS)


def write_tuning(data, tables, grid=GRID):
    """tuning.csv and tuning_curve.csv in `tables`, of the trials in data/tuned."""
    for name, rows in zip(("tuning", "tuning_curve"), tuning(data / "tuned", grid, SCALE, JUDGED), strict=True):
        files.write_csv(pl.DataFrame(rows, schema=SCHEMAS[name], orient="row"), tables / f"{name}.csv")
