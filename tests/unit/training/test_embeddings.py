"""Runs that see a frozen encoder's embeddings instead of pixels: filed under their content, resumed, probed."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.errors import InputError
from pipeline.params import ProbeScale
from pipeline.tasks import get_task
from pipeline.training import loop
from pipeline.training.machine import precision
from pipeline.training.probe import probe
from pipeline.training.run import make_run, trained
from pipeline.training.store import MADE, Store, data_fingerprint
from tests.support.embedded import WIDTH, made_up
from tests.support.made_up_data import fabricate
from tests.support.runs import VARIABLES, grid, killed_and_resumed, silent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Made-up data, and embeddings of two made-up encoders: with a grid, and without."""
    folder = fabricate(tmp_path_factory.mktemp("embedded"), n=120)
    made_up(folder)
    made_up(folder, "vector", side=0)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """More stays, for who is to learn of them."""
    folder = fabricate(tmp_path_factory.mktemp("many"), n=400)
    made_up(folder)
    return folder


@pytest.fixture
def seeing(training):
    return dataclasses.replace(training, image="tiny")


def store(tmp_path, data):
    return Store(tmp_path / "work", data_fingerprint(data), data)


def fold(data, image):
    return load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar", image=image)


@pytest.mark.parametrize("image", ["tiny", "vector"])
def test_a_stay_has_the_embedding_of_its_image_by_the_images_id(data, image):
    tensors, plain = fold(data, image), fold(data, "end_to_end")
    assert tensors.embedding == ((2, WIDTH) if image == "tiny" else (1, WIDTH))
    assert plain.embedding is None
    index = pl.read_parquet(data / "images/index.parquet")
    dicom = dict(zip(index["stay_id"], index["dicom_id"], strict=True))
    rows = dict(pl.read_parquet(data / f"embeddings/{image}/index.parquet").select("dicom_id", "row").iter_rows())
    packed = np.load(data / f"embeddings/{image}/packed.npy")
    batch = Batches(tensors, torch.device("cpu")).gather(torch.arange(50))
    assert batch.present[:, 1].tolist() == plain.pictured[:50].tolist()
    assert batch.images.dtype == torch.float16
    assert len(batch.images) > 10
    for embedding, sample in zip(batch.images, batch.image_sample, strict=True):
        own = packed[rows[dicom[tensors.stay_id[sample]]]]
        assert torch.equal(embedding, torch.from_numpy(own))
    order = [rows[dicom[stay]] for stay in tensors.stay_id[tensors.pictured]]
    assert order != sorted(order)  # or the rows of pixels would do


@pytest.mark.parametrize("strategy", ["late_fusion", "medfuse", "mmtm", "daft", "drfuse", "gbm_image", "resnet"])
def test_a_run_of_embeddings_learns_what_images_tell(many, tmp_path, seeing, strategy):
    """The brightness of the image tells every second phenotype."""
    own = store(tmp_path, many)
    (spec,) = grid(seeing, strategy, "phenotype", max_epochs=20, patience=20, cohorts=("matched",))
    make_run(spec, own, many, silent)
    found = load_file(own.folder(spec) / "predictions.safetensors")
    told, labels = get_task("phenotype").labels[::2], pl.read_parquet(many / "cohort/labels.parquet")
    truth = pl.DataFrame({"stay_id": found["stay_id"].astype(np.int32)}).join(
        labels, on="stay_id", maintain_order="left"
    )
    seen = np.isin(found["stay_id"], pl.read_parquet(many / "images/index.parquet")["stay_id"].to_numpy())
    scores = roc_auc_score(truth.select(told).to_numpy()[seen], found["p"][seen, ::2], average="macro")
    print(strategy, scores)
    assert scores > 0.85


def test_a_run_killed_goes_on_to_the_same_bytes(data, tmp_path, seeing):
    (spec,) = grid(seeing, "drfuse", cohorts=("matched",))
    whole, broken = store(tmp_path / "a", data), store(tmp_path / "b", data)
    make_run(spec, whole, data, silent)
    killed_and_resumed(spec, broken, data, 3)
    for name in MADE:
        assert files.sha256(whole.folder(spec) / name) == files.sha256(broken.folder(spec) / name), name


def test_moments_are_those_of_the_training_images_that_are_not_removed(data, tmp_path, seeing):
    spec = dataclasses.replace(grid(seeing)[1], train_missing=0.5, train_mechanism="mcar", max_epochs=1)
    own = store(tmp_path, data)
    make_run(spec, own, data, silent)
    tensors = fold(data, "tiny")
    chosen = (tensors.part == "train") & tensors.pictured & (tensors.removed_at >= 0.5)
    assert 0 < chosen.sum() < ((tensors.part == "train") & tensors.pictured).sum()
    vectors = tensors.embeddings[tensors.places.row[chosen, 0], 0].astype(float)
    model = trained(spec, own, tensors, torch.device("cpu"))
    np.testing.assert_allclose(model.image.frozen.centre[0].numpy(), vectors.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.image.frozen.spread[0].numpy(), vectors.std(axis=0), rtol=1e-3)


def test_embeddings_are_not_augmented(data, tmp_path, seeing, monkeypatch):
    monkeypatch.setattr(loop, "augment", lambda *_: pytest.fail("embeddings are no pictures"))
    make_run(dataclasses.replace(grid(seeing)[1], max_epochs=1), store(tmp_path, data), data, silent)


def test_a_run_is_filed_under_the_content_of_its_embeddings_where_it_sees_images(data, tmp_path, training, seeing):
    own = store(tmp_path, data)
    for strategy, sees in (("late_fusion", True), ("climd", True), ("lstm", False), ("ehr_metadata", False)):
        plain, embedded = (grid(each, strategy)[0] for each in (training, seeing))
        assert "image" not in own.identity(plain)["spec"]["training"]
        assert (own.name(plain) != own.name(embedded)) == sees, strategy
    spec = grid(seeing)[0]
    before = own.name(spec)
    made_up(data, "copy")
    copy = grid(dataclasses.replace(seeing, image="copy"))[0]
    assert own.name(copy) == before  # content, not name
    made_up(data, "copy", seed=1)
    assert own.name(copy) != before
    with pytest.raises(
        InputError, match=r"embeddings/none/index\.parquet: not found; make it with `dvc repro embed@none`"
    ):
        own.name(grid(dataclasses.replace(seeing, image="none"))[0])


def test_identities_of_end_to_end_runs_are_those_of_before_there_were_embeddings(data, tmp_path, training):
    """All keys of the params of training, as they were."""
    content = json.loads(json.dumps(store(tmp_path, data).identity(grid(training)[0])["spec"]["training"]))
    kept = {field.name for field in dataclasses.fields(training)} - {"image", "checkpoint_seconds"}
    assert set(content) == kept


@pytest.mark.parametrize(("strategy", "hyper"), [("umse", {"image": "patches"}), ("healnet", {"tokens": "raw"})])
def test_who_looks_at_pixels_is_refused_in_one_line(data, tmp_path, seeing, strategy, hyper):
    spec = grid(seeing, strategy)[1]
    spec = dataclasses.replace(spec, hyper=spec.hyper | hyper)
    words = (
        rf"^strategies\.{strategy}: as it is set, it looks at pixels, which embeddings are not; set training.image to "
    )
    with pytest.raises(InputError, match=words + "end_to_end$"):
        make_run(spec, store(tmp_path, data), data, silent)


def test_an_image_without_embedding_is_told(data, tmp_path, seeing):
    made_up(data, "short")
    index = data / "embeddings/short/index.parquet"
    files.write_parquet(pl.read_parquet(index)[1:], index)
    with pytest.raises(
        InputError, match=r"short/index\.parquet: lacks 1 of \d+ images of .*; run `dvc repro embed@short`$"
    ):
        fold(data, "short")
    with pytest.raises(InputError, match=r"absent/packed\.npy: not found; run `dvc repro embed@absent` first$"):
        fold(data, "absent")


def test_a_resnets_halves_are_not_asked_of_a_projection(training, seeing, monkeypatch):
    """bf16 on a CPU gains a ResNet time; a projection gains nothing."""
    from pipeline.training import machine
    from tests.support.small import ENCODERS

    monkeypatch.setattr(machine, "native_bf16", lambda: True)
    large = dataclasses.replace(ENCODERS, cnn="resnet50")
    auto = [dataclasses.replace(each, precision="auto") for each in (training, seeing)]
    assert [precision(each, large) for each in auto] == ["bf16", "fp32"]


def test_the_probe_asks_them_and_compares_the_frozen_encoder_with_the_cnn_as_built(data, tmp_path, seeing):
    own = store(tmp_path, data)
    (spec,) = grid(seeing, cohorts=("matched",))
    scale = ProbeScale((1.0,), ("mcar",), (12,), 6, 2)
    probe([spec], own, data, tmp_path / "probe", scale)
    tensors = fold(data, "tiny")
    test = (tensors.part == "test") & tensors.pictured
    removed = pl.read_parquet(tmp_path / "probe/removal.parquet").filter(test_modality="cxr")
    assert removed["stay_id"].to_list() == tensors.stay_id[test].tolist()
    swapped = pl.read_parquet(tmp_path / "probe/swaps.parquet")
    full, permuted = (swapped.filter(kind=kind, draw=0)["p_icu_mortality"] for kind in ("full", "cxr_permuted"))
    assert not full.equals(permuted)
    control = pl.read_parquet(tmp_path / "probe/image_control.parquet")
    assert control["encoder"].unique().sort().to_list() == ["trained", "untrained"]
    trained_, untrained = (
        control.filter(encoder=each, finding="edema").sort("stay_id") for each in ("trained", "untrained")
    )
    assert trained_["stay_id"].equals(untrained["stay_id"])
    assert not trained_["score"].equals(untrained["score"])
    gap = trained_.group_by("present").agg(pl.col("score").mean()).sort("present")["score"]
    assert gap[1] - gap[0] > 0.3  # the made-up embeddings tell the brightness
