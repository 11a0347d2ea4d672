"""A run that sees embeddings, asked again: of the folders that it was trained on, and after its encoder changed."""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from pipeline import params
from pipeline.embedding.card import read_card
from pipeline.embedding.embed import pictures, write_embeddings
from pipeline.mimic.images import Jpegs
from pipeline.mimic.jpegs import release_folder
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.embedded import write_card
from tests.support.prepared import TO_AUDIT, prepare
from tests.support.runs import grid, silent
from tests.unit.prediction.test_predict import answers, asked, run_of


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """A small hospital, its embeddings, and a finished run of them."""
    folder = prepare(tmp_path_factory.mktemp("seeing"), 300, TO_AUDIT, params.load(root / "params.yaml").synthetic)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_card(folder)
        known = params.load("params.yaml")
        data, settings = Path("data"), dataclasses.replace(known.embedding, encoders=("tiny",), workers=1)
        jpegs = Jpegs(release_folder(data / "manifest.json"), {}, follow_links=False)
        images = pictures(data / "images/index.parquet", data / "cohort/cxr.parquet")
        write_embeddings(images, jpegs, read_card("tiny"), settings, data / "embeddings/tiny", Path("shards"))
        training = dataclasses.replace(known.training, device="cpu", checkpoint_seconds=0.0, image="tiny")
        store = Store(Path("work"), data_fingerprint(data), data)
        for spec in grid(training, "late_fusion", "mortality", folds=(1,), max_epochs=2):
            make_run(spec, store, data, silent)
    return folder


@pytest.fixture(autouse=True)
def own_store(project, monkeypatch):
    monkeypatch.setenv("FUSION_WORK", str(project / "work"))
    monkeypatch.setenv("TQDM_DISABLE", "1")


def test_a_stay_of_the_training_data_is_answered_as_it_was_stored(project):
    run = run_of(project, "late_fusion")
    found, account = answers(project, run)
    stored = load_file(project / "work/runs" / run / "predictions.safetensors")
    own = pl.DataFrame({"stay_id": stored["stay_id"]}).join(found, on="stay_id", how="left", maintain_order="left")
    assert own.height > 30
    assert (~own["image_absent"]).sum() > 10
    assert own.select("p_icu_mortality").to_numpy().tobytes() == np.ascontiguousarray(stored["p"]).tobytes()
    assert account["spec"]["training"]["image"] == "tiny"


def test_it_is_asked_with_the_encoder_that_it_was_trained_with_or_not_at_all(project):
    run, card = run_of(project, "late_fusion"), project / "encoders/tiny.yaml"
    kept = card.read_text()
    write_card(project, range=[0.0, 2.0])
    told = asked(project, run, "other.parquet")
    assert told == (
        "predict: error: encoders/tiny.yaml: data/embeddings/tiny was made by another card, code or versions; "
        "dvc repro embed@tiny"
    )
    card.write_text(kept)
    (project / "data/embeddings/tiny").rename(project / "data/tiny")
    told = asked(project, run, "other.parquet")
    (project / "data/tiny").rename(project / "data/embeddings/tiny")
    assert told == f"predict: error: {run}: sees embeddings that are not in data/embeddings; make them: dvc repro embed"
    assert not (project / "other.parquet").exists()
