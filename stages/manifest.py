"""Raw folders -> data/manifest.json: files, checksums, headers, recognised release."""

import logging

from pipeline import files
from pipeline.mimic.manifest import build_manifest, summarise
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Write the manifest and its counts."""
    (data,) = read("data")
    manifest = build_manifest(data)
    for part in manifest.values():
        logging.info("%s: %d files", part["release"], len(part["files"]))
    files.write_json(manifest, "data/manifest.json")
    files.write_json(summarise(manifest), "reports/data/manifest.json")


if __name__ == "__main__":
    main()
