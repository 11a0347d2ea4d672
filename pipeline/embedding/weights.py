"""Weights from a file into a model: without running a pickle, and without a name that goes unnoticed."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.embedding.card import Card

UNSAFE = "a pickle that holds more than tensors, which could run code and is not loaded"


def read_weights(card: Card, path: Path) -> dict[str, Tensor]:
    """Name -> tensor, without the prefix of torch's data parallelism.

    Raises InputError where the file is a pickle that holds more than tensors, cannot be read, or holds no tensors where
    the card's `key` says.
    """
    if path.suffix == ".safetensors":
        import safetensors.torch

        try:
            content: Any = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise card.error(f"file: {path}: no safetensors", error) from None
    else:
        content = _unpickled(card, path)
    if card.key is not None:
        if not isinstance(content, Mapping) or card.key not in content:
            raise card.error(f"key: {path} has no entry {card.key!r}{_entries(content)}")
        content = content[card.key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise card.error(f"key: {path} holds more than weights, say which entry they are{_entries(content)}")
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): each for name, each in content.items()}
    return dict(content)


def _entries(content: object) -> str:
    return f"; it has {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""


def _unpickled(card: Card, path: Path) -> Any:
    """What torch.save wrote, tensors and plain containers only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        advice = "save its state_dict(), or safetensors"
        raise card.error(f"file: {path}: {UNSAFE}; {advice}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise card.error(f"file: {path}: cannot be read", error) from None


def fill(card: Card, path: Path, model: nn.Module, weights: dict[str, Tensor], optional: tuple[str, ...]) -> None:
    """Every weight of `model` from `weights`, and every one of those used, but for what the card's `ignore` names.

    `optional`: beginnings of names of the classifier, which may be there or not, on either side.
    Raises InputError that names the first one that is missing, left over, or of another shape.
    """
    own = model.state_dict()
    if card.in_order:
        weights = _in_order(card, path, own, weights)
    body = {name: each for name, each in own.items() if not name.startswith(optional)}
    spare = (*card.ignore, *optional)
    missing = [name for name in body if name not in weights and not name.endswith("num_batches_tracked")]
    if missing:
        raise card.error(f"file: {path}: has no {missing[0]} of {card.model}{_count(missing)}")
    left = [name for name in weights if name not in own and not name.startswith(spare)]
    if left:
        raise card.error(f"ignore: {path} has {left[0]}, which {card.model} has not{_count(left)}")
    for name, each in weights.items():
        if name in body and each.shape != own[name].shape:
            raise card.error(f"file: {path}: {name} is {list(each.shape)}, in {card.model} {list(own[name].shape)}")
    model.load_state_dict({name: each for name, each in weights.items() if name in body}, strict=False)


def _count(names: list[str]) -> str:
    return f" ({len(names)} such)" if len(names) > 1 else ""


def _in_order(card: Card, path: Path, own: Mapping[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the model's names, one by one. Equal numbers and shapes are what there is to go by."""
    if len(own) != len(weights):
        raise card.error(f"in_order: {path} has {len(weights)} weights, {card.model} {len(own)}")
    for (name, each), (theirs, other) in zip(own.items(), weights.items(), strict=True):
        if each.shape != other.shape:
            shapes = f"is {list(other.shape)}, {name} of {card.model} {list(each.shape)}"
            raise card.error(f"in_order: {path}: {theirs} {shapes}")
    return dict(zip(own, weights.values(), strict=True))


def check_export(card: Card, path: Path) -> None:
    """Refuses an archive of torch.export of which torch would unpickle a part without weights_only."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if "/data/" not in name:
                    continue
                if name.endswith(".json"):
                    entries = json.loads(archive.read(name)).get("config", {}).values()
                    pickled = any(each.get("use_pickle") for each in entries)
                elif name.endswith(".pt"):
                    with archive.open(name) as file:
                        pickled = not _plain(file)
                else:
                    pickled = "custom_obj" in name
                if pickled:
                    raise card.error(f"file: {path}: {name}: {UNSAFE}")
    except (zipfile.BadZipFile, ValueError):
        raise card.error(f"file: {path}: no exported program (torch.export.save)") from None


def _plain(file: Any) -> bool:
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True
