"""Frozen encoders from the files that cards name: grey pixels in, grid tokens and a pooled vector out.

Nothing is downloaded and no pickle is run: weights are safetensors or what torch.load reads with weights_only. The
libraries of models are optional, and imported where a card asks for one.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.embedding.card import Card, weights_file
from pipeline.embedding.weights import check_export, fill, read_weights


@dataclass(frozen=True)
class Embedding:
    """Of P images: the places of their last map, row by row, and one vector each."""

    tokens: Tensor  # [P, T, D] float32, T = grid[0] · grid[1]; T = 1 and equal to pooled where there is no map
    pooled: Tensor  # [P, D] float32
    grid: tuple[int, int]


# What a loader makes: normalised images [P, C, px, px] -> the map [P, D, h, w], or None; and the vector [P, D], or None
Network = Callable[[Tensor], tuple[Tensor | None, Tensor | None]]


class FrozenEncoder(nn.Module):
    """A model as its card describes it: in eval mode, without gradients, normalising by itself."""

    width: int  # D
    grid: tuple[int, int]
    mean: Tensor
    std: Tensor

    def __init__(self, card: Card, network: nn.Module) -> None:
        super().__init__()
        self.card = card
        self.network = network.eval().requires_grad_(False)
        mean, std = card.mean, card.std
        if card.range:  # black + grey · (white - black)
            black, white = card.range
            std = (1 / (white - black),)
            mean = (-black * std[0],)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.eval()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in eval mode, whatever its owner does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Embedding:
        """`images` [P, 1, px, px] uint8, grey."""
        card = self.card
        if images.dtype != torch.uint8 or images.shape[1:] != (1, card.px, card.px):
            raise ValueError(f"images: [P, 1, {card.px}, {card.px}] uint8 expected, not {list(images.shape)}")
        grey = images.float() / 255
        scaled = (grey.expand(-1, card.channels, -1, -1) - self.mean) / self.std
        grown, pooled = self.network(scaled)
        if grown is not None and card.output != "pooled":
            if card.grid:
                grown = nn.functional.adaptive_avg_pool2d(grown, card.grid)
            if pooled is None or card.output == "tokens":
                pooled = grown.mean((2, 3))
            tokens, grid = grown.flatten(2).mT, (grown.shape[2], grown.shape[3])
        else:
            if pooled is None and grown is not None:
                pooled = grown.mean((2, 3))
            if pooled is None:
                raise ValueError("the network gives neither a map nor a vector")
            tokens, grid = pooled[:, None], (1, 1)
        return Embedding(tokens.float().contiguous(), pooled.float().contiguous(), grid)


def load_encoder(card: Card) -> FrozenEncoder:
    """The encoder of a card, tried on two black images.

    Raises InputError of one line, naming the card and its entry: the loader's package is not installed, the file is not
    there or has another digest, it is a pickle, weights and model do not fit, what comes out is not as the card says.
    """
    path = weights_file(card)
    encoder = FrozenEncoder(card, LOADERS[card.loader](card, path))
    try:
        found = encoder(torch.zeros(2, 1, card.px, card.px, dtype=torch.uint8))
    except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError) as error:  # whatever its code says
        raise card.error(f"px: {path} does not take images of {card.channels} × {card.px} × {card.px}", error) from None
    shapes = f"tokens {list(found.tokens.shape)}, pooled {list(found.pooled.shape)}"
    if card.output != "pooled" and found.grid == (1, 1) and card.grid != 1:
        raise card.error(f"output: {card.output}, but the model has no map ({shapes})")
    if found.tokens.shape[2] != found.pooled.shape[1] or len(found.pooled) != 2:
        raise card.error(f"output: {card.output}, but tokens and vector differ in width ({shapes}); pooled or tokens")
    if not (found.tokens.isfinite().all() and found.pooled.isfinite().all()):
        raise card.error(f"file: {path}: a black image has no finite embedding")
    encoder.width, encoder.grid = found.pooled.shape[1], found.grid
    return encoder


def library(card: Card, name: str) -> Any:
    """An optional package. Raises InputError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        needed = f"needs the package {name}, which is not installed: uv sync --group {name}"
        raise card.error(f"loader: {card.loader} {needed}") from None


def _built(card: Card, make: Callable[..., Any]) -> Any:
    """What a constructor makes of the card's options. Raises InputError where it does not take them."""
    try:
        return make(**(card.options or {}))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise card.error(f"options: {card.model} cannot be built", error) from None


class _Torchvision(nn.Module):
    """torchvision's networks up to the classifier."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        body: Any = self.body
        if hasattr(body, "layer4"):  # ResNet, ResNeXt
            grown = body.maxpool(body.relu(body.bn1(body.conv1(images))))
            grown = body.layer4(body.layer3(body.layer2(body.layer1(grown))))
            return grown, grown.mean((2, 3))
        if hasattr(body, "conv_proj"):  # ViT: the class token is the image's
            tokens = body.encoder(
                torch.cat([body.class_token.expand(len(images), -1, -1), body._process_input(images)], 1)
            )
            return _as_map(tokens[:, 1:]), tokens[:, 0]
        grown = nn.functional.relu(body.features(images))  # DenseNet: its features end before the activation
        return grown, grown.mean((2, 3))


def _torchvision(card: Card, path: Path) -> nn.Module:
    import torchvision

    if card.model not in torchvision.models.list_models(module=torchvision.models):
        raise card.error(f"model: torchvision has no {card.model!r}")
    body = _built(card, lambda **options: torchvision.models.get_model(card.model, weights=None, **options))
    kinds = ("ResNet", "VisionTransformer", "DenseNet")
    if type(body).__name__ not in kinds:
        raise card.error(f"model: of torchvision, {', '.join(kinds)} are read, other networks from timm")
    fill(card, path, body, read_weights(card, path), optional=("fc.", "heads.", "classifier."))
    return _Torchvision(body)


def _torchxrayvision(card: Card, path: Path) -> nn.Module:
    """Its networks are torchvision's with one channel and no more (torchxrayvision 1.5.7, models.py).

    That package itself loads with weights_only=False, and a ResNet of its only together with a download.
    """
    import torchvision

    family, _, _ = card.model.partition("-")
    if family not in ("densenet121", "resnet50", "resnet101"):
        raise card.error(f"model: must begin with densenet121-, resnet50- or resnet101-, is {card.model!r}")
    body = torchvision.models.get_model(family, weights=None)
    if family == "densenet121":
        body.features.conv0 = nn.Conv2d(card.channels, 64, 7, stride=2, padding=3, bias=False)
    else:
        body.conv1 = nn.Conv2d(card.channels, 64, 7, stride=2, padding=3, bias=False)
    weights = read_weights(card, path)
    # what of its own it has beside the network: thresholds; a ResNet stands under `model.` in a saved module
    weights = {name.removeprefix("model."): each for name, each in weights.items() if name != "op_threshs"}
    fill(card, path, body, weights, optional=("fc.", "classifier."))
    return _Torchvision(body)


class _Timm(nn.Module):
    """timm's networks up to the classifier."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        body: Any = self.body
        features = body.forward_features(images)
        pooled = body.forward_head(features, pre_logits=True)
        if features.ndim == 3:  # [P, prefix + T, D]
            return _as_map(features[:, getattr(body, "num_prefix_tokens", 0) :]), pooled
        last = getattr(body, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if last else features, pooled


def _timm(card: Card, path: Path) -> nn.Module:
    timm = library(card, "timm")
    if not timm.is_model(card.model):
        raise card.error(f"model: timm has no {card.model!r}")
    body = _built(card, lambda **options: timm.create_model(card.model, pretrained=False, **options))
    weights = read_weights(card, path)
    convert = getattr(importlib.import_module(type(body).__module__), "checkpoint_filter_fn", None)
    if convert is not None and not card.in_order:  # from the names of other releases and of the papers' own code
        weights = convert(weights, body)
    heads = body.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    fill(card, path, body, weights, optional=tuple(f"{name}." for name in heads))
    body.reset_classifier(0)
    return _Timm(body)


class _Transformer(nn.Module):
    """transformers' vision models."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        body: Any = self.body
        found = body(pixel_values=images)
        hidden, pooled = found.last_hidden_state, getattr(found, "pooler_output", None)
        if hidden.ndim == 4:
            return hidden, None if pooled is None else pooled.flatten(1)
        places = (images.shape[2] // body.config.patch_size) * (images.shape[3] // body.config.patch_size)
        first = hidden[:, 0] if hidden.shape[1] > places else None  # the class token
        return _as_map(hidden[:, hidden.shape[1] - places :]), first if pooled is None else pooled


def _huggingface(card: Card, path: Path) -> nn.Module:
    transformers = library(card, "transformers")
    try:
        body, told = transformers.AutoModel.from_pretrained(
            path.parent,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **(card.options or {}),
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise card.error(f"file: {path.parent}: transformers cannot load it", error) from None
    vision = getattr(body, "vision_model", None)  # of two towers, the one that sees
    missing = [name for name in told["missing_keys"] if vision is None or name.startswith("vision_model.")]
    if missing or told["mismatched_keys"]:
        raise card.error(f"file: {path}: lacks {missing[0] if missing else next(iter(told['mismatched_keys']))}")
    _compare_processor(card, path.parent / "preprocessor_config.json")
    return _Transformer(body if vision is None else vision)


def _compare_processor(card: Card, path: Path) -> None:
    """Holds mean and std of the card to those that the folder's own preprocessor has, where it tells them."""
    if not path.is_file():
        return
    told = json.loads(path.read_text(encoding="utf-8"))
    if not told.get("do_normalize", True) or "image_mean" not in told or "image_std" not in told:
        return
    mean, std = (torch.tensor(told[name], dtype=torch.float64).view(-1) for name in ("image_mean", "image_std"))
    own = FrozenEncoder(card, nn.Identity())
    for name, theirs in (("mean", mean), ("std", std)):
        ours = getattr(own, name).view(-1).double()
        if not torch.allclose(ours.expand_as(theirs), theirs, atol=1e-4):
            raise card.error(f"{name}: {path} has {theirs.tolist()}; so must the card")


class _Program(nn.Module):
    """A program whose classes are not known here."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def train(self, mode: bool = True) -> _Program:
        """An exported program has no modes."""
        return self

    def forward(self, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """It returns a map [P, D, h, w], tokens [P, h·h, D] or a vector [P, D], or a map or tokens and a vector."""
        found = self.body(images)
        grown, pooled = found if isinstance(found, tuple | list) else (found, None)
        if grown.ndim == 2:
            return None, grown
        return grown if grown.ndim == 4 else _as_map(grown), pooled


def _torchscript(card: Card, path: Path) -> nn.Module:
    try:
        return _Program(torch.jit.load(str(path), map_location="cpu").eval())
    except RuntimeError as error:
        raise card.error(f"file: {path}: no TorchScript", error) from None


def _export(card: Card, path: Path) -> nn.Module:
    check_export(card, path)
    try:
        return _Program(torch.export.load(str(path)).module())
    except (RuntimeError, ValueError, AssertionError, KeyError) as error:
        raise card.error(f"file: {path}: no exported program", error) from None


def _as_map(tokens: Tensor) -> Tensor:
    """[P, h·h, D] -> [P, D, h, h]. Raises ValueError where the places are no square."""
    side = math.isqrt(tokens.shape[1])
    if side * side != tokens.shape[1]:
        raise ValueError(f"{tokens.shape[1]} tokens are no square")
    return tokens.mT.reshape(len(tokens), -1, side, side)


LOADERS: dict[str, Callable[[Card, Path], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "huggingface": _huggingface,
    "torchxrayvision": _torchxrayvision,
    "torchscript": _torchscript,
    "export": _export,
}
