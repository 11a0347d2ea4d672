"""embed ENCODER: its embeddings of all packed images, from the JPEGs, at the size that its card says."""

import logging
import sys
from pathlib import Path

from pipeline.embedding.card import read_card
from pipeline.embedding.embed import pictures, write_embeddings
from pipeline.errors import InputError
from pipeline.mimic.images import Jpegs, published
from pipeline.mimic.jpegs import release_folder
from pipeline.params import Embedding, read
from pipeline.work_folder import work_folder
from stages import stage


@stage
def main() -> None:
    """Writes data/embeddings/ENCODER/{packed.npy,index.parquet,facts.json}."""
    if len(sys.argv) != 2:
        raise InputError("needs one argument: ENCODER")
    (name,) = sys.argv[1:]
    checksums, follow_links, device, batch, workers = read(
        "images.checksums", "images.follow_links", "embedding.device", "embedding.batch", "embedding.workers"
    )
    root, data = release_folder(Path("data/manifest.json")), Path("data")
    images = pictures(data / "images/index.parquet", data / "cohort/cxr.parquet")
    sums = published(root, [each.path for each in images]) if checksums else None
    facts = write_embeddings(
        images,
        Jpegs(root, sums or {}, follow_links),
        read_card(name),
        Embedding((name,), device, batch, workers),
        data / "embeddings" / name,
        work_folder() / "embeddings",
    )
    counts = f"{facts['images']} images ({facts['embedded']} embedded now)"
    logging.info("%s: %s vectors of %s each", counts, facts["vectors"], facts["width"])


if __name__ == "__main__":
    main()
