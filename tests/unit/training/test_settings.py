"""Runs that need earlier runs: made first, part of the identity, and what encoders and strategies take from them."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.errors import InputError
from pipeline.modelling.cards import read_card
from pipeline.modelling.encoders import ImageEncoder, LSTMEncoder, TransformerEncoder, start_encoders
from pipeline.modelling.examples import small_shapes
from pipeline.modelling.registry import build, names, strategy_class
from pipeline.modelling.sizes import scaled
from pipeline.strict import build as strictly
from pipeline.tasks import get_task
from pipeline.training import run as run_module
from pipeline.training import settings as settings_module
from pipeline.training.executors import execute
from pipeline.training.grid import RunSpec
from pipeline.training.loop import logits_of
from pipeline.training.run import make_run, trained
from pipeline.training.settings import Common, Settings, needed
from pipeline.training.store import Store, data_fingerprint
from pipeline.training.worklist import jobs
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
    for control in ("ehr_presence", "ehr_metadata"):  # or the ladder's last step would be of a second training, too
        assert needed(control, {"lr": 1.0}, "unimodal") == ("transformer",)
    for alone in ("resnet", "lstm", "transformer", "gbm", "logistic"):
        assert needed(alone, {"lr": 1.0} if alone != "gbm" else {}, "unimodal") == ()


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


def test_what_is_wrapped_says_what_is_needed_and_has_the_knobs_that_were_chosen_for_it(common, data, tmp_path):
    hyper = {"lr": 0.001, "base": "medfuse", "base_hyper": {}}
    assert needed("climd", hyper, "unimodal") == ("medfuse",)
    settings = SETTINGS | {"climd": Settings(hyper, 0.3, 0.03)}
    (spec,) = common.runs("climd", "mortality", settings)
    assert spec.hyper == hyper | {"base_hyper": {"series": "lstm"}}
    assert (spec.encoders.dropout, spec.training.weight_decay) == (0.3, 0.03)
    (medfuse,) = common.runs("medfuse", "mortality", settings)
    assert spec.needs == medfuse.needs
    assert list(spec.needs) == ["lstm", "resnet"]
    own = hyper | {"base_hyper": {"series": "transformer"}}  # what stands in its own block counts
    (spec,) = common.runs("climd", "mortality", settings | {"climd": Settings(own, 0.3, 0.03)})
    assert spec.hyper == own
    assert list(spec.needs) == ["transformer", "resnet"]


TEACHING = {"lr": 0.003, "sizes": (0.5, 1.0), "teachers": "same", "size": 1.0}


@pytest.fixture
def teaching(monkeypatch):
    """late_fusion is taught by the runs of transformer and resnet."""
    needs = ("transformer", "resnet")

    def card(name):
        return dataclasses.replace(read_card(name), needs=needs if name == "late_fusion" else ())

    monkeypatch.setattr(settings_module, "read_card", card)

    def settings(**hyper):
        return SETTINGS | {"late_fusion": Settings(TEACHING | hyper, 0.1, 0.01)}

    return settings


def test_teachers_of_two_sizes_are_runs_of_their_own_and_the_one_of_full_size_is_shared(
    common, teaching, data, tmp_path
):
    (spec,) = common.runs("late_fusion", "mortality", teaching())
    teachers = [f"{name} x{size}" for name in ("transformer", "resnet") for size in ("0.5", "1")]
    assert list(spec.needs) == [*teachers, "transformer", "resnet"]
    half, whole = spec.needs["resnet x0.5"].encoders, spec.needs["resnet x1"].encoders
    assert (half.width, half.cnn_width) == (ENCODERS.width // 2, ENCODERS.cnn_width // 2)
    assert (whole.width, whole.cnn_width, whole.dropout) == (ENCODERS.width, ENCODERS.cnn_width, 0.0)
    store = Store(tmp_path, data_fingerprint(data))
    (own,) = common.runs("resnet", "mortality", teaching())
    assert store.name(spec.needs["resnet x1"]) == store.name(spec.needs["resnet"]) == store.name(own)
    (medfuse,) = common.runs("medfuse", "mortality", teaching())
    made = [job.name for job in jobs([spec, own, medfuse], store)]
    assert len(made) == len(set(made)) == 2 + 4 + 1  # the two, four teachers, an lstm
    assert made[-1] in (store.name(spec), store.name(medfuse))


def test_teachers_of_the_base_cohort_are_those_that_see_records(common, teaching):
    (spec,) = common.runs("late_fusion", "mortality", teaching(teachers="base"))
    cohorts = {name: each.train_cohort for name, each in spec.needs.items()}
    records, others = {"transformer x0.5", "transformer x1"}, {"resnet x0.5", "resnet x1", "transformer", "resnet"}
    assert cohorts == dict.fromkeys(records, "base") | dict.fromkeys(others, "matched")
    (spec,) = common.runs("late_fusion", "mortality", teaching(teachers="none"))
    assert list(spec.needs) == ["transformer", "resnet"]


def test_a_student_begins_with_encoders_of_its_own_size_and_no_teachers(common, teaching, data, tmp_path, monkeypatch):
    (spec,) = common.runs("late_fusion", "mortality", teaching(size=0.5))
    assert spec.needs["transformer"] == spec.needs["transformer x0.5"]
    assert spec.encoders.width == ENCODERS.width  # its own knob says the rest
    store, begun, real = Store(tmp_path, data_fingerprint(data)), [], run_module.start_encoders

    def start(strategy, trained):
        begun.extend(model.shapes.encoders.width for model in trained)
        return real(strategy, trained)

    (spec,) = common.runs("late_fusion", "mortality", teaching(sizes=(0.5, 2.0)))
    spec = dataclasses.replace(spec, hyper={"lr": 0.003})  # as late_fusion can be built
    monkeypatch.setattr(run_module, "start_encoders", start)
    make_run(spec, store, data, silent)
    assert begun == [ENCODERS.width] * 2


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("sizes", 0.5, "must be a list of different numbers, is 0.5"),
        ("sizes", (1.0, 1.0), r"must be a list of different numbers, is \(1.0, 1.0\)"),
        ("sizes", (0.0,), "must be above 0, is 0.0"),
        ("size", "half", "must be above 0, is 'half'"),
        ("teachers", "all", "must be one of none, same, base, is 'all'"),
    ],
)
def test_impossible_teachers_are_refused(teaching, common, knob, value, message):
    with pytest.raises(InputError, match=rf"^strategies\.late_fusion\.{knob}: {message}$"):
        common.runs("late_fusion", "mortality", teaching(**{knob: value}))


@pytest.mark.parametrize(
    ("size", "width", "cnn_width", "expected"),
    [
        (0.5, 32, 8, (16, 4)),
        (2, 32, 8, (64, 16)),
        (1, 12, 7, (12, 7)),  # as it is
        (0.25, 16, 4, (4, 2)),
        (0.1, 16, 4, (4, 2)),
        (1.5, 16, 16, (24, 24)),
        (1.3, 32, 16, (40, 24)),
        (0.75, 32, 16, (24, 12)),
    ],
)
def test_encoders_of_a_size_have_widths_that_they_can_be_built_with(size, width, cnn_width, expected):
    small = small_shapes("mortality")
    encoders = dataclasses.replace(small.encoders, width=width, heads=4, cnn_width=cnn_width)
    found = scaled(encoders, size)
    assert found == dataclasses.replace(encoders, width=expected[0], cnn_width=expected[1])
    if size != 1:
        for name in ("resnet", "transformer"):
            build(name, dataclasses.replace(small, encoders=found), {})


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


@pytest.mark.parametrize("name", [name for name in names() if read_card(name).group != "unimodal"])
def test_every_fusion_strategy_and_control_can_start(name):
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
