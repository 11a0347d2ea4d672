"""A strategy's card and declarations, read from its source: nobody need import torch to tell what a strategy is."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.closure import parsed
from pipeline.errors import InputError

STRATEGIES = Path(__file__).parent.parent / "strategies"  # the folder of their files
ENTRIES = ("Paper", "Idea", "Missing image", "Changed")


@dataclass(frozen=True)
class Card:
    """`summary` is the docstring's first line; the entries follow it as `Name: text`; the class declares the rest."""

    name: str
    summary: str
    entries: dict[str, str]
    modalities: tuple[str, ...]
    missing: str
    interaction: str
    needs: tuple[str, ...]
    wraps: str = ""

    @property
    def group(self) -> str:
        """`fusion` (both modalities), `unimodal` (one), or `control`: told of images, without a pixel."""
        if {"ehr", "cxr"} <= set(self.modalities):
            return "fusion"
        return "unimodal" if len(self.modalities) == 1 else "control"


def read_card(name: str) -> Card:
    """The card of pipeline/strategies/NAME.py.

    Raises InputError where there is no file, it is no Python, or its card lacks an entry.
    """
    path = STRATEGIES / f"{name}.py"
    if not path.is_file():
        raise InputError(f"grid.strategies: {name!r} has no file pipeline/strategies/{name}.py")
    return _read(name, path, path.stat().st_mtime_ns)


@functools.cache  # every run's identity asks for it
def _read(name: str, path: Path, changed_ns: int) -> Card:
    tree = parsed(path)
    first, *lines = (ast.get_docstring(tree) or "").splitlines()
    entries: dict[str, str] = {}
    current = ""
    for line in lines:
        head, colon, text = line.partition(": ")
        if colon and head in ENTRIES:
            current, entries[head] = head, text
        elif current and line.strip():
            entries[current] += f" {line.strip()}"
    missing = [entry for entry in ENTRIES if entry not in entries]
    if missing or not first.startswith(f"{name}: "):
        raise InputError(f"pipeline/strategies/{name}.py: its card lacks {', '.join(missing) or f'the line {name}: …'}")
    declared = {"modalities": "cxr ehr", "missing": "complete", "interaction": "joint", "needs": "", "wraps": ""}
    for node in (node for each in tree.body if isinstance(each, ast.ClassDef) for node in each.body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id in declared:
                texts = sorted(str(leaf.value) for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant))
                declared[target.id] = " ".join(texts)
    return Card(
        name=name,
        summary=first.removeprefix(f"{name}: "),
        entries=entries,
        modalities=tuple(declared["modalities"].split()),
        missing=declared["missing"],
        interaction=declared["interaction"],
        needs=tuple(declared["needs"].split()),
        wraps=declared["wraps"],
    )


def parts(name: str, hyper: Mapping[str, Any]) -> tuple[str, ...]:
    """The strategies that one is made of: itself, and the one that it wraps, which its hyper-parameters name.

    Raises InputError where there is none of that name, or where that one wraps another.
    """
    knob = read_card(name).wraps
    if not knob:
        return (name,)
    base = hyper.get(knob)
    if not isinstance(base, str) or not (STRATEGIES / f"{base}.py").is_file():
        raise InputError(f"strategies.{name}.{knob}: must be the name of a strategy, is {base!r}")
    if read_card(base).wraps:
        raise InputError(f"strategies.{name}.{knob}: {base} wraps another strategy itself")
    return name, base
