"""Small runs of any strategy, for tests."""

import dataclasses

import pytest

from pipeline.mimic.variables import load_variables
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.registry import knobs, strategy_class
from pipeline.params import TrainingScale
from pipeline.training.run import make_run
from pipeline.training.settings import Common
from tests.support.small import ENCODERS

SCALE = TrainingScale(
    cohorts=("base", "matched"), folds=(0,), seeds=(0,), train_missing=(0.0,), batch_size=16, max_epochs=4, patience=9
)

VARIABLES = load_variables("core")


def grid(training, strategy="late_fusion", task="mortality", encoders=ENCODERS, **scale):
    """A strategy's runs from scratch, those that they need all the same; what wraps another has its default base."""
    own = Common("core", dataclasses.replace(training, start="scratch"), encoders, dataclasses.replace(SCALE, **scale))
    hyper, cls = {name: {"lr": 0.003} for name in ("resnet", "transformer")}, strategy_class(strategy)
    hyper[strategy] = {} if issubclass(cls, Fitted) else {"lr": 0.003}
    if cls.wraps:
        base = knobs(cls)[cls.wraps].default
        hyper |= {base: {"lr": 0.003}, strategy: {"lr": 0.003, cls.wraps: base}}
    return own.runs(strategy, task, {name: own.written(each) for name, each in hyper.items()})


def silent(epoch, row):
    pass


class KilledError(Exception):
    """Stands for a power cut."""


def killed_and_resumed(spec, store, data, at):
    """Makes the run, which is killed when it reports the epoch `at`, and then made again."""

    def killed(epoch, row):
        if epoch == at:
            raise KilledError

    with pytest.raises(KilledError):
        make_run(spec, store, data, killed)
    make_run(spec, store, data, silent)
