"""Which raw files there are below the two folders of params.yaml, before any of them is read.

The stage `paths` looks first, so that a wrong folder is answered by us: of a dependency that is not there DVC says
`[Errno 2]`, and never starts the stage that would know better.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import files
from pipeline.errors import InputError
from pipeline.mimic import schema
from pipeline.mimic.rawfile import readable
from pipeline.mimic.schema import Database
from pipeline.params import Data


def find_files(data: Data, outcomes: bool = True) -> dict[Database, dict[str, Path]]:
    """The CSV files of each database, sorted: name below its folder -> path. All needed tables are among them, once.

    Without `outcomes` those need not be there that only labels are made of.
    Raises InputError, naming key and path, where a folder or a needed table is missing, cannot be read or stands twice.
    """
    try:
        return {
            "mimiciv": _mimiciv_files(_root("data.mimiciv", data.mimiciv), outcomes),
            "mimic_cxr": _cxr_files(_root("data.mimic_cxr", data.mimic_cxr), data.cxr_tables),
        }
    except OSError as error:  # a folder that may not be read, a name that the system refuses
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None


def optional_tables(data: Data) -> dict[str, str]:
    """Those tables that a stage reads where they are there: name -> SHA-256. Raises InputError as `find_files` does.

    No stage can depend on them, since DVC refuses a dependency that is not there.
    """
    found = find_files(data)
    names = [
        (table.database, table.source + suffix)
        for table in schema.TABLES.values()
        for suffix in schema.SUFFIXES
        if not table.required
    ]
    digests = {}
    for database, name in names:
        if path := found[database].get(name):
            with readable(path):
                digests[name] = files.sha256(path)
    return digests


def _root(key: str, given: str) -> Path:
    root = Path(given)
    if not root.is_dir():
        raise InputError(f"{key}: {given}: no such folder")
    if any(sign in given for sign in "*?["):  # DuckDB would take them for a pattern
        raise InputError(f"{key}: {given}: a path with *, ? or [ cannot be read")
    return root


def _what_it_is(root: Path) -> str:
    """What a folder that is not MIMIC-IV's looks like, as the end of the error's line; empty where nothing is known."""
    names = {path.name.lower() for path in root.iterdir()}
    if any(name.startswith("mimic-cxr-2.0.0-") for name in names):
        return "; it holds MIMIC-CXR-JPG: are data.mimiciv and data.mimic_cxr swapped?"
    if any(f"chartevents{suffix}" in names for suffix in schema.SUFFIXES):
        return "; it looks like MIMIC-III, which is not read"
    below = [path for path in sorted(root.iterdir()) if (path / "hosp").is_dir() and (path / "icu").is_dir()]
    return f"; {below[0]} has it" if len(below) == 1 else ""


def _mimiciv_files(root: Path, outcomes: bool) -> dict[str, Path]:
    """All CSV files of hosp/ and icu/, sorted by name; every needed table is among them, once."""
    if (root / "core").is_dir() and not any((root / f"hosp/patients{suffix}").is_file() for suffix in schema.SUFFIXES):
        raise InputError(
            f"data.mimiciv: {root}: has core/, the layout of MIMIC-IV 1.x, which is not read; 2.0 and later have hosp/ "
            "and icu/ alone"
        )
    missing = [folder for folder in ("hosp", "icu") if not (root / folder).is_dir()]
    if missing:
        if root.name in ("hosp", "icu"):
            raise InputError(f"data.mimiciv: {root}: name the folder above hosp/ and icu/")
        raise InputError(f"data.mimiciv: {root}: has no folder {missing[0]}/{_what_it_is(root)}")
    files = {
        f"{folder}/{path.name}": path
        for folder in ("hosp", "icu")
        for path in sorted((root / folder).iterdir())
        if path.is_file() and path.name.endswith(schema.SUFFIXES) and not path.name.startswith(".")  # ._NAME: macOS
    }
    for source, table in schema.tables_of("mimiciv").items():
        names = [source + suffix for suffix in schema.SUFFIXES if source + suffix in files]
        if len(names) > 1:
            raise InputError(f"data.mimiciv: {root}: has both {names[0]} and {names[1]}; leave one")
        if not names and table.required and (outcomes or not table.outcome):
            raise InputError(f"data.mimiciv: {root / source}.csv.gz: not found (.csv neither)")
    return files


def _cxr_files(root: Path, suffix: str) -> dict[str, Path]:
    """Those of the four tables that are there, stored as `suffix`; the metadata is among them."""
    files = {f"{name}.{suffix}": root / f"{name}.{suffix}" for name in schema.CXR_TABLES}
    for source, table in schema.tables_of("mimic_cxr").items():
        path = files[f"{source}.{suffix}"]
        if table.required and not path.is_file():
            other = "csv" if suffix == "csv.gz" else "csv.gz"
            hint = f"; {source}.{other} is there: set data.cxr_tables" if (root / f"{source}.{other}").is_file() else ""
            raise InputError(f"data.mimic_cxr: {path}: not found{hint}")
    return {name: path for name, path in sorted(files.items()) if path.is_file()}
