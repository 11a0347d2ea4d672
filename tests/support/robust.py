"""The small question of robustness that its tests ask."""

from pipeline.params import ProbeScale
from tests.support.made_up_runs import training

SCALE = training(folds=(0, 1), seeds=(0, 1))

PROBE = ProbeScale(
    test_missing=(1.0, 0.25, 0.5), mechanisms=("mcar", "mar"), last_hours=(12,), stays=20, permutations=2
)

CARDS = {
    "lstm": (["ehr"], "complete"),
    "transformer": (["ehr"], "complete"),
    "resnet": (["cxr"], "native"),
    "late_fusion": (["cxr", "ehr"], "complete"),
    "drfuse": (["cxr", "ehr"], "native"),
    "ehr_presence": (["ehr", "presence"], "native"),
}

TASKS = ("mortality", "phenotype", "los")
