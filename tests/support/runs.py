"""Small runs of any strategy, for tests."""

import dataclasses

from pipeline.mimic.variables import load_variables
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.registry import strategy_class
from pipeline.params import TrainingScale
from pipeline.training.grid import runs
from tests.support.small import ENCODERS

SCALE = TrainingScale(
    cohorts=("base", "matched"), folds=(0,), seeds=(0,), train_missing=(0.0,), batch_size=16, max_epochs=4, patience=9
)

VARIABLES = load_variables("core")


def grid(training, strategy="late_fusion", task="mortality", encoders=ENCODERS, **scale):
    return runs(
        strategy,
        task,
        hyper={} if issubclass(strategy_class(strategy), Fitted) else {"lr": 0.003},
        tier="core",
        training=training,
        encoders=encoders,
        scale=dataclasses.replace(SCALE, **scale),
    )


def silent(epoch, row):
    pass
