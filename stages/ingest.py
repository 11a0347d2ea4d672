"""Manifest -> data/interim: the needed columns and itemids of the raw tables, typed and sorted."""

import logging
from pathlib import Path

from pipeline import files
from pipeline.mimic.manifest import load_manifest
from pipeline.mimic.tables import ingest
from pipeline.mimic.variables import EVENT_SOURCES, needed_itemids
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Write one Parquet file per table, and the counts of rows."""
    (bounds,) = read("ingest")
    manifest = load_manifest(Path("data/manifest.json"))
    itemids = {source: needed_itemids(source) for source in EVENT_SOURCES}
    counts = ingest(manifest, itemids, bounds, Path("data/interim"))
    for name, count in counts.items():
        logging.info("%s: %d of %d rows", name, count["kept"], count["rows_read"])
        for reason, rows in count["dropped"].items():
            logging.info("%s: left out %d rows: %s", name, rows, reason)
        for words, rows in count.get("noted", {}).items():
            logging.info("%s: %d rows: %s", name, rows, words)
        if "lines_without_row" in count:
            logging.warning("%s: %d lines are blank or inside of quoted text", name, count["lines_without_row"])
    files.write_json(counts, "reports/data/ingest.json")


if __name__ == "__main__":
    main()
