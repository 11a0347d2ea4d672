"""What the raw files are, and of which release: the manifest, from which every later stage finds the raw tables.

Files are compared here: with the schema, with the publisher's checksums, with the releases that are known. folders.py
finds them and scan.py reads them; what is inside of the rows is the business of tables.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.mimic import checksums, schema
from pipeline.mimic.folders import find_files
from pipeline.mimic.rawfile import read_header
from pipeline.mimic.scan import scan
from pipeline.mimic.schema import Database
from pipeline.params import Data

File = dict[str, Any]  # bytes, sha256, columns and, of needed tables, rows


def build_manifest(data: Data, outcomes: bool = True) -> dict[str, Any]:
    """The content of data/manifest.json (docs/artefacts.md) for the two folders of `data`.

    `outcomes` as in `find_files`.
    Raises InputError, naming key, file or column, where a folder or needed table is missing, empty or damaged, a
    needed column is missing, or the release is not known and `data.accept_unlisted_release` is false.
    """
    roots: dict[Database, str] = {"mimiciv": data.mimiciv, "mimic_cxr": data.mimic_cxr}
    found = find_files(data, outcomes)
    tables = {(database, name): path for database, paths in found.items() for name, path in paths.items()}
    columns = columns_of(found)
    scanned = scan({path: _table(*key) is not None for key, path in tables.items()})
    manifest: dict[str, Any] = {}
    for database, root in roots.items():
        files: dict[str, File] = {
            name: {**scanned[path], "columns": columns[database, name]} for name, path in found[database].items()
        }
        compared = _compare_checksums(Path(root), files, data.accept_unlisted_release)
        release, kind = recognise(database, Path(root), files, data.accept_unlisted_release)
        manifest[database] = {"root": root, "release": release, "kind": kind, "checksums": compared, "files": files}
    kinds = {manifest[database]["kind"] for database in roots}
    if "synthetic" in kinds and len(kinds) > 1:
        raise InputError(
            f"data.mimiciv is {manifest['mimiciv']['release']}, data.mimic_cxr is {manifest['mimic_cxr']['release']}: "
            "the synthetic hospital does not go with other data; set both paths"
        )
    return manifest


def columns_of(found: dict[Database, dict[str, Path]]) -> dict[tuple[Database, str], list[str]]:
    """The headers of the files that `find_files` found, by database and name.

    Raises InputError where there is none, or a needed column is missing or stands twice.
    """
    return {
        (database, name): _columns(path, _table(database, name))
        for database, paths in found.items()
        for name, path in paths.items()
    }


def summarise(manifest: dict[str, Any]) -> dict[str, Any]:
    """The counts of a manifest for the report: no path, no checksum."""
    return {
        database: {
            "release": part["release"],
            "kind": part["kind"],
            "checksums": part["checksums"],
            "files": len(part["files"]),
            "bytes": sum(file["bytes"] for file in part["files"].values()),
            "rows": {_stem(name): file["rows"] for name, file in part["files"].items() if "rows" in file},
        }
        for database, part in manifest.items()
    }


def find_table(manifest: dict[str, Any], table: schema.Table) -> tuple[Path, list[str]] | None:
    """Path and header of a table that the manifest lists; None where it does not.

    Raises InputError where the file is gone or has another size than when it was listed.
    """
    part = manifest[table.database]
    for name, file in part["files"].items():
        if _stem(name) == table.source:
            path = Path(part["root"]) / name
            if not path.is_file() or path.stat().st_size != file["bytes"]:
                raise InputError(f"{path}: not the file that data/manifest.json lists; run the stage manifest again")
            return path, list(file["columns"])
    return None


def lines_of(manifest: dict[str, Any], table: schema.Table) -> int:
    """Lines after the header that the manifest counted in a table; 0 where it lists none."""
    files = manifest[table.database]["files"].items()
    return sum(int(file["rows"]) for name, file in files if _stem(name) == table.source)


def recognise(database: Database, root: Path, files: dict[str, File], accept_unlisted: bool) -> tuple[str, schema.Kind]:
    """Release and kind: synthetic by its SYNTHETIC.json, others by the number of rows of the small tables.

    Raises InputError where no known release fits and `accept_unlisted` is false.
    """
    mark = root / "SYNTHETIC.json"
    if mark.is_file():
        return f"synthetic hospital{_imitated(mark)}", "synthetic"
    rows = {_stem(name): file["rows"] for name, file in files.items() if "rows" in file}
    for release in schema.RELEASES[database]:
        if all(rows.get(source) == count for source, count in release.rows.items()):
            newer = database == "mimic_cxr" and (root / schema.CXR_MARK_OF_2_1_0).is_file()
            return ("MIMIC-CXR-JPG 2.1.0" if newer and release.kind == "mimic" else release.name), release.kind
    counted = ", ".join(f"{source} {rows.get(source)}" for source in schema.RELEASES[database][0].rows)
    if accept_unlisted:
        return f"unlisted ({counted} rows)", "unlisted"
    known = ", ".join(release.name for release in schema.RELEASES[database])
    raise InputError(
        f"data.{database}: {root}: not a release that is known ({counted} rows; known: {known}); "
        "data.accept_unlisted_release lets it through"
    )


def _imitated(mark: Path) -> str:
    """What the synthetic hospital says that it imitates, like ` (MIMIC-IV 2.2)`; empty where it does not say."""
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{mark}: not JSON") from None
    if not isinstance(content, dict) or not {"imitates", "release"} <= set(content):
        return ""
    return f" ({content['imitates']} {content['release']})"


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".csv")


def _table(database: str, name: str) -> schema.Table | None:
    return {t.source: t for t in schema.TABLES.values() if t.database == database}.get(_stem(name))


def _columns(path: Path, table: schema.Table | None) -> list[str]:
    """The names in the first line of a CSV file.

    Raises InputError where there is none, or a column that `table` needs is missing or stands twice.
    """
    names = read_header(path)
    if table is None:
        return names
    _, missing = schema.place_columns(names, table.columns)
    if missing:
        raise InputError(f"{path}: column {missing[0]} is missing")
    folded = [name.casefold() for name in names]
    for name in table.columns:
        if folded.count(name.casefold()) > 1:
            raise InputError(f"{path}: column {name} stands twice")
    return names


def _compare_checksums(root: Path, files: dict[str, File], accept: bool) -> dict[str, Any]:
    """What the publisher's list says of the files. Raises InputError at a needed one that differs, unless `accept`."""
    needed = [name for name, file in files.items() if "rows" in file]
    found = checksums.compare(root, {name: file["sha256"] for name, file in files.items()}, needed)
    for name in [] if accept else found.get("differing", []):
        raise InputError(f"{root / name}: damaged or changed: its SHA-256 is not that of {checksums.LIST}")
    return found


def load_manifest(path: Path) -> dict[str, Any]:
    """Read data/manifest.json. Raises InputError where it is not there or not JSON."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; the stage manifest writes it") from None
    except ValueError:
        raise InputError(f"{path}: not JSON; run the stage manifest again") from None
    return content
