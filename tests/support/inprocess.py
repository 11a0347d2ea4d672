"""The real stages in this process, in a folder of their own: small synthetic hospitals without the cost of starting."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from pipeline.closure import ROOT
from pipeline.params import load
from pipeline.strict import read_yaml
from pipeline.synthetic import hospital

DATA_STAGES = (
    "manifest",
    "ingest",
    "cohort",
    "labels",
    "series",
    "images",
    "splits",
    "exposure",
    "masks",
    "statistics",
)


def write_params(folder: Path, patients: int, seed: int, changes: dict[str, Any] | None = None) -> None:
    """`folder`/params.yaml: the project's at `scale: tiny`, with pictures of 24 pixels; `changes` by dotted key."""
    params = read_yaml(ROOT / "params.yaml")
    params["scale"] = "tiny"
    sizes = {"scales.tiny.synthetic.patients": patients, "scales.tiny.synthetic.image_px": 24}
    for key, value in {**sizes, "synthetic.seed": seed, **(changes or {})}.items():
        *above, last = key.split(".")
        block = params
        for name in above:
            block = block[name]
        block[last] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def synthesize(folder: Path) -> None:
    """The raw files that `folder`/params.yaml asks for, by one process."""
    params = load(folder / "params.yaml")
    hospital.write(
        folder / "data/raw/synthetic",
        folder / "data/truth",
        params=params.synthetic,
        scale=params.scales[params.scale].synthetic,
        workers=1,
    )


def run(folder: Path, *stages: str) -> None:
    """Stages by name, or like `train lstm mortality`. A stage that fails raises SystemExit with its one line."""
    with contextlib.chdir(folder), _quiet():
        for command in stages:
            name, *arguments = command.split()
            with mock.patch.object(sys, "argv", [f"stages.{name}", *arguments]):
                importlib.import_module(f"stages.{name}").main()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without tqdm's bars and without workers."""
    with mock.patch.dict("os.environ", {"TQDM_DISABLE": "1", "FUSION_EXECUTOR": "inline"}):
        yield
