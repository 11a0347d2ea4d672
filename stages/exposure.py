"""exposure: what each frozen encoder has seen of the patients of dev and test."""

from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.embedding.card import read_card
from pipeline.embedding.overlap import TOLD_APART, audit, exposure, official_split, told_apart
from pipeline.mimic.manifest import load_manifest
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes reports/data/exposure.json, and whom of the tested the encoder in use has seen: data/exposure.parquet."""
    encoders, used = read("embedding.encoders", "training.image")
    data = Path("data")
    report, apart = {}, pl.DataFrame(schema=TOLD_APART)
    if encoders:
        splits = pl.read_parquet(data / "splits.parquet")
        images = pl.read_parquet(data / "interim/cxr_metadata.parquet", columns=["dicom_id", "subject_id"])
        official = official_split(load_manifest(data / "manifest.json"))
        cards = {name: read_card(name) for name in encoders}
        audits = {name: audit(card, splits, images, official) for name, card in cards.items()}
        report = {"in_use": used if used in cards else None, "encoders": audits}
        if used in cards:
            apart = told_apart(splits, exposure(cards[used], images, official))
    files.write_json(report, "reports/data/exposure.json")
    files.write_parquet(apart, data / "exposure.parquet")


if __name__ == "__main__":
    main()
