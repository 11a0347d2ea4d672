"""Runs that need earlier runs: made first, part of the identity, and what encoders and strategies take from them."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.modelling.cards import read_card
from pipeline.modelling.encoders import ImageEncoder, LSTMEncoder, TransformerEncoder, start_encoders
from pipeline.modelling.examples import small_shapes
from pipeline.modelling.registry import build, names, strategy_class
from pipeline.strict import build as strictly
from pipeline.tasks import get_task
from pipeline.training.executors import execute
from pipeline.training.grid import RunSpec
from pipeline.training.loop import logits_of
from pipeline.training.run import make_run, trained
from pipeline.training.settings import Common, Settings, needed
from pipeline.training.store import Store, data_fingerprint
from tests.support.runs import SCALE, VARIABLES, killed_and_resumed, silent
from tests.support.small import ENCODERS

SETTINGS = {
    "late_fusion": Settings({"lr": 0.003}, 0.1, 0.01),
    "medfuse": Settings({"lr": 0.003, "series": "lstm"}, 0.1, 0.01),
    "transformer": Settings({"lr": 0.002}, 0.2, 0.02),
    "lstm": Settings({"lr": 0.002}, 0.2, 0.02),
    "resnet": Settings({"lr": 0.001}, 0.0, 0.0),
}


@pytest.fixture
def common(training):
    unimodal = dataclasses.replace(training, start="unimodal")
    return Common("core", unimodal, ENCODERS, dataclasses.replace(SCALE, cohorts=("matched",), max_epochs=2))


def test_who_needs_whose_runs():
    assert needed("late_fusion", {"lr": 1.0}, "scratch") == ()
    assert needed("late_fusion", {"lr": 1.0}, "unimodal") == ("transformer", "resnet")
    assert needed("medfuse", {"lr": 1.0, "series": "lstm"}, "unimodal") == ("lstm", "resnet")
    for alone in ("resnet", "lstm", "transformer", "gbm", "logistic", "ehr_presence", "ehr_metadata"):
        assert needed(alone, {}, "unimodal") == ()


def test_needs_are_of_the_same_fold_and_seed_with_their_own_settings_and_part_of_the_identity(common, data, tmp_path):
    (spec,) = common.runs("late_fusion", "mortality", SETTINGS)
    resnet = spec.needs["resnet"]
    assert resnet.key == spec.key
    assert (resnet.hyper, resnet.encoders.dropout, resnet.training.weight_decay) == ({"lr": 0.001}, 0.0, 0.0)
    assert strictly(RunSpec, json.loads(json.dumps(dataclasses.asdict(spec))), "spec") == spec
    store = Store(tmp_path, data_fingerprint(data))
    (own,) = common.runs("resnet", "mortality", SETTINGS)
    assert store.name(own) == store.name(resnet)  # one run for the cell of its own and for whoever needs it
    (other,) = common.runs("late_fusion", "mortality", SETTINGS | {"resnet": Settings({"lr": 0.004}, 0.0, 0.0)})
    assert store.name(other) != store.name(spec)


def test_an_encoder_begins_where_the_unimodal_run_ended(common, data, tmp_path, monkeypatch):
    store, begun = Store(tmp_path, data_fingerprint(data)), {}

    def fit(strategy, *rest):
        begun[type(strategy).__name__] = {key: value.clone() for key, value in strategy.state_dict().items()}
        return real(strategy, *rest)

    from pipeline.training import run

    real = run.fit
    monkeypatch.setattr(run, "fit", fit)
    (spec,) = common.runs("medfuse", "mortality", SETTINGS)
    make_run(spec, store, data, silent)
    for name, part in (("resnet", "image."), ("lstm", "series.")):
        ended = load_file(store.folder(spec.needs[name]) / "weights.safetensors")
        encoder = {key: value for key, value in ended.items() if key.startswith("encoder.")}
        assert encoder
        for key, value in encoder.items():
            assert torch.equal(begun["MedFuse"][key.replace("encoder.", part)], value), key


def test_needed_runs_are_made_first_and_once(common, data, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_EXECUTOR", "inline")
    store, made = Store(tmp_path, data_fingerprint(data)), []
    from pipeline.training import run

    real = run.fit
    monkeypatch.setattr(
        run, "fit", lambda strategy, *rest: made.append(type(strategy).__name__) or real(strategy, *rest)
    )
    specs = [each for name in ("medfuse", "late_fusion") for each in common.runs(name, "mortality", SETTINGS)]
    execute(specs, store, data)
    assert len(made) == 5
    assert len(set(made[:3])) == 3
    assert set(made[3:]) == {"MedFuse", "LateFusion"}


class Student(strategy_class("lstm")):
    """Keeps what an earlier run answers."""

    def __init__(self, shapes):
        super().__init__(shapes)
        self.register_buffer("told", torch.zeros(200, shapes.outputs))

    def learn_from(self, earlier):
        logits = earlier["resnet"].logits()
        self.told[: len(logits)] = logits
        assert not earlier["resnet"].strategy.training


def test_a_strategy_is_handed_the_logits_of_all_stays(common, data, tmp_path, monkeypatch):
    store = Store(tmp_path, data_fingerprint(data))
    (spec,) = common.runs("lstm", "mortality", SETTINGS)
    (resnet,) = common.runs("resnet", "mortality", SETTINGS)
    spec = dataclasses.replace(spec, needs={"resnet": resnet})
    make_run(resnet, store, data, silent)
    monkeypatch.setattr(
        "pipeline.training.run.build",
        lambda name, shapes, hyper: Student(shapes) if name == "lstm" else build(name, shapes, hyper),
    )
    make_run(spec, store, data, silent)
    tensors = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar")
    model = trained(resnet, store, tensors, torch.device("cpu"))
    expected = logits_of(model, Batches(tensors, torch.device("cpu")), torch.arange(len(tensors.stay_id)), resnet)
    told = load_file(store.folder(spec) / "weights.safetensors")["told"]
    assert torch.equal(told[: len(expected)], expected)


def test_encoders_of_the_same_kind_are_started_and_others_left():
    shapes = small_shapes("mortality")
    torch.manual_seed(0)
    image, series = build("resnet", shapes, {}), build("transformer", shapes, {})
    fused = build("shaspec", shapes, {})
    before = {key: value.clone() for key, value in fused.state_dict().items()}
    started = start_encoders(fused, [image, series])
    kinds = (ImageEncoder, TransformerEncoder)
    assert started == [name for name, module in fused.named_modules() if isinstance(module, kinds)]
    for module in fused.modules():
        if isinstance(module, ImageEncoder):
            ended = image.encoder.state_dict()
            assert all(torch.equal(value, ended[key]) for key, value in module.state_dict().items())
    moved = {key for key, value in fused.state_dict().items() if not torch.equal(value, before[key])}
    assert all(key.startswith(tuple(f"{name}." for name in started)) for key in moved)
    lstm = build("lstm", shapes, {})
    assert isinstance(lstm.encoder, LSTMEncoder)
    assert not start_encoders(lstm, [image, series])


def test_an_encoder_without_its_first_stage_starts_with_the_stages_that_it_has():
    shapes = small_shapes("mortality", 32)
    torch.manual_seed(0)
    image, fused = build("resnet", shapes, {}), build("drfuse", shapes, {})
    assert len(fused.image_own.stages) == len(image.encoder.stages) - 1
    start_encoders(fused, [image])
    for own, ended in zip(fused.image_own.stages, image.encoder.stages[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), ended.parameters(), strict=True))
    assert torch.equal(fused.image_own.project.weight, image.encoder.project.weight)


@pytest.mark.parametrize("name", [name for name in names() if read_card(name).group == "fusion"])
def test_every_fusion_strategy_can_start(name):
    shapes = small_shapes("mortality", 32)
    fused = build(name, shapes, {})
    started = start_encoders(fused, [build(each, shapes, {}) for each in ("resnet", "transformer", "lstm")])
    kinds = (ImageEncoder, TransformerEncoder, LSTMEncoder)
    assert started == [place for place, module in fused.named_modules() if isinstance(module, kinds)]
    assert started


def test_a_killed_run_with_needs_goes_on_to_the_same_bytes(common, data, tmp_path):
    (spec,) = common.runs("late_fusion", "mortality", SETTINGS)
    whole, broken = Store(tmp_path / "a", data_fingerprint(data)), Store(tmp_path / "b", data_fingerprint(data))
    make_run(spec, whole, data, silent)
    killed_and_resumed(spec, broken, data, 2)
    for name in ("predictions.safetensors", "weights.safetensors"):
        assert files.sha256(whole.folder(spec) / name) == files.sha256(broken.folder(spec) / name), name


def test_no_run_ends_before_the_least_share(common, data, tmp_path):
    """Patience counts as it did, from the share of epochs on."""
    for share, least in ((0.0, 1), (0.75, 6)):
        training = dataclasses.replace(common.training, start="scratch", least_share=share)
        scale = dataclasses.replace(common.scale, max_epochs=8, patience=1)
        (spec,) = Common("core", training, ENCODERS, scale).runs("resnet", "mortality", SETTINGS)
        store = Store(tmp_path / str(share), data_fingerprint(data))
        make_run(spec, store, data, silent)
        epochs = json.loads((store.folder(spec) / "history.json").read_text())
        best = next(row["epoch"] for row in epochs if row["best"])
        assert len(epochs) >= least
        assert len(epochs) == min(8, max(best + 1, least))
