"""tests/benchmarks/encoders.py on a tiny hospital: whom the encoder made there has seen, its card, the table."""

import json

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from pipeline.embedding.card import read_card
from pipeline.embedding.loaders import load_encoder
from pipeline.params import END_TO_END, load
from pipeline.presentation.text import markdown_table
from pipeline.synthetic.model import PHENOTYPES
from tests.benchmarks import encoders, findings_encoder
from tests.benchmarks.encoders import KINDS, READY, SOURCES, Size, difference_rows, score_rows, study
from tests.benchmarks.findings_encoder import NAME, held_out, learn, outsiders
from tests.support import inprocess

SIZE = Size(patients=200, image_px=24, px=32, epochs=2, encoder_epochs=2, folds=2)
STRATEGIES = ("transformer", "resnet")
made = []  # stages that were run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The study, its stages in this process."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        here(patch, folder)
        made.clear()
        yield folder, *study(folder, SIZE)


def here(patch, folder):
    patch.setenv("FUSION_WORK", str(folder / "store"))
    patch.setattr(encoders, "STRATEGIES", STRATEGIES)
    changed = encoders.changed

    def in_one_process(*arguments):
        params = changed(*arguments)
        params["embedding"]["workers"] = 1
        return params

    patch.setattr(encoders, "changed", in_one_process)
    patch.setattr(encoders.subprocess, "run", in_process)


def in_process(command, *, cwd, **_):
    command = " ".join([command[2].removeprefix("stages."), *command[3:]])
    made.append((cwd.name, command))
    inprocess.run(cwd, command)


def test_who_teaches_the_encoder_has_no_stay_in_the_cohort(folder):
    data = folder[0] / "hospital/data"
    images = outsiders(data)
    cohort = set(pl.read_parquet(data / "cohort/stays.parquet")["subject_id"])
    assert images.height > 20
    assert not cohort & set(images["subject_id"])
    metadata = pl.read_parquet(data / "interim/cxr_metadata.parquet")
    strangers = metadata.filter(~pl.col("subject_id").is_in(cohort))
    assert set(images["dicom_id"]) < set(strangers["dicom_id"])  # those without a frontal view are left out
    # by hand: a finding that the report is not sure of is not taught, one that it does not mention is absent
    raw = pl.read_parquet(data / "interim/cxr_findings.parquet").select("study_id", raw="Edema")
    edema = images.join(metadata.select("dicom_id", "study_id"), on="dicom_id").join(raw, on="study_id")
    for value, told in ((1.0, 1.0), (0.0, 0.0), (None, 0.0), (-1.0, None)):
        assert set(edema.filter(pl.col("raw").eq_missing(value))["Edema"]) <= {told}
    assert edema["Edema"].n_unique() > 1
    assert (data / ".." / "data/raw/synthetic/mimic-cxr-jpg" / images["path"][0]).is_file()


def test_the_card_lists_what_was_seen_and_is_read(folder, monkeypatch):
    hospital = folder[0] / "hospital"
    card = read_card(NAME, hospital / "encoders")
    images = outsiders(hospital / "data")
    taught = images.filter(~held_out(images))
    assert pl.read_csv(card.mimic_cxr)["dicom_id"].to_list() == taught["dicom_id"].to_list()
    assert not set(taught["subject_id"]) & set(images.filter(held_out(images))["subject_id"])
    facts = json.loads((hospital / f"encoders/{NAME}.json").read_text())
    assert (facts["images"], facts["patients"]) == (taught.height, taught["subject_id"].n_unique())
    assert facts["images"] + facts["held_out_images"] == images.height
    encoder = load_encoder(card)
    assert (encoder.width, encoder.grid, card.px) == (64, (2, 2), 32)


def test_the_program_is_the_cnn_of_the_strategies(tmp_path, folder):
    """What the card makes of grey is what the CNN sees. Two goes give the same weights."""
    params = load(folder[0] / "hospital/params.yaml")
    pixels = torch.randint(0, 256, (40, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    told = (pixels.float().mean(dim=(1, 2)) > 127.5).float()[:, None].repeat(1, 3)
    told[:5, 1] = float("nan")
    once, again, more = (
        learn(pixels, told, params.get("scales.encoders"), params.training, epochs) for epochs in (1, 1, 2)
    )
    assert all(torch.equal(*pair) for pair in zip(once.parameters(), again.parameters(), strict=True))
    assert not torch.equal(once.head.weight, more.head.weight)
    path = tmp_path / "program.pt2"
    torch.export.save(findings_encoder.exported(once, 32), path)
    (tmp_path / "seen.csv").write_text("dicom_id\nx\n")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(findings_encoder.card(path, tmp_path / "seen.csv", 32)))
    found = load_encoder(read_card("mine", tmp_path))(pixels[:, None])
    with torch.no_grad():
        maps = once.encoder.encode(once.encoder.normalise(pixels[:, None].float() / 255)).maps[-1]
    torch.testing.assert_close(found.pooled, maps.mean(dim=(2, 3)))


def test_what_is_not_told_teaches_nothing():
    logits = torch.tensor([[0.0, 3.0], [2.0, -1.0]])
    told = torch.tensor([[1.0, float("nan")], [float("nan"), 0.0]])
    expected = (np.log(2) + np.log1p(np.exp(-1.0))) / 2
    assert float(findings_encoder.loss_of(logits, told)) == pytest.approx(expected)


def test_nobody_of_the_tested_was_seen_and_that_is_exact(folder):
    report = json.loads((folder[0] / f"{NAME}-2/reports/data/exposure.json").read_text())
    assert report["in_use"] == NAME
    own = report["encoders"][NAME]
    assert (own["badge"], own["basis"]) == ("clean", "list")
    assert [row["seen"] for row in own["parts"]] == [0] * 6  # dev, and five folds
    assert report["encoders"][READY]["basis"] == "no MIMIC-CXR"
    rows, page = folder[1:]
    assert rows.filter(image=NAME)["seen_of_test"].unique().to_list() == ["0"]
    assert f"`{READY}` 0 (clean); `{NAME}` 0 (clean)." in page


def test_the_table_is_what_the_predictions_say(folder):
    rows = folder[1]
    assert rows.height == len(KINDS) * (1 + len(SOURCES))  # the record alone has no source of the image
    stays = pl.read_parquet(folder[0] / "hospital/data/cohort/stays.parquet").select("stay_id", "has_cxr")
    truth = pl.read_parquet(folder[0] / "hospital/data/cohort/labels.parquet").join(stays, on="stay_id")

    def mean_auroc(strategy, source, kind):
        path = folder[0] / f"{source}-2/data/runs/{strategy}/phenotype/predictions.parquet"
        told = pl.read_parquet(path).filter(part="test").cast({"stay_id": pl.Int32}).join(truth, on="stay_id")
        told = told.filter("has_cxr")
        labels = [name for name, effect in PHENOTYPES.items() if effect.kind == kind]
        each = {
            (fold, name): roc_auc_score(of[name], of[f"p_{name}"])
            for (fold,), of in told.group_by("fold")
            for name in labels
            if of[name].n_unique() == 2
        }
        by_label = {name: [each[key] for key in each if key[1] == name] for name in labels}
        return np.mean([np.mean(values) for values in by_label.values() if values])

    for row in rows.iter_rows(named=True):
        own = mean_auroc(row["strategy"], row["image"] or END_TO_END, row["kind"])
        assert row["auroc"] == pytest.approx(own, abs=1e-9)
        if row["image"] in SOURCES[1:]:
            whole = mean_auroc(row["strategy"], END_TO_END, row["kind"])
            assert row["difference"] == pytest.approx(own - whole, abs=1e-9)
        else:
            assert row["difference"] is None
    assert (rows["seconds_per_epoch"] > 0).all()


def test_the_page_has_a_row_a_strategy_and_source(folder):
    page = folder[2]
    assert page.count("| resnet | end to end |") == 2
    assert page.count(f"| resnet | {NAME} |") == 2
    assert page.count("| transformer | – | – |") == 1
    assert "\n200 patients, images of 24 px packed at 32; 2 folds" in page


def test_the_page_in_docs_tells_the_table_in_docs(root):
    rows = pl.read_csv(root / "docs/encoders-study.csv", schema_overrides={"seen_of_test": pl.String})
    page = (root / "docs/encoders-study.md").read_text(encoding="utf-8")
    assert rows.height == len(KINDS) * (1 + 4 * len(SOURCES))
    for told in (score_rows(rows), difference_rows(rows)):
        for line in markdown_table([""] * len(told[0]), told).splitlines()[2:]:
            assert line in page


def test_what_is_made_is_not_made_again(folder, monkeypatch):
    assert ("hospital", f"embed {NAME}") in made
    assert (f"{READY}-2", "train resnet") in made
    here(monkeypatch, folder[0])
    made.clear()
    monkeypatch.setattr(findings_encoder, "make", None)
    (folder[0] / f"{NAME}-2/done/train-resnet").unlink()  # as if it had been killed there
    rows, page = study(folder[0], SIZE)
    assert made == [(f"{NAME}-2", "train resnet")]
    assert rows.equals(folder[1])
    assert page == folder[2]
