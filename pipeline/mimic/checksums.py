"""The publisher's SHA256SUMS.txt, which PhysioNet puts into a release's folder: a line `digest  name` for each file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

SUMS = "SHA256SUMS.txt"


def published_sums(root: Path, names: Collection[str]) -> dict[str, str] | None:
    """The listed SHA-256 of those files of `names` that the list in `root` has; None where there is no list.

    Names are relative to `root`. Read line by line: MIMIC-CXR-JPG's list has 377,110 images.
    """
    path = root / SUMS
    if not path.is_file():
        return None
    wanted, found = frozenset(names), {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            digest, _, name = line.strip().partition(" ")
            name = name.strip(" *").removeprefix("./")
            if name in wanted:
                found[name] = digest.lower()
    return found
