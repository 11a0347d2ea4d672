"""Every strategy goes on, after a kill, to the weights of a run in one go (what is fitted at once: is fitted anew)."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from pipeline.modelling import registry
from pipeline.modelling.fitted import Fitted
from pipeline.params import TrainingScale, load
from pipeline.training.run import make_run
from pipeline.training.settings import Common
from pipeline.training.store import Store, data_fingerprint
from tests.support.made_up_data import fabricate
from tests.support.runs import killed_and_resumed
from tests.support.small import ENCODERS

SCALE = TrainingScale(
    cohorts=("base",), folds=(0,), seeds=(0,), train_missing=(0.0,), batch_size=16, max_epochs=3, patience=9
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("fabricated"), n=60)


@pytest.mark.parametrize("strategy", registry.names())
def test_a_killed_run_goes_on_to_the_same_weights(root, data, tmp_path, strategy):
    params = load(root / "params.yaml")
    training = dataclasses.replace(params.training, device="cpu", checkpoint_seconds=0.0)
    common = Common("core", dataclasses.replace(training, start="scratch"), ENCODERS, SCALE)
    settings = {name: common.written(hyper) for name, hyper in params.strategies.items()}
    (spec,) = common.runs(strategy, "mortality", settings)
    whole, broken = Store(tmp_path / "a", data_fingerprint(data)), Store(tmp_path / "b", data_fingerprint(data))
    make_run(spec, whole, data, lambda epoch, row: None)

    killed_and_resumed(spec, broken, data, 1 if issubclass(registry.strategy_class(strategy), Fitted) else 3)
    one, other = (load_file(store.folder(spec) / "weights.safetensors") for store in (whole, broken))
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key
