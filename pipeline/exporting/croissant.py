"""The synthetic hospital as a Croissant 1.1 data set: its raw files, and croissant.json that says what is in them.

Nobody is described there; of other data nothing is written. The format is MLCommons' (Akhtar et al. 2024).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
from tqdm import tqdm

from pipeline import files
from pipeline.closure import ROOT
from pipeline.errors import InputError
from pipeline.exporting.source import new_folder
from pipeline.mimic.csv_query import quoted
from pipeline.mimic.manifest import load_manifest
from pipeline.mimic.schema import TABLES, Database
from pipeline.strict import read_yaml

NAME = "fusion-benchmark-synthetic-hospital"
ABOUT = (
    "A hospital that does not exist, in the files of {mimiciv} and {mimic_cxr}: hourly charted intensive care, "
    "laboratory results, diagnoses and chest radiographs, drawn from a structural model whose answers are known "
    "(seed {seed}, {patients} patients). It says nothing about patients; no row was copied from real data."
)
FOLDERS: dict[Database, str] = {"mimiciv": "mimiciv", "mimic_cxr": "mimic-cxr-jpg"}
DEFINED = "SYNTHETIC.json"
IMAGES = "radiographs"
# DuckDB type -> Croissant's; what is none of them is text
TYPES = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), "sc:Integer"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "sc:Float"),
    **dict.fromkeys(("DATE", "TIMESTAMP"), "sc:DateTime"),
}
# The context of version 1.1, term by term (docs.mlcommons.org/croissant): plain names of `cr:`, and those with a rule
_TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty"),
    *("fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5"),
    *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator"),
    *("source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS},
}
log = logging.getLogger("export")


def write_croissant(data: Path, out: Path) -> None:
    """Copies the raw tables that data/manifest.json lists, and the radiographs, to the new folder `out`, described.

    Raises InputError where they are not the synthetic hospital's, or other files than were listed.
    """
    manifest = load_manifest(data / "manifest.json")
    for database in FOLDERS:
        if manifest[database]["kind"] != "synthetic":
            release = manifest[database]["release"]
            raise InputError(f"croissant: data.{database} is {release}: it describes the synthetic hospital alone")
    with new_folder(out) as folder:
        listed = list(_copied(manifest, folder))
        roots = {database: Path(manifest[database]["root"]) for database in FOLDERS}
        pictures = _copy_images(roots["mimic_cxr"], folder / FOLDERS["mimic_cxr"])
        about = {name: json.loads((root / DEFINED).read_text(encoding="utf-8")) for name, root in roots.items()}
        files.write_json(describe(listed, about), folder / "croissant.json")
    log.info("%d tables and %d radiographs: %s", len(listed), pictures, out)


Listed = tuple[str, str, dict[str, str]]  # name in the folder, sha256, column -> DuckDB type


def _copied(manifest: dict[str, Any], folder: Path) -> Iterator[Listed]:
    """Copies the tables, compared with the manifest on the way."""
    for database, below in FOLDERS.items():
        root = Path(manifest[database]["root"])
        (folder / below).mkdir(parents=True)
        shutil.copyfile(root / DEFINED, folder / below / DEFINED)
        for name, file in tqdm(manifest[database]["files"].items(), desc=below, unit="table"):
            here = folder / below / name
            here.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(root / name, here)
            except FileNotFoundError:
                raise InputError(f"{root / name}: not found; run the stage manifest again") from None
            if files.sha256(here) != file["sha256"]:
                raise InputError(
                    f"{root / name}: not the file that data/manifest.json lists; run the stage manifest again"
                )
            yield f"{below}/{name}", file["sha256"], _types(here, name)


def _types(path: Path, name: str) -> dict[str, str]:
    """Column -> type: the schema's, where it needs the column, else what all rows look like."""
    wanted = next((table.columns for table in TABLES.values() if table.source == _stem(name)), {})
    rows = duckdb.execute(
        f"describe select * from read_csv({quoted(str(path))}, header = true, sample_size = -1)"
    ).fetchall()
    return {column: wanted.get(column, kind) for column, kind, *_ in rows}


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".csv")


def _copy_images(root: Path, folder: Path) -> int:
    found = sorted(path.relative_to(root) for path in root.glob("files/**/*.jpg"))
    for path in tqdm(found, desc="radiographs", unit="file"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, folder / path)
    return len(found)


def describe(listed: list[Listed], about: dict[Database, dict[str, Any]]) -> dict[str, Any]:
    """croissant.json: a FileObject and a RecordSet a table, a FileSet and a RecordSet of the radiographs.

    `about`: the SYNTHETIC.json of each database. Who publishes it adds url and datePublished.
    """
    cited = read_yaml(ROOT / "CITATION.cff")
    author, one = cited["authors"][0]["name"], about["mimiciv"]
    imitated = {name: f"{each['imitates']} {each['release']}" for name, each in about.items()}
    tables: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "encodingFormat": "text/csv",
            "sha256": sha256,
        }
        for name, sha256, _ in listed
    ]
    images = {
        "@type": "cr:FileSet",
        "@id": IMAGES,
        "name": IMAGES,
        "description": "Chest radiographs, grey; the path names subject and study, the file's stem is the dicom_id.",
        "encodingFormat": "image/jpeg",
        "includes": f"{FOLDERS['mimic_cxr']}/files/**/*.jpg",
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": NAME,
        "description": ABOUT.format(seed=one["seed"], patients=one["parameters"]["patients"], **imitated),
        "version": f"{one['version']}.0",
        "license": f"https://spdx.org/licenses/{cited['license']}.html",
        "citeAs": f"@misc{{{NAME}, title = {{{cited['title']}}}, author = {{{author}}}}}",
        "creator": {"@type": "sc:Organization", "name": author},
        "keywords": ["synthetic data", "intensive care", "chest radiograph", "multimodal fusion"],
        "distribution": [*tables, images],
        "recordSet": [*(_records(*each) for each in listed), _image_records()],
    }


def _records(name: str, _sha256: str, types: dict[str, str]) -> dict[str, Any]:
    """A field a column."""
    own = _stem(Path(name).name)
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{own}/{column.replace(' ', '_')}",  # mlcroissant refuses blanks there
            "name": column,
            "dataType": TYPES.get(kind, "sc:Text"),
            "source": {"fileObject": {"@id": name}, "extract": {"column": column}},
        }
        for column, kind in types.items()
    ]
    return {"@type": "cr:RecordSet", "@id": own, "name": own, "field": fields}


def _image_records() -> dict[str, Any]:
    own = f"{IMAGES}-read"
    source = {"fileSet": {"@id": IMAGES}}
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{own}/dicom_id",
            "name": "dicom_id",
            "dataType": "sc:Text",
            "source": {
                **source,
                "extract": {"fileProperty": "filename"},
                "transform": {"regex": r"(.*)\.jpg"},
            },
        },
        {
            "@type": "cr:Field",
            "@id": f"{own}/image",
            "name": "image",
            "dataType": "sc:ImageObject",
            "source": {**source, "extract": {"fileProperty": "content"}},
        },
    ]
    return {"@type": "cr:RecordSet", "@id": own, "name": own, "field": fields}
