"""embed@ENCODER on a small synthetic hospital: the encoder's own features, each image once, whoever was killed when."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from pipeline import params
from pipeline.embedding import embed
from pipeline.embedding.card import read_card
from pipeline.embedding.embed import Embedder, identity, pictures, write_embeddings
from pipeline.errors import InputError
from pipeline.mimic.images import Jpegs
from pipeline.mimic.jpegs import release_folder
from pipeline.mimic.pixels import pack
from pipeline.params import Embedding
from tests.support.embedded import PX, VECTORS, WIDTH, write_card
from tests.support.inprocess import run
from tests.support.prepared import TO_AUDIT, prepare
from tests.support.processes import wait_until

CPU = Embedding(("tiny",), device="cpu", batch=4, workers=1)
OUT = ("facts.json", "index.parquet", "packed.npy")


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """A hospital through the data stages, a card, and its embeddings as the stage writes them."""
    folder = prepare(tmp_path_factory.mktemp("project"), 300, TO_AUDIT, params.load(root / "params.yaml").synthetic)
    content = yaml.safe_load((folder / "params.yaml").read_text())
    content["embedding"] |= {"encoders": ["tiny"], "workers": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    write_card(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_WORK", str(folder / "work"))
        run(folder, "encoders", "embed tiny")
    return folder


@pytest.fixture(autouse=True)
def in_project(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setenv("TQDM_DISABLE", "1")


def asked():
    """The images, and who reads their JPEGs."""
    images = pictures(Path("data/images/index.parquet"), Path("data/cohort/cxr.parquet"))
    return images, Jpegs(release_folder(Path("data/manifest.json")), {}, follow_links=False)


def again(folder, settings=CPU, images=None, name="tiny"):
    """The embeddings in `folder`/out, shards in `folder`/shards; the facts."""
    found, jpegs = asked()
    chosen = found if images is None else images
    return write_embeddings(chosen, jpegs, read_card(name), settings, folder / "out", folder / "shards")


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in OUT}


def test_an_image_has_the_encoders_features_of_its_jpeg_at_the_cards_size(project):
    network = write_card(project, "same")
    images, jpegs = asked()
    index = pl.read_parquet("data/embeddings/tiny/index.parquet")
    packed = np.load("data/embeddings/tiny/packed.npy")
    assert packed.dtype == np.float16
    assert packed.shape == (index.height, VECTORS, WIDTH)
    assert index["row"].to_list() == list(range(index.height))
    assert index["dicom_id"].is_sorted()
    own = pl.read_parquet("data/images/index.parquet")
    assert set(index["dicom_id"]) == set(own["dicom_id"])
    assert index.height > 40
    for each, found in list(zip(images, packed, strict=True))[::7]:
        file = next((jpegs.root / "files").rglob(f"{each.dicom_id}.jpg"))
        pixels = pack(file.read_bytes(), PX, str(file)).pixels
        with torch.no_grad():
            grown, pooled = network(torch.from_numpy(pixels)[None, None].float() / 255)
        wanted = torch.cat([pooled[:, None], grown.flatten(2).mT], dim=1)[0].half().numpy()
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    facts = json.loads(Path("data/embeddings/tiny/facts.json").read_text())
    card = read_card("tiny")
    wanted = {"encoder": "tiny", "identity": identity(card), "weights": card.sha256, "px": PX}
    assert facts == wanted | {"images": index.height, "vectors": VECTORS, "width": WIDTH}


def test_bytes_are_those_of_two_processes_too(tmp_path):
    assert again(tmp_path, dataclasses.replace(CPU, workers=2))["embedded"] > 40
    assert bytes_of(tmp_path / "out") == bytes_of(Path("data/embeddings/tiny"))


def test_an_embedding_is_that_of_the_image_alone_whatever_is_beside_it(tmp_path):
    images, _ = asked()
    whole = np.load("data/embeddings/tiny/packed.npy")
    again(tmp_path, images=images[::3])
    assert np.load(tmp_path / "out/packed.npy").tobytes() == whole[::3].tobytes()
    assert pl.read_parquet(tmp_path / "out/index.parquet")["dicom_id"].to_list() == [x.dicom_id for x in images[::3]]


def test_only_what_is_not_in_the_shards_is_embedded(tmp_path, monkeypatch):
    images, _ = asked()
    assert again(tmp_path, images=images[:40])["embedded"] == 40
    assert again(tmp_path)["embedded"] == len(images) - 40
    assert bytes_of(tmp_path / "out") == bytes_of(Path("data/embeddings/tiny"))
    monkeypatch.setattr(Embedder, "__call__", lambda *_: pytest.fail("all are there"))
    assert again(tmp_path)["embedded"] == 0
    assert again(tmp_path, images=[])["images"] == 0
    assert np.load(tmp_path / "out/packed.npy").shape == (0, VECTORS, WIDTH)


def test_an_image_that_changed_another_card_and_other_weights_are_embedded_anew(project, tmp_path):
    images, _ = asked()
    again(tmp_path)
    assert again(tmp_path, images=[images[0]._replace(sha256="other"), *images[1:]])["embedded"] == 1
    for name, changes, anew in (
        ("words", {"licence": "none", "source": "nowhere"}, False),
        ("range", {"range": [-1.0, 1.0]}, True),
        ("weights", {"seed": 1}, True),
    ):
        write_card(project, name, **changes)
        assert again(tmp_path, name=name)["embedded"] == (len(images) if anew else 0), name


def test_a_stage_that_was_killed_goes_on_from_its_shards(project, tmp_path, monkeypatch):
    """kill -9 in the midst of it; the next one embeds the rest, to the same bytes."""
    monkeypatch.setenv("FUSION_WORK", str(tmp_path / "work"))
    code = (
        "import sys, time\n"
        "from pipeline.embedding import embed\n"
        "embed.SHARD = 8\n"
        "write = embed._Shards.write\n"
        "def slow(*given):\n    write(*given)\n    time.sleep(0.5)\n"
        "embed._Shards.write = slow\n"
        "sys.argv = ['stages.embed', 'tiny']\n"
        "import stages.embed\n"
        "stages.embed.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(embed.ROOT)}
    kept = bytes_of(Path("data/embeddings/tiny"))
    shutil.rmtree("data/embeddings/tiny")  # as DVC does
    process = subprocess.Popen([sys.executable, "-c", code], cwd=project, env=environment, stderr=subprocess.DEVNULL)
    shards = tmp_path / "work/embeddings"
    wait_until(lambda: len(list(shards.glob("*/*.safetensors"))) >= 2, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = 8 * len(list(shards.glob("*/*.safetensors")))
    images, _ = asked()
    assert done < len(images)
    assert not Path("data/embeddings/tiny/packed.npy").exists()
    told = []
    with monkeypatch.context() as patch:
        patch.setattr("stages.embed.write_embeddings", lambda *given: told.append(write_embeddings(*given)) or told[0])
        run(project, "embed tiny")
    assert told[0]["embedded"] == len(images) - done
    assert bytes_of(Path("data/embeddings/tiny")) == kept


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_jpeg_that_is_gone_or_changed_ends_it_in_one_line(tmp_path, workers):
    images, jpegs = asked()
    lost = images[5]._replace(path="files/p10/p1/s1/none.jpg")
    settings = dataclasses.replace(CPU, workers=workers)
    words = r"files/p10/p1/s1/none\.jpg: not found; the stage images has read it: has it changed since\?$"
    with pytest.raises(InputError, match=words):
        again(tmp_path, settings, [*images[:5], lost, *images[6:]])
    published = dataclasses.replace(jpegs, sums={images[0].path: "0" * 64})
    with pytest.raises(InputError, match=r"damaged or changed: its SHA-256 .*; the stage images has read it"):
        write_embeddings(images, published, read_card("tiny"), settings, tmp_path / "x", tmp_path / "y")
    assert not (tmp_path / "x/packed.npy").exists()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_where_a_gpu_embeds_the_processes_read(tmp_path, monkeypatch, workers):
    """On a CPU in its stead: batches of one size, the last one filled up."""
    monkeypatch.setattr(embed, "_at_hand", lambda embedder: False)
    of = Embedder.of
    sizes = []

    def four(card, settings):
        made = dataclasses.replace(of(card, settings), batch=4)
        made.encoder.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
        return made

    monkeypatch.setattr(Embedder, "of", four)
    images, _ = asked()
    assert again(tmp_path, dataclasses.replace(CPU, workers=workers), images[:42])["embedded"] == 42
    assert sizes == [4] * 11
    found, alone = np.load(tmp_path / "out/packed.npy"), np.load("data/embeddings/tiny/packed.npy")[:42]
    np.testing.assert_allclose(found, alone, atol=2e-3)


def test_a_model_of_vectors_has_one_an_image(project, tmp_path):
    write_card(project, "vector", output="pooled")
    again(tmp_path, name="vector")
    found = np.load(tmp_path / "out/packed.npy")
    assert found.shape[1:] == (1, WIDTH)
    np.testing.assert_array_equal(found[:, 0], np.load("data/embeddings/tiny/packed.npy")[:, 0])


def test_embeddings_beyond_float16_are_told(project, tmp_path):
    write_card(project, "loud", range=[0.0, 1.0])
    embedder = Embedder.of(read_card("loud"), CPU)
    embedder.encoder.register_forward_hook(lambda *a: dataclasses.replace(a[2], pooled=a[2].pooled + 1e6))
    with pytest.raises(InputError, match=r"^encoders/loud\.yaml: file: embeddings that float16 cannot hold$"):
        embedder(np.zeros((1, PX, PX), np.uint8))


def test_the_stages_tell_in_one_line_what_is_wrong(project, monkeypatch):
    monkeypatch.setenv("FUSION_WORK", str(project / "work"))
    for command, words in (
        ("embed tinny", "embed: error: encoders/tinny.yaml: no such card; did you mean tiny?"),
        ("embed", "embed: error: needs one argument: ENCODER"),
    ):
        with pytest.raises(SystemExit) as end:
            run(project, command)
        assert str(end.value.code).startswith(words)


def test_the_cards_of_the_encoders_that_are_asked_for_are_written_down():
    found = json.loads(Path("data/embeddings/cards.json").read_text())
    assert set(found) == {"tiny"}
    assert found["tiny"]["px"] == PX


def test_a_chain_of_stages_trains_on_them(project, monkeypatch):
    """embed -> common, tune, train, probe; the run's data in common.json are the embeddings' too."""
    monkeypatch.setenv("FUSION_WORK", str(project / "work"))
    content = yaml.safe_load((project / "params.yaml").read_text())
    content["training"]["image"] = "tiny"
    content["grid"] |= {"strategies": ["late_fusion", "mmtm"], "tasks": ["mortality"]}
    with contextlib.ExitStack() as stack:
        before = (project / "params.yaml").read_text()
        stack.callback((project / "params.yaml").write_text, before)
        (project / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        run(project, "common", "tune", "train late_fusion", "train mmtm", "probe late_fusion")
    common = json.loads((project / "data/common.json").read_text())
    assert {"embeddings/tiny/packed.npy", "embeddings/tiny/index.parquet"} <= set(common["data"])
    for strategy in ("late_fusion", "mmtm"):
        told = pl.read_parquet(project / f"data/runs/{strategy}/mortality/predictions.parquet")
        assert told["p_icu_mortality"].is_finite().all()
    assert pl.read_parquet(project / "data/probes/late_fusion/removal.parquet").height > 0
