"""The small question of fairness that its tests ask."""

import json

from pipeline.params import Evaluation, Fairness, FairnessScale, Grid
from tests.support.made_up_runs import training

SCALE, SEEDS = training(folds=(0, 1)), training(folds=(0, 1), seeds=(0, 1))

EVALUATION = Evaluation(confidence=0.95, ece_bins=10, seed=1)

SIZE = FairnessScale(draws=40, shuffles=30)

KNOBS = Fairness(
    age_edges=(40, 60, 80),
    pairs=("age+gender", "gender+has_cxr"),
    least_positives=20,
    least_negatives=20,
    alert_rate=1.0,
    long_stay_days=7,
    cohort="matched",
)

GRID = Grid(("lstm", "resnet", "late_fusion"), ("mortality", "phenotype", "los"))

ONE = Grid(GRID.strategies, ("mortality",))

UNIMODAL = ("lstm",)  # beside resnet, whose card says so


def declare_unimodal(data, strategies=UNIMODAL):
    for path in sorted(data.glob("runs/*/card.json")):
        if path.parent.name in strategies:
            path.write_text(json.dumps(json.loads(path.read_text()) | {"modalities": ["ehr"]}))
