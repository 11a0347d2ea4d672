"""Metrics files for DVC: a folder of JSON, a file a row of `dvc metrics show`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import files


def write_folder(contents: Mapping[str, Any], folder: Path) -> None:
    """Writes NAME.json of each content, to four decimals; removes those of earlier params."""
    for stale in sorted(folder.glob("*.json")):
        if stale.stem not in contents:
            stale.unlink()
    for name, content in contents.items():
        files.write_json(content, folder / f"{name}.json", digits=4)
