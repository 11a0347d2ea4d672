"""Who of dev and test an encoder has seen, against cohorts small enough to count by hand."""

import dataclasses
import json
import shutil

import polars as pl
import pytest

from pipeline import files
from pipeline.closure import ROOT
from pipeline.embedding.card import Card
from pipeline.embedding.overlap import TOLD_APART, audit, exposure, official_split, told_apart
from pipeline.errors import InputError
from pipeline.mimic.manifest import build_manifest
from pipeline.params import Data
from tests.support.inprocess import run, write_params
from tests.support.raw_tree import FILES, put

CARD = Card("mine", "timm", 224, {"mimic_cxr": "all"}, range=(0.0, 1.0), seen=("images",))
# 100 subjects: 0 to 19 dev; of the others 20 to 59 are tested in fold 0, 60 to 99 in fold 1. Each has two stays.
PART = [["dev", "dev"]] * 20 + [["test", "train"]] * 40 + [["val", "test"]] * 40
SPLITS = pl.DataFrame(
    [(2 * s + k, fold, s, PART[s][fold]) for s in range(100) for k in range(2) for fold in range(2)],
    schema={"stay_id": pl.Int32, "fold": pl.Int8, "subject_id": pl.Int32, "part": pl.String},
    orient="row",
)
# every second subject has two images, and so has one who is not in the cohort
IMAGES = pl.DataFrame(
    [(f"{s}-{k}", s) for s in [*range(0, 100, 2), 777] for k in "ab"],
    schema={"dicom_id": pl.String, "subject_id": pl.Int32},
    orient="row",
)
# of the split's train: subjects below 50
OFFICIAL = IMAGES.with_columns(
    split=pl.when(pl.col("subject_id") < 50)
    .then(pl.lit("train"))
    .when(pl.col("subject_id") < 70)
    .then(pl.lit("validate"))
    .otherwise(pl.lit("test"))
)


def card(mimic, *seen):
    return dataclasses.replace(CARD, pretrained_on={"mimic_cxr": mimic}, seen=seen)


def counted(report):
    return [(row["part"], row["fold"], row["subjects"], row["seen"]) for row in report["parts"]]


def test_what_saw_nothing_is_clean():
    for pretrained in ("none", "imagenet", {"mimic_cxr": "none"}):
        clean = dataclasses.replace(CARD, pretrained_on=pretrained, seen=())
        report = audit(clean, SPLITS, IMAGES, OFFICIAL)
        assert report["badge"] == "clean"
        assert counted(report) == [("dev", None, 20, 0), ("test", 0, 40, 0), ("test", 1, 40, 0)]
        assert told_apart(SPLITS, exposure(clean, IMAGES, OFFICIAL)).is_empty()


def test_all_means_everybody_with_an_image():
    report = audit(card("all", "images"), SPLITS, IMAGES, None)
    assert counted(report) == [("dev", None, 20, 10), ("test", 0, 40, 20), ("test", 1, 40, 20)]
    assert report["badge"] == "images seen"
    assert report["basis"] == "all of MIMIC-CXR"


@pytest.mark.parametrize("seen", [("images", "labels"), ("images", "reports"), ("labels",)])
def test_labels_and_reports_weigh_more_than_images(seen):
    assert audit(card("all", *seen), SPLITS, IMAGES, None)["badge"] == "labels or reports seen"


def test_the_official_split_tells_whom_it_trained_on():
    report = audit(card("official_train", "images"), SPLITS, IMAGES, OFFICIAL)
    # with an image and below 50: 10 of dev; of 20 to 59, 15; of 60 to 99, none
    assert counted(report) == [("dev", None, 20, 10), ("test", 0, 40, 15), ("test", 1, 40, 0)]
    assert report["basis"] == "official split"
    wider = audit(card("official_train_validate", "images"), SPLITS, IMAGES, OFFICIAL)
    assert counted(wider) == [("dev", None, 20, 10), ("test", 0, 40, 20), ("test", 1, 40, "<10")]  # 60, 62, … 68: 5


def test_without_the_official_split_everybody_counts_as_seen():
    for official in (None, OFFICIAL.head(90)):
        report = audit(card("official_train", "images"), SPLITS, IMAGES, official)
        assert report["badge"] == "unknown"
        assert counted(report) == counted(audit(card("all", "images"), SPLITS, IMAGES, None))
    assert audit(card("unknown", "images"), SPLITS, IMAGES, OFFICIAL)["badge"] == "unknown"


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("dicom_id", ["20-a", "22-b", "not of this data"]),
        ("image_id", ["20-a.jpg", "22-a", "22-b"]),
        ("subject_id", ["20", " 22"]),
    ],
)
def test_a_list_is_exact(tmp_path, column, names):
    path = tmp_path / "seen.csv"
    path.write_text("\n".join([f"path,{column}", *(f"x/{name},{name}" for name in names)]))
    found = exposure(card(str(path), "images"), IMAGES, None)
    assert (found.basis, found.seen) == ("list", {20, 22})
    report = audit(card(str(path), "images"), SPLITS, IMAGES, None)
    assert [row["seen"] for row in report["parts"]] == [0, "<10", 0]
    assert report["badge"] == "images seen"
    apart = told_apart(SPLITS, found)
    assert apart.schema == {"subject_id": pl.Int32, "saw": pl.Boolean}
    assert apart["subject_id"].to_list() == list(range(20, 100))
    assert apart.filter("saw")["subject_id"].to_list() == [20, 22]


def test_who_is_on_the_list_but_only_trained_on_here_is_no_overlap(tmp_path):
    path = tmp_path / "seen.csv"
    path.write_text("subject_id\n777\n")
    report = audit(card(str(path), "images"), SPLITS, IMAGES, None)
    assert (report["badge"], report["basis"]) == ("clean", "list")


def test_a_list_of_other_data_tells_nothing(tmp_path):
    path = tmp_path / "seen.csv"
    path.write_text("dicom_id\nelsewhere\n")
    found = exposure(card(str(path), "images"), IMAGES, None)
    assert (found.basis, len(found.seen)) == ("unknown", 51)
    assert told_apart(SPLITS, found).is_empty()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "not found"),
        ("path,name\nx,y\n", "has none of the columns dicom_id, image_id, subject_id; it has path, name"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path, content, expected):
    path = tmp_path / "seen.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        exposure(card(str(path), "images"), IMAGES, None)
    assert str(caught.value) == f"encoders/mine.yaml: pretrained_on.mimic_cxr: {path}: {expected}"


@pytest.fixture
def raw(tmp_path):
    """MIMIC's two folders, hand-made; gives the manifest of what is in them when it is called."""
    for name, content in FILES.items():
        put(tmp_path / name, content)
    data = Data(str(tmp_path / "iv"), str(tmp_path / "cxr"), "csv.gz", True)
    return lambda: build_manifest(data)


def test_the_split_is_read_from_the_raw_folder(raw, tmp_path):
    assert official_split(raw()).rows() == [("b-1", 1, "train"), ("a-1", 1, "test")]
    (tmp_path / "cxr/mimic-cxr-2.0.0-split.csv.gz").unlink()
    assert official_split(raw()) is None


def test_a_damaged_split_is_one_line(raw, tmp_path):
    path = tmp_path / "cxr/mimic-cxr-2.0.0-split.csv.gz"
    put(path, "dicom_id,study_id,subject_id\nb-1,51,1\n")
    with pytest.raises(InputError, match=r"split.csv.gz: column split is missing"):
        official_split(raw())
    put(path, "dicom_id,study_id,subject_id,split\nb-1,51,one,train\n")
    with pytest.raises(InputError, match=r"split.csv.gz: line 2: column subject_id: 'one' is not a number"):
        official_split(raw())


def test_the_stage_tells_of_every_encoder_and_of_whom_the_one_in_use_has_seen(raw, tmp_path):
    """Of subject 1 an image is in the split's train, subject 2 has none."""
    splits = [(31, 0, 1, "test"), (32, 0, 2, "test")]
    (tmp_path / "data/interim").mkdir(parents=True)
    pl.DataFrame(splits, schema=SPLITS.schema, orient="row").write_parquet(tmp_path / "data/splits.parquet")
    images = pl.DataFrame({"dicom_id": ["a-1", "b-1"], "subject_id": [1, 1]}, schema=IMAGES.schema)
    images.write_parquet(tmp_path / "data/interim/cxr_metadata.parquet")
    files.write_json(raw(), tmp_path / "data/manifest.json")
    shutil.copytree(ROOT / "encoders", tmp_path / "encoders")

    def told(encoders, image):
        write_params(tmp_path, 150, 1, {"embedding.encoders": encoders, "training.image": image})
        run(tmp_path, "exposure")
        report = json.loads((tmp_path / "reports/data/exposure.json").read_text())
        return report, pl.read_parquet(tmp_path / "data/exposure.parquet")

    report, apart = told(["rad-dino", "efficientnet-lite0"], "rad-dino")
    assert report["in_use"] == "rad-dino"
    assert {name: each["badge"] for name, each in report["encoders"].items()} == {
        "rad-dino": "images seen",
        "efficientnet-lite0": "clean",
    }
    assert report["encoders"]["rad-dino"]["parts"] == [{"part": "test", "fold": 0, "subjects": "<10", "seen": "<10"}]
    assert apart.rows() == [(1, True), (2, False)]
    report, apart = told(["rad-dino"], "end_to_end")
    assert report["in_use"] is None
    assert report["encoders"]["rad-dino"]["badge"] == "images seen"
    assert (apart.schema, apart.height) == (TOLD_APART, 0)
    assert told([], "end_to_end")[0] == {}
