"""Loaders: what comes out is what the library's own model computes; what cannot be loaded is one line."""

import dataclasses
import hashlib
import json
import pickle
import sys
import zipfile

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn
from torchvision.models import VisionTransformer

from pipeline import files
from pipeline.embedding.card import Card
from pipeline.embedding.loaders import FrozenEncoder, _Torchvision, load_encoder
from pipeline.errors import InputError

PX = 64
IMAGES = torch.randint(256, (3, 1, PX, PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
GREY = IMAGES / 255  # [3, 1, PX, PX]


def card(loader, path, **entries):
    """A card of the file at `path`, as its digest is now."""
    weights = path / "model.safetensors" if path.is_dir() else path
    entries = {"range": (0.0, 1.0), **entries}
    return Card("mine", loader, PX, "none", file=str(path), sha256=files.sha256(weights), **entries)


def message(given):
    with pytest.raises(InputError) as caught:
        load_encoder(given)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("encoders/mine.yaml: ")


def small_cnn():
    """A network with what the loader of torchvision looks for, of random statistics, in eval mode."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    return model


@pytest.fixture
def resnet(tmp_path):
    model = small_cnn()
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    return model, tmp_path / "resnet18.pth"


@torch.no_grad()
def test_a_resnet_up_to_its_classifier(resnet):
    model, path = resnet
    encoder = load_encoder(
        card("torchvision", path, model="resnet18", range=(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    )
    found = encoder(IMAGES)
    scaled = (GREY.expand(-1, 3, -1, -1) - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.3, 0.4]
    ).view(3, 1, 1)
    torch.testing.assert_close(model.fc(found.pooled), model(scaled))
    assert (found.tokens.shape, found.grid) == ((3, 4, 512), (2, 2))
    assert (encoder.width, encoder.grid) == (512, (2, 2))
    torch.testing.assert_close(found.tokens.mean(1), found.pooled)


def test_it_is_frozen(resnet):
    encoder = load_encoder(card("torchvision", resnet[1], model="resnet18"))
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder(IMAGES).tokens.requires_grad
    with pytest.raises(ValueError, match=r"\[P, 1, 64, 64\] uint8 expected, not \[3, 1, 32, 64\]"):
        encoder(IMAGES[:, :, :32])
    with pytest.raises(ValueError, match="uint8 expected"):
        encoder(GREY)


def test_outputs_and_grid_are_the_cards():
    given = Card("mine", "torchscript", PX, "none", range=(0.0, 1.0), channels=1)
    both, pooled, tokens, averaged = (
        FrozenEncoder(dataclasses.replace(given, **entries), Program(offset=7.0))(IMAGES)
        for entries in ({}, {"output": "pooled"}, {"output": "tokens"}, {"grid": 1})
    )
    assert (both.tokens.shape, both.grid) == ((3, 64, 3), (8, 8))
    torch.testing.assert_close(both.pooled, both.tokens.mean(1) + 7)
    assert (pooled.tokens.shape, pooled.grid) == ((3, 1, 3), (1, 1))
    assert torch.equal(pooled.tokens[:, 0], both.pooled)
    torch.testing.assert_close(tokens.pooled, both.tokens.mean(1))
    torch.testing.assert_close(averaged.tokens[:, 0], both.tokens.mean(1))


def test_tokens_stand_row_by_row():
    grown = torch.arange(6.0).view(1, 1, 2, 3)
    given = Card("mine", "torchscript", 2, "none", range=(0.0, 1.0), channels=1)

    class Fixed(nn.Module):
        def forward(self, images):
            return grown, None

    found = FrozenEncoder(given, Fixed())(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    assert found.tokens.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert found.grid == (2, 3)
    assert found.pooled.item() == 2.5


@torch.no_grad()
def test_a_vit_of_torchvision():
    torch.manual_seed(0)
    model = VisionTransformer(image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16).eval()
    nn.init.normal_(model.heads.head.weight)
    images = torch.rand(2, 3, 32, 32)
    grown, vector = _Torchvision(model)(images)
    torch.testing.assert_close(model.heads(vector), model(images))
    assert grown.shape == (2, 8, 2, 2)


# The names and shapes of torchxrayvision 1.5.7's DenseNet(num_classes=18, in_channels=1) without its classifier.
XRV_DENSENET = (725, "0c69c78bdd62ee6aa3415999f9d7e458f2d1f217376693bf1e04c880fbc6d50f")


@torch.no_grad()
def test_torchxrayvisions_densenet_is_torchvisions_with_one_channel(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.densenet121(num_classes=18).eval()
    model.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    own = {name: each for name, each in model.state_dict().items() if not name.startswith("classifier")}
    lines = [f"{name} {list(each.shape)}" for name, each in own.items()]
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()) == XRV_DENSENET
    path = tmp_path / "densenet.pth"
    torch.save({**model.state_dict(), "op_threshs": torch.zeros(18)}, path)
    given = card("torchxrayvision", path, model="densenet121-res224-all", channels=1, range=(-1024.0, 1024.0))
    found = load_encoder(given)(IMAGES)
    torch.testing.assert_close(model.classifier(found.pooled), model((2 * GREY - 1) * 1024))
    assert found.tokens.shape == (3, 4, 1024)


@torch.no_grad()
def test_torchxrayvisions_resnet_is_torchvisions_with_one_channel(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.resnet50(num_classes=18).eval()
    model.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    path = tmp_path / "resnet.pth"
    torch.save(model.state_dict(), path)
    given = card("torchxrayvision", path, model="resnet50-res512-all", channels=1, range=(-1024.0, 1024.0))
    torch.testing.assert_close(model.fc(load_encoder(given)(IMAGES).pooled), model((2 * GREY - 1) * 1024))


SWIN = {"img_size": PX, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2}
VIT = {"img_size": PX, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("swin_tiny_patch4_window7_224", SWIN, (3, 4, 64)),
        ("vit_tiny_patch16_224", VIT, (3, 16, 16)),
        ("test_efficientnet", {}, (3, 4, 256)),
    ],
)
@torch.no_grad()
def test_timms_networks_up_to_the_classifier(tmp_path, name, options, shape):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options).eval()
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    encoder = load_encoder(card("timm", path, model=name, options=options))
    found = encoder(IMAGES)
    torch.testing.assert_close(model.get_classifier()(found.pooled), model(GREY.expand(-1, 3, -1, -1)))
    assert found.tokens.shape == shape


@torch.no_grad()
def test_arks_file_is_read_as_it_is(tmp_path):
    """Its layers are named as timm 0.5.4 named them, in the entry `teacher`; heads and a projection follow them."""
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **SWIN).eval()
    old = {}
    for name, each in model.state_dict().items():
        for stage in range(3):
            name = name.replace(f"layers.{stage + 1}.downsample", f"layers.{stage}.DOWN")
        old["module." + name.replace("DOWN", "downsample").replace("head.fc", "omni_heads.0")] = each
    old["module.projector.weight"] = torch.zeros(3, 64)
    path = tmp_path / "ark.pth.tar"
    torch.save({"teacher": old, "student": old, "epoch": 200}, path)
    given = card("timm", path, model="swin_tiny_patch4_window7_224", options=SWIN, key="teacher")
    given = dataclasses.replace(given, ignore=("projector.", "omni_heads."))
    found = load_encoder(given)(IMAGES)
    torch.testing.assert_close(model.get_classifier()(found.pooled), model(GREY.expand(-1, 3, -1, -1)))
    assert message(dataclasses.replace(given, key=None)) == (
        f"key: {path} holds more than weights, say which entry they are; it has teacher, student, epoch"
    )
    assert message(dataclasses.replace(given, key="tutor")) == (
        f"key: {path} has no entry 'tutor'; it has teacher, student, epoch"
    )
    assert message(dataclasses.replace(given, ignore=("projector.",))) == (
        f"ignore: {path} has omni_heads.0.weight, which swin_tiny_patch4_window7_224 has not (2 such)"
    )


@torch.no_grad()
def test_eva_xs_file_is_read_as_it_is(tmp_path):
    """A masked image model: its last norm becomes that of the mean; mask token and prediction head are left out."""
    torch.manual_seed(0)
    options = {"img_size": PX, "patch_size": 16, "ref_feat_shape": [4, 4], "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = timm.create_model("eva02_base_patch14_224", **options).eval()
    nn.init.normal_(model.fc_norm.weight)
    path = tmp_path / "eva_x.pt"
    weights = {name.replace("fc_norm", "norm"): each for name, each in model.state_dict().items()}
    torch.save({**weights, "mask_token": torch.zeros(1, 1, 24), "lm_head.weight": torch.zeros(9, 24)}, path)
    encoder = load_encoder(card("timm", path, model="eva02_base_patch14_224", options=options))
    torch.testing.assert_close(encoder(IMAGES).pooled, model(GREY.expand(-1, 3, -1, -1)))
    assert encoder.grid == (4, 4)


def dinov2(folder):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": PX, "patch_size": 16}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).eval()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def test_a_folder_of_transformers(tmp_path):
    model = dinov2(tmp_path)
    given = card("huggingface", tmp_path, range=(), mean=(0.53,), std=(0.26,))
    encoder = load_encoder(given)
    found, theirs = encoder(IMAGES), model((GREY.expand(-1, 3, -1, -1) - 0.53) / 0.26)
    torch.testing.assert_close(found.pooled, theirs.last_hidden_state[:, 0])  # the class token
    torch.testing.assert_close(found.tokens, theirs.last_hidden_state[:, 1:])
    assert (encoder.grid, encoder.width) == ((4, 4), 16)
    processor = {"do_normalize": True, "image_mean": [0.53] * 3, "image_std": [0.26] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    load_encoder(given)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | {"image_std": [0.25] * 3}))
    assert message(given) == f"std: {tmp_path}/preprocessor_config.json has [0.25, 0.25, 0.25]; so must the card"


@torch.no_grad()
def test_of_two_towers_the_one_that_sees(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.SiglipConfig(
        text_config={**sizes, "vocab_size": 9, "max_position_embeddings": 4},
        vision_config={**sizes, "image_size": PX, "patch_size": 16},
    )
    model = transformers.SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    found = load_encoder(card("huggingface", tmp_path))(IMAGES)
    theirs = model.vision_model(pixel_values=GREY.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found.pooled, theirs.pooler_output)
    torch.testing.assert_close(found.tokens, theirs.last_hidden_state)


def test_a_folder_without_a_weight_is_named(tmp_path):
    import safetensors.torch

    dinov2(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    del weights["layernorm.weight"]
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    assert message(card("huggingface", tmp_path)) == f"file: {path}: lacks layernorm.weight"
    (tmp_path / "config.json").write_text("{}")
    assert message(card("huggingface", tmp_path)).startswith(f"file: {tmp_path}: transformers cannot load it: ")


class Program(nn.Module):
    """A map of 3 channels, and its mean plus an offset."""

    def __init__(self, offset=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.offset = offset
        self.layer = nn.Conv2d(1, 3, 8, stride=8)

    def forward(self, images):
        grown = self.layer(images)
        return grown, grown.mean((2, 3)) + self.offset


def scripted(path):
    torch.jit.script(Program().eval()).save(str(path))


def exported(path):
    some = torch.export.Dim("images", min=1)
    torch.export.save(
        torch.export.export(Program().eval(), (torch.zeros(2, 1, PX, PX),), dynamic_shapes=({0: some},)), path
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("loader", "save"), [("torchscript", scripted), ("export", exported)])
@torch.no_grad()
def test_a_program_needs_no_library(tmp_path, loader, save):
    path = tmp_path / "program.pt2"
    save(path)
    encoder = load_encoder(card(loader, path, channels=1))
    grown, vector = Program()(GREY)
    torch.testing.assert_close(encoder(IMAGES).pooled, vector)
    torch.testing.assert_close(encoder(IMAGES).tokens, grown.flatten(2).mT)
    assert (encoder.grid, encoder.width) == ((8, 8), 3)
    assert message(card(loader, path)).startswith(f"px: {path} does not take images of 3 × 64 × 64: ")
    path.write_bytes(b"no program")
    assert message(card(loader, path)).startswith(f"file: {path}: no ")


class Dangerous:
    """Unpickling it would run code."""

    def __reduce__(self):
        return print, ("a pickle was run",)


def test_a_pickle_is_refused(tmp_path, capsys):
    path = tmp_path / "model.pth"
    torch.save({"weights": torch.zeros(2), "args": Dangerous()}, path)
    assert message(card("torchvision", path, model="resnet18")) == (
        f"file: {path}: a pickle that holds more than tensors, which could run code and is not loaded; "
        "save its state_dict(), or safetensors"
    )
    torch.save(nn.Linear(2, 2), path)
    assert "could run code" in message(card("torchvision", path, model="resnet18"))
    assert capsys.readouterr().out == ""


def test_a_pickle_in_an_exported_program_is_refused(tmp_path, capsys):
    """torch.export.load unpickles examples and custom objects without weights_only where that fails."""
    whole, path = tmp_path / "whole.pt2", tmp_path / "program.pt2"
    exported(whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w") as copy:
        for name in archive.namelist():
            dangerous = "sample_inputs" in name
            copy.writestr(name, pickle.dumps(Dangerous()) if dangerous else archive.read(name))
    assert "sample_inputs/model.pt: a pickle that holds more than tensors" in message(card("export", path, channels=1))
    assert capsys.readouterr().out == ""


def test_weights_of_another_network_are_named(resnet, tmp_path):
    model, path = resnet
    given = card("torchvision", path, model="resnet34")
    assert message(given) == f"file: {path}: has no layer1.2.conv1.weight of resnet34 (80 such)"  # 8 more blocks of 10
    weights = model.state_dict()
    other = tmp_path / "other.pth"
    torch.save({**weights, "conv1.weight": torch.zeros(64, 1, 7, 7)}, other)
    assert message(card("torchvision", other, model="resnet18")) == (
        f"file: {other}: conv1.weight is [64, 1, 7, 7], in resnet18 [64, 3, 7, 7]"
    )
    torch.save({**weights, "extra.weight": torch.zeros(1)}, other)
    assert message(card("torchvision", other, model="resnet18")) == (
        f"ignore: {other} has extra.weight, which resnet18 has not"
    )
    torch.save({name: each * float("nan") for name, each in weights.items() if each.is_floating_point()}, other)
    assert (
        message(card("torchvision", other, model="resnet18")) == f"file: {other}: a black image has no finite embedding"
    )


def test_a_damaged_file_is_one_line(tmp_path):
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"\x80\x04 nothing")
        assert str(tmp_path / name) in message(card("torchvision", tmp_path / name, model="resnet18"))


@pytest.mark.parametrize(
    ("loader", "model", "expected"),
    [
        ("torchvision", "resnet51", "model: torchvision has no 'resnet51'"),
        (
            "torchvision",
            "mobilenet_v2",
            "model: of torchvision, ResNet, VisionTransformer, DenseNet are read, other networks from timm",
        ),
        ("timm", "resnet51", "model: timm has no 'resnet51'"),
        ("torchxrayvision", "vgg", "model: must begin with densenet121-, resnet50- or resnet101-, is 'vgg'"),
    ],
)
def test_a_model_that_is_not_known(resnet, loader, model, expected):
    assert message(card(loader, resnet[1], model=model)) == expected


def test_options_that_the_model_does_not_take(resnet):
    given = card("torchvision", resnet[1], model="resnet18", options={"wings": 2})
    assert message(given).startswith("options: resnet18 cannot be built: ")


@pytest.mark.parametrize(("loader", "package"), [("timm", "timm"), ("huggingface", "transformers")])
def test_a_library_that_is_not_installed(tmp_path, monkeypatch, loader, package):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "model.safetensors").write_bytes(b"")
    path = tmp_path if loader == "huggingface" else tmp_path / "model.safetensors"
    assert message(card(loader, path, model="resnet18")) == (
        f"loader: {loader} needs the package {package}, which is not installed: uv sync --group {package}"
    )


def test_a_model_without_a_map_gives_a_vector(tmp_path):
    class Vector(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    path = tmp_path / "vector.pt2"
    some = torch.export.Dim("images", min=1)
    torch.export.save(torch.export.export(Vector(), (torch.zeros(2, 3, PX, PX),), dynamic_shapes=({0: some},)), path)
    assert message(card("export", path)) == ("output: both, but the model has no map (tokens [2, 1, 3], pooled [2, 3])")
    assert load_encoder(card("export", path, output="pooled")).grid == (1, 1)
