"""A student's run: its teachers' runs are made before, it hears them, and begins with encoders of its own size."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.data.tensors import load_fold
from pipeline.modelling.interface import EHR
from pipeline.strategies.mind import MIND
from pipeline.tasks import get_task
from pipeline.training import run as run_module
from pipeline.training.cell import history
from pipeline.training.run import make_run
from pipeline.training.settings import Common, Settings, needed
from pipeline.training.store import Store, data_fingerprint
from tests.support.runs import SCALE, VARIABLES, silent
from tests.support.small import ENCODERS

HYPER = {"lr": 0.003, "size": 0.5, "own": 1.0, "distil_ehr": 1.0, "distil_cxr": 1.0, "temperature": 2.0}
HYPER |= {"match": "soft", "teachers": "base", "sizes": [0.5, 1.0]}


@pytest.fixture
def spec(training):
    scale = dataclasses.replace(SCALE, cohorts=("matched",), max_epochs=2)
    common = Common("core", dataclasses.replace(training, start="unimodal"), ENCODERS, scale)
    settings = {name: Settings({"lr": 0.003}, 0.1, 0.01) for name in ("transformer", "resnet")}
    (found,) = common.runs("mind", "mortality", settings | {"mind": Settings(HYPER, 0.1, 0.01)})
    return found


def test_teachers_are_tuned_before_and_who_has_none_needs_none():
    assert needed("mind", HYPER, "scratch") == needed("mind", HYPER, "unimodal") == ("resnet", "transformer")
    assert needed("mind", HYPER | {"teachers": "none"}, "scratch") == ()


def test_a_run_is_taught_and_begins_with_the_encoders_of_its_own_size(spec, data, tmp_path, monkeypatch):
    store, begun, real = Store(tmp_path, data_fingerprint(data)), {}, run_module.fit

    def fit(strategy, *rest):
        if isinstance(strategy, MIND):
            begun.update({key: value.clone() for key, value in strategy.state_dict().items()})
            begun["taught"], begun["teaches"] = strategy.taught.clone(), strategy.teaches.clone()
        return real(strategy, *rest)

    monkeypatch.setattr(run_module, "fit", fit)
    make_run(spec, store, data, silent)
    cohorts = {name: need.train_cohort for name, need in spec.needs.items()}
    records = ("transformer x0.5", "transformer x1")
    others = ("resnet x0.5", "resnet x1", "transformer", "resnet")
    assert cohorts == dict.fromkeys(records, "base") | dict.fromkeys(others, "matched")
    for name, part in (("resnet", "image."), ("transformer", "series.")):
        ended = load_file(store.folder(spec.needs[name]) / "weights.safetensors")
        encoder = {key: value for key, value in ended.items() if key.startswith("encoder.")}
        assert encoder
        for key, value in encoder.items():
            assert torch.equal(begun[key.replace("encoder.", part)], value), key
    assert begun["teaches"].all()
    tensors = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar")
    told = [load_file(store.folder(spec.needs[name]) / "predictions.safetensors") for name in records]
    rows = np.flatnonzero(np.isin(tensors.stay_id, told[0]["stay_id"].numpy()))
    expected = torch.stack([each["p"] for each in told]).mean(dim=0)
    torch.testing.assert_close(torch.sigmoid(begun["taught"][EHR, rows]), expected, atol=1e-5, rtol=0)
    assert "taught" not in load_file(store.folder(spec) / "weights.safetensors")
    shown = history([spec], store)
    assert (shown["train_distil_ehr"] > 0).all()
    assert (shown["train_distil_cxr"] > 0).all()
