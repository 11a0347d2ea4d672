"""Cards: what the ready ones say, and what is said of one that is not as it must be."""

import dataclasses
import hashlib

import pytest

from pipeline.embedding.card import FOLDER, Card, read_card, weights_file
from pipeline.errors import InputError

READY = {  # loader, model, px, channels, places a side, what of MIMIC-CXR, seen
    "ark-plus": ("timm", "swin_large_patch4_window12_384", 768, 3, 8, "official_train_validate", "images labels"),
    "efficientnet-lite0": ("timm", "efficientnet_lite0", 224, 3, None, "none", ""),
    "eva-x-base": ("timm", "eva02_base_patch14_224", 224, 3, 7, "official_train_validate", "images reports"),
    "medsiglip": ("huggingface", "", 448, 3, 8, "unknown", "images reports"),
    "rad-dino": ("huggingface", "", 518, 3, 7, "official_train", "images"),
    "torchvision-resnet50": ("torchvision", "resnet50", 224, 3, None, "none", ""),
    "torchvision-vit-b16": ("torchvision", "vit_b_16", 224, 3, 7, "none", ""),
    "torchxrayvision-densenet121-all": (
        "torchxrayvision",
        "densenet121-res224-all",
        224,
        1,
        None,
        "all",
        "images labels",
    ),
    "torchxrayvision-resnet50-all": ("torchxrayvision", "resnet50-res512-all", 512, 1, 8, "none", ""),
}


def test_these_cards_are_ready():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(READY)


@pytest.mark.parametrize("name", READY)
def test_a_ready_card(name):
    card = read_card(name)
    found = (card.loader, card.model, card.px, card.channels, card.grid, card.mimic_cxr, " ".join(card.seen))
    assert found == READY[name]
    assert card.licence
    assert card.citation
    assert card.source
    assert (card.file is None) == (name != "efficientnet-lite0")  # no other comes with weights


@pytest.mark.parametrize("name", [name for name in READY if name.startswith("torchvision")])
def test_torchvision_says_the_same_of_its_weights(name):
    import torchvision

    card = read_card(name)
    weights = next(w for w in torchvision.models.get_model_weights(card.model) if w.url == card.source)
    told = weights.transforms()
    assert (told.crop_size, tuple(told.mean), tuple(told.std)) == ([card.px], card.mean, card.std)


LOADER = "loader: must be one of torchvision, timm, huggingface, torchxrayvision, torchscript, export; is 'keras'"
SEEN = "seen: says what of MIMIC-CXR was seen, where pretrained_on says that something was"
FIVE = "loader: torchscript\nfile: mine.pt\npx: 32\nrange: [0, 1]\npretrained_on: none\n"


def test_five_lines_are_enough(tmp_path):
    (tmp_path / "mine.yaml").write_text(FIVE)
    card = Card("mine", "torchscript", 32, "none", file="mine.pt", range=(0.0, 1.0))
    assert read_card("mine", tmp_path) == card


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("px: 32\n", "", "px: missing"),
        ("px: 32", "px: 32\npixels: 3", "pixels: unknown key"),
        ("px: 32", "px: 32\nsha265: x", "sha265: unknown key; did you mean sha256?"),
        ("px: 32", "px: 0", "px, channels and grid: must be at least 1"),
        ("torchscript", "keras", LOADER),
        ("range: [0, 1]", "channels: 1", "range: a card has either range or mean and std"),
        ("range: [0, 1]", "range: [0, 1]\nmean: [0.5]\nstd: [0.5]", "range: a card has either range or mean and std"),
        ("range: [0, 1]", "range: [1, 1]", "range: must be two numbers that differ, is [1.0, 1.0]"),
        ("range: [0, 1]", "mean: [1, 1]\nstd: [1]", "mean and std: must have 1 or 3 numbers, std none of 0"),
        ("range: [0, 1]", "mean: [1]\nstd: [0]", "mean and std: must have 1 or 3 numbers, std none of 0"),
        (
            "none",
            "mimic",
            "pretrained_on: must be none, imagenet or {mimic_cxr: none | all | unknown | official_train | "
            "official_train_validate | LIST.csv}, is 'mimic'",
        ),
        ("on: none", "on: {mimic_cxr: all}", SEEN),
        ("on: none", "on: none\nseen: [images]", SEEN),
        ("px: 32", "px: 32\noptions: 3", "options: must be a mapping, and in_order goes without ignore"),
    ],
)
def test_a_mistake_is_named(tmp_path, before, after, expected):
    assert before in FIVE
    path = tmp_path / "mine.yaml"
    path.write_text(FIVE.replace(before, after))
    with pytest.raises(InputError) as caught:
        read_card("mine", tmp_path)
    assert str(caught.value) == f"{path}: {expected}"


def test_the_nearest_name_is_suggested():
    with pytest.raises(
        InputError, match=r"^encoders/rad-dimo.yaml: no such card; did you mean rad-dino\?; there are: ark"
    ):
        read_card("rad-dimo")


def test_what_is_no_yaml_is_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("px: [\n- 3")
    with pytest.raises(InputError) as caught:
        read_card("mine", tmp_path)
    assert "\n" not in str(caught.value)


def message(card):
    with pytest.raises(InputError) as caught:
        weights_file(card)
    return str(caught.value)


def test_weights_are_there_and_those_that_the_card_means(tmp_path):
    path = tmp_path / "mine.pt"
    card = Card("mine", "torchscript", 32, "none", file=str(path), range=(0.0, 1.0), source="a colleague")
    assert message(dataclasses.replace(card, file=None)) == (
        "encoders/mine.yaml: file: null; name the file of its weights (a colleague)"
    )
    assert message(card) == f"encoders/mine.yaml: file: {path}: not found (a colleague)"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert message(card) == f"encoders/mine.yaml: sha256: null; that of {path} is {digest}"
    other = hashlib.sha256(b"others").hexdigest()
    assert message(dataclasses.replace(card, sha256=other)) == (
        f"encoders/mine.yaml: sha256: {path} has {digest}, not {other}"
    )
    assert weights_file(dataclasses.replace(card, sha256=digest)) == path


def test_a_folder_of_hugging_face_holds_safetensors(tmp_path):
    card = Card("mine", "huggingface", 32, "none", file=str(tmp_path / "model"), range=(0.0, 1.0))
    assert message(card) == f"encoders/mine.yaml: file: {card.file}: no such folder"
    (tmp_path / "model").mkdir()
    assert message(card) == f"encoders/mine.yaml: file: {card.file} holds no model.safetensors"
    (tmp_path / "model/pytorch_model.bin").write_bytes(b"")
    assert message(card) == (
        f"encoders/mine.yaml: file: {card.file} holds no model.safetensors; its *.bin is a pickle, which is not loaded"
    )


def test_a_package_that_is_not_installed_is_named():
    card = Card("mine", "timm", 32, "none", file="package:no_such_package/x.pth", range=(0.0, 1.0))
    assert message(card) == "encoders/mine.yaml: file: the Python package no_such_package is not installed"
