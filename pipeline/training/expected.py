"""What a launcher expects of its workers: that they file the runs under the names under which the driver looks.

A worker computes the identity of a run from its own checkout, packages and data. The launcher writes the identities of
its runs to WORK/expected/DIGEST.json and hands DIGEST over; a worker that arrives at another one refuses, and says what
differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import InputError
from pipeline.modelling.cards import parts
from pipeline.training.grid import RunSpec
from pipeline.training.store import Store, code_files

EXACT = 30  # decimals: a number is read as it was written
SHOWN = 3  # differences that are told; there may be many of one cause


def _every(specs: Sequence[RunSpec]) -> Iterator[RunSpec]:
    for spec in specs:
        yield from _every(list(spec.needs.values()))
        yield spec


def _identities(specs: Sequence[RunSpec], store: Store) -> dict[str, dict[str, Any]]:
    """By the runs' names for people, numbered where trials share one; those that they need among them."""
    found: dict[str, dict[str, Any]] = {}
    for name, spec in {store.name(spec): spec for spec in _every(specs)}.items():
        number = 1 + sum(label.rpartition(" #")[0] == spec.name for label in found)
        found[f"{spec.name} #{number}"] = {"name": name, **store.identity(spec)}
    return found


def _parts(identity: dict[str, Any]) -> tuple[str, ...]:
    return parts(identity["spec"]["strategy"], identity["spec"]["hyper"])


def _digest(identities: dict[str, dict[str, Any]]) -> str:
    names = sorted(each["name"] for each in identities.values())
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:24]


def _path(store: Store, digest: str) -> Path:
    return store.work / "expected" / f"{digest}.json"


def expect(specs: Sequence[RunSpec], store: Store) -> str:
    """Writes what the runs are filed under to the store; returns the digest of it that a worker is handed."""
    identities = _identities(specs, store)
    made_of = sorted({_parts(each) for each in identities.values()})
    content = {"runs": identities, "code": {" ".join(names): code_files(*names) for names in made_of}}
    digest = _digest(identities)
    files.write_json(content, _path(store, digest), digits=EXACT)
    return digest


def agree(specs: Sequence[RunSpec], store: Store, digest: str) -> None:
    """Raises InputError, in one line that says what differs, where this process files the runs under other names."""
    ours = _identities(specs, store)
    if _digest(ours) == digest:
        return
    path = _path(store, digest)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; FUSION_WORK must name the launcher's run store") from None
    theirs: dict[str, dict[str, Any]] = content["runs"]
    apart: dict[str, None] = {}
    for label in theirs.keys() & ours.keys():
        if ours[label]["name"] != theirs[label]["name"]:
            code = content["code"][" ".join(_parts(theirs[label]))]
            apart |= dict.fromkeys(_differences(ours[label], theirs[label], code))
    told = sorted(apart)
    if missing := sorted(theirs.keys() - ours.keys()):
        told.append(f"not asked for here: {len(missing)}, the first {missing[0]}")
    if more := sorted(ours.keys() - theirs.keys()):
        told.append(f"asked for here alone: {len(more)}, the first {more[0]}")
    rest = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    raise InputError(f"not the runs that this worker was started for: {'; '.join(told[:SHOWN])}{rest}")


def _differences(ours: dict[str, Any], theirs: dict[str, Any], their_code: dict[str, str]) -> Iterator[str]:
    here = dict(_flat(ours)) | {("code", name): value for name, value in code_files(*_parts(ours)).items()}
    there = dict(_flat(theirs)) | {("code", name): value for name, value in their_code.items()}
    for key in here.keys() | there.keys():
        if here.get(key) == there.get(key) or key[0] in ("name", "needs"):
            continue
        if key[0] == "code":
            if len(key) > 1:
                yield f"{key[1]} differs"
        elif key == ("data",):
            yield "the packed data differ"
        else:
            name = ".".join(key).removeprefix("spec.")
            yield f"{name} is {here.get(key, 'absent')} here, {there.get(key, 'absent')} there"


def _flat(content: Any, *key: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _flat(value, *key, name)
    else:
        yield key, list(content) if isinstance(content, tuple) else content
