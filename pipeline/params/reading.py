"""params.yaml from its file: all of it, the values that a stage declares, changes as `dvc exp run -S` spells them."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.params.whole import Params
from pipeline.strict import Loader, build, read_yaml

FILE = Path("params.yaml")


def content(path: Path | str = FILE, changes: Sequence[str] = ()) -> Any:
    """What a file holds, with `changes` as `dvc exp run -S` spells them: key=value, the value YAML or `${other.key}`.

    Raises InputError where the file is absent or is not YAML, and for a change of a key that it does not hold.
    """
    path = Path(path)
    try:
        value = read_yaml(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run from the root of the project") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    for change in changes:
        _change(value, change, path)
    return value


def _change(whole: Any, change: str, path: Path) -> None:
    key, equals, text = change.partition("=")
    *above, last = key.split(".")
    value = _under(whole, above)
    if not equals or not isinstance(value, dict) or last not in value:
        why = f"{path} has no such key" if equals else "must be KEY=VALUE"
        raise InputError(f"-S {change}: {why}")
    if other := re.fullmatch(r"\$\{([\w.]+)\}", text):  # as in `dvc exp run -S`
        *above, name = other[1].split(".")
        there = _under(whole, above)
        if not isinstance(there, dict) or name not in there:
            raise InputError(f"-S {change}: {path} has no key {other[1]}")
        value[last] = there[name]
        return
    try:
        value[last] = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise InputError(f"-S {change}: not YAML: {' '.join(str(error).split())}") from None


def _under(value: Any, names: Sequence[str]) -> Any:
    """What nested mappings hold under these keys; None where one is not there."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def load(path: Path | str = FILE, changes: Sequence[str] = ()) -> Params:
    """All params of a file, with `changes` as `content` takes them.

    An ensemble none of whose components is in the grid is not in it either. Raises InputError (naming file and key)
    where it is absent, is not YAML, or holds an unknown or impossible value.
    """
    value = content(path, changes)
    try:
        params = typing.cast(Params, build(Params, _apart(value), ""))
        grid = params.grid
        made = tuple(name for name in grid.ensembles if {*params.ensembles[name].components} & {*grid.strategies})
        return dataclasses.replace(params, grid=dataclasses.replace(grid, ensembles=made))
    except InputError as error:
        text = re.sub(r"^tuning[.]own[.](\w+)", r"strategies.\1.space", str(error))
        raise InputError(f"{path}: {text}") from None


def _apart(value: Any) -> Any:
    """The content of params.yaml, `space` moved from the strategies' blocks to tuning.own: what is left is theirs."""
    if not isinstance(value, dict) or not all(isinstance(value.get(key), dict) for key in ("strategies", "tuning")):
        return value
    if "own" in value["tuning"]:
        raise InputError("tuning.own: unknown key; did you mean strategies.NAME.space?")
    blocks = {name: dict(block) if isinstance(block, dict) else block for name, block in value["strategies"].items()}
    own = {name: block.pop("space") for name, block in blocks.items() if isinstance(block, dict) and "space" in block}
    return {**value, "strategies": blocks, "tuning": {**value["tuning"], "own": own}}


def read(*keys: str, path: Path | str = FILE) -> tuple[Any, ...]:
    """The values under dotted keys, in order: what a stage declares under `params:` in dvc.yaml, and nothing else."""
    params = load(path)
    try:
        return tuple(params.get(key) for key in keys)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of nested params."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, dict):
        yield prefix, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        return
    for key, each in value.items():
        yield from flat(each, f"{prefix}.{key}" if prefix else str(key))
