"""YAML files, and their content as frozen dataclasses, strictly: every mistake is an InputError that names the key."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.errors import InputError


# libyaml's parser takes a tenth of the time: every stage is a process that reads a thousand lines of YAML
class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2 floats: PyYAML reads 3e-4 as a string, DVC reads it as a number."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping(loader: Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    """A mapping; PyYAML would take the last of two equal keys."""
    lines: dict[object, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
            raise yaml.constructor.ConstructorError(problem=f"{key.value} stands twice, on line {line} again")
    mapping: dict[Any, Any] = loader.construct_mapping(node, deep)
    return mapping


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises OSError, UnicodeDecodeError or yaml.YAMLError where it cannot be read."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)


def meant(name: str, names: Iterable[str]) -> str:
    """The end of an error's line: which of `names` is written nearly like `name`; empty where none is."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


@functools.cache
def type_hints(kind: typing.Hashable) -> dict[str, Any]:
    """Its fields and their types, read once: annotations that are text are compiled, and blocks of a kind are many."""
    return typing.get_type_hints(kind)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def build(kind: Any, value: Any, key: str) -> Any:
    """`value` as `kind`, or an InputError that names `key`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise InputError(f"{key}: must be a mapping, is {value!r}")
        hints = type_hints(typing.cast(typing.Hashable, kind))
        for name in value:
            if name not in hints:
                raise InputError(f"{_join(key, name)}: unknown key{meant(str(name), hints)}")
        for name in hints:
            if name not in value:
                raise InputError(f"{_join(key, name)}: missing")
        fields = {name: build(hint, value[name], _join(key, name)) for name, hint in hints.items()}
        try:
            return typing.cast(Any, kind)(**fields)
        except ValueError as error:
            raise InputError(_join(key, str(error))) from None
    if origin is Literal:
        if isinstance(value, float) and str(value) in args:  # YAML, and `dvc exp run -S`, take 3.1 for a number
            return str(value)
        if value not in args or isinstance(value, bool) != any(isinstance(arg, bool) for arg in args):
            raise InputError(f"{key}: must be one of {', '.join(map(str, args))}; is {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{key}: must be a list, is {value!r}")
        return tuple(build(args[0], item, f"{key}.{i}") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{key}: must be a mapping, is {value!r}")
        return {str(name): build(args[1], item, _join(key, name)) for name, item in value.items()}
    if kind is Any:
        return value
    if isinstance(kind, types.UnionType) and args[1:] == (types.NoneType,):  # X | None
        return None if value is None else build(args[0], value, key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, types.UnionType) or type(value) is not kind:
        raise InputError(f"{key}: must be {_name(kind)}, is {value!r}")
    if kind is float and not abs(value) < float("inf"):
        raise InputError(f"{key}: must be a finite number, is {value!r}")
    return value


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
