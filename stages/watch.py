"""What the files of the cohort's radiographs look like now, so that `images` sees one that was repaired or put back.

There is such a stage where `images.skip` leaves images out, and DVC runs it every time: the JPEGs, some 400,000 files,
are nobody's dependency.
"""

import logging
import sys
from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.mimic.jpegs import release_folder, state_of, with_path
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Write data/given/watch-WHAT.json, for the WHAT of `images.skip` that is the argument."""
    (per_stay,) = read("images.per_stay")
    links = with_path(pl.read_parquet("data/cohort/cxr.parquet"), per_stay)
    state = state_of(release_folder(Path("data/manifest.json")), links["path"].to_list())
    logging.info("%d of %d linked images are there", state["there"], state["images"])
    files.write_json(state, f"data/given/watch-{sys.argv[1]}.json")


if __name__ == "__main__":
    main()
