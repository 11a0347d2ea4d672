"""Packed radiographs of the cohort: data/images/pixels.npy and index.parquet; counts in reports/data/images.json."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline import files, params
from pipeline.mimic.images import write_images
from stages import stage


@stage
def main() -> None:
    """Read the manifest and the cohort's images, write the declared outputs."""
    images, scale = params.read("images", "scales.images")
    manifest = json.loads(Path("data/manifest.json").read_text(encoding="utf-8"))
    report = write_images(
        cxr_file=Path("data/cohort/cxr.parquet"),
        root=Path(manifest["mimic_cxr"]["root"]),
        px=scale.px,
        settings=images,
        folder=Path("data/images"),
    )
    files.write_json(report, "reports/data/images.json")


if __name__ == "__main__":
    main()
