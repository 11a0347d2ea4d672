"""Raw folders -> data/manifest.json: files, checksums, headers, recognised release."""

import logging

from pipeline import files
from pipeline.mimic.checksums import LIST
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
        found = part["checksums"]
        if found.get("not_listed"):
            compared, names = f"{found['compared']} of {found['needed']} needed files", ", ".join(found["not_listed"])
            logging.warning("%s: %s compared with %s, which does not name %s", part["release"], compared, LIST, names)
    files.write_json(manifest, "data/manifest.json")
    files.write_json(summarise(manifest), "reports/data/manifest.json")


if __name__ == "__main__":
    main()
