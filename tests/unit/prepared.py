"""A small synthetic hospital taken through the data stages, in this process and without DVC."""

import contextlib
import dataclasses
import importlib
from pathlib import Path

import yaml

from pipeline.params import Synthetic, SyntheticScale
from pipeline.synthetic import hospital

TO_SERIES = ("manifest", "ingest", "cohort", "labels", "series")
TO_AUDIT = (*TO_SERIES, "images", "splits", "statistics", "audit")


def prepare(
    folder: Path, root: Path, patients: int, stages: tuple[str, ...], params: Synthetic, **changes: object
) -> Path:
    """Write the hospital and params.yaml to `folder`, run `stages` there, and return the folder.

    `changes`: keys of the block `cohort`. The images are 20 pixels high.
    """
    content = yaml.safe_load((root / "params.yaml").read_text())
    content["synthetic"] = dataclasses.asdict(params)
    content["cohort"] |= changes
    content["scale"] = "tiny"
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    scale = SyntheticScale(patients=patients, image_px=20)
    hospital.write(folder / "data/raw/synthetic", folder / "data/truth", params=params, scale=scale, workers=1)
    with contextlib.chdir(folder):
        for name in stages:
            importlib.import_module(f"stages.{name}").main()
    return folder
