"""Packed radiographs of the cohort: data/images/pixels.npy and index.parquet; counts in reports/data/images.json."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.mimic.images import disclosed, write_images
from pipeline.mimic.jpegs import release_folder
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
    for watched in set(GIVEN.glob("watch-*.json")) - {GIVEN / f"watch-{what}.json" for what in images.skip}:
        watched.unlink()  # of a stage that is no more; this one depends on the folder, whose digest goes to dvc.lock
    stays = pl.read_parquet("data/cohort/stays.parquet", columns=["stay_id"]).height
    files.write_json(disclosed(report, stays), "reports/data/images.json")


if __name__ == "__main__":
    main()
