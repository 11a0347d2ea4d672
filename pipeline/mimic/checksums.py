"""What the publisher of a release says of its files: SHA256SUMS.txt, which lies in its folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.mimic.rawfile import readable

LIST = "SHA256SUMS.txt"
DIGITS = 64


def read_sums(root: Path) -> dict[str, str]:
    """Path below `root` -> SHA-256 (hex, lower case), as sha256sum writes them; empty where there is no list.

    Half a second for the 400,000 lines of MIMIC-CXR-JPG. What is no such line is left out. Raises InputError where the
    list cannot be read.
    """
    path = root / LIST
    if not path.is_file():
        return {}
    with readable(path):
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    sums = {}
    for line in text.split("\n"):
        digest, _, name = line.strip().partition(" ")
        if name and len(digest) == DIGITS:
            sums[name.lstrip(" *").removeprefix("./")] = digest.lower()
    return sums


def compare(root: Path, digests: Mapping[str, str], needed: Collection[str]) -> dict[str, Any]:
    """What the list in `root` says of files, by their SHA-256 (`digests`: path below `root` -> hex).

    `result` is absent (there is no list), verified (all `needed` ones were compared, and are the publisher's), partial
    (those of `not_listed` could not be compared) or differ (those of `differing` are others). `needed` and `compared`
    are numbers of needed files, `files_not_listed` is one of all.
    """
    if not (root / LIST).is_file():
        return {"result": "absent"}
    sums = read_sums(root)
    missing = sorted(name for name in needed if name not in sums)
    differing = sorted(name for name in needed if sums.get(name, digests[name]) != digests[name])
    return {
        "result": "differ" if differing else "partial" if missing else "verified",
        "needed": len(needed),
        "compared": len(needed) - len(missing),
        "differing": differing,
        "not_listed": missing,
        "files_not_listed": sum(name not in sums for name in digests),
    }
