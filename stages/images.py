"""Packed radiographs of the cohort: data/images/pixels.npy and index.parquet; counts in reports/data/images.json."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.mimic.images import release_folder, write_images
from pipeline.params import read
from stages import stage


GIVEN = Path("data/given")

@stage
def main() -> None:
    """Read the manifest and the cohort's images, write the declared outputs."""
    images, scale = read("images", "scales.images")
    report = write_images(
        cxr_file=Path("data/cohort/cxr.parquet"),
        metadata_file=Path("data/interim/cxr_metadata.parquet"),
        root=release_folder(Path("data/manifest.json")),
        px=scale.px,
        settings=images,
        folder=Path("data/images"),
    )
    modes = ", ".join(f"{count} {mode}" for mode, count in report["colour_modes"].items())
    logging.info("%d images (%s), %d left out", report["images"], modes, report["left_out"]["images"])
    logging.info("checksums: %s", ", ".join(f"{name} {found}" for name, found in report["checksums"].items()))
    for name, count in report["oddities"].items():
        if count:
            logging.warning("%d %s", count, name.replace("_", " "))
    if report["left_out"]["images"]:
        logging.warning("once they are repaired: dvc repro --force --single-item images, then dvc repro")
    files.write_json(report, "reports/data/images.json")


if __name__ == "__main__":
    main()
