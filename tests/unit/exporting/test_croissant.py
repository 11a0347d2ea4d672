"""The synthetic hospital as a Croissant data set: every file and column described, read by MLCommons' own reader."""

import gzip
import hashlib
import json
import shutil
from contextlib import chdir

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.exporting.croissant import write_croissant
from tests.support.inprocess import run, synthesize, write_params

RAW = "data/raw/synthetic"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    write_params(folder, 20, 7)
    synthesize(folder)
    run(folder, "manifest")
    return folder


@pytest.fixture(scope="module")
def there(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "croissant"
    with chdir(project):
        write_croissant(project / "data", out)
    return out


def described(out):
    return json.loads((out / "croissant.json").read_text())


def raw_tables(project):
    return sorted((project / RAW).rglob("*.csv.gz"))


def test_every_raw_file_is_there_and_described_by_its_checksum(project, there):
    files = {each["contentUrl"]: each for each in described(there)["distribution"] if each["@type"] == "cr:FileObject"}
    assert sorted(files) == [path.relative_to(project / RAW).as_posix() for path in raw_tables(project)]
    for name, each in files.items():
        assert hashlib.sha256((there / name).read_bytes()).hexdigest() == each["sha256"]
        assert (there / name).read_bytes() == (project / RAW / name).read_bytes()
    pictures = {path.relative_to(project / RAW) for path in (project / RAW).rglob("*.jpg")}
    assert pictures
    assert {path.relative_to(there) for path in there.rglob("*.jpg")} == pictures


def test_every_column_is_a_field_of_the_schemas_type(project, there):
    records = {each["name"]: each["field"] for each in described(there)["recordSet"]}
    for path in raw_tables(project):
        header = gzip.decompress(path.read_bytes()).decode().splitlines()[0].split(",")
        assert [field["name"] for field in records[path.name.removesuffix(".csv.gz")]] == header
    types = {field["@id"]: field["dataType"] for fields in records.values() for field in fields}
    assert types["chartevents/valuenum"] == "sc:Float"
    assert types["chartevents/charttime"] == "sc:DateTime"
    assert types["diagnoses_icd/icd_code"] == "sc:Text"  # whatever its rows look like
    assert types["icustays/los"] == "sc:Float"  # the pipeline's schema does not need it


def test_it_says_what_it_is(there):
    about = described(there)
    assert about["license"] == "https://spdx.org/licenses/MIT.html"
    assert "MIMIC-IV 2.2 and MIMIC-CXR-JPG 2.0.0" in about["description"]
    assert "(seed 7, 20 patients)" in about["description"]
    assert about["conformsTo"] == "http://mlcommons.org/croissant/1.1"


def test_mlcommons_reader_finds_no_error_and_reads_tables_and_pictures(project, there):
    mlc = pytest.importorskip("mlcroissant", reason="the package mlcroissant is not installed: uv sync")
    found = mlc.Dataset(jsonld=there / "croissant.json")
    issues = found.metadata.ctx.issues
    assert not issues.errors
    assert [line for line in issues.warnings if "datePublished" not in line and "date_published" not in line] == []
    assert {each.name for each in found.metadata.record_sets} == {
        *(path.name.removesuffix(".csv.gz") for path in raw_tables(project)),
        "radiographs-read",
    }
    for name, below in (("patients", "hosp"), ("icustays", "icu")):
        raw = pl.read_csv(project / RAW / f"mimiciv/{below}/{name}.csv.gz")
        rows = [{key.split("/")[1]: value for key, value in row.items()} for row in found.records(name)]
        assert len(rows) == raw.height
        assert [row["subject_id"] for row in rows] == raw["subject_id"].to_list()
    assert [str(row["intime"]) for row in rows] == raw["intime"].to_list()
    pictures = list(found.records("radiographs-read"))
    metadata = pl.read_csv(project / RAW / "mimic-cxr-jpg/mimic-cxr-2.0.0-metadata.csv.gz")
    assert {row["radiographs-read/dicom_id"].decode() for row in pictures} == set(metadata["dicom_id"])
    assert max(pictures[0]["radiographs-read/image"].size) == 24


def test_other_data_are_not_described(project, tmp_path):
    listed = json.loads((project / "data/manifest.json").read_text())
    listed["mimic_cxr"] |= {"kind": "mimic", "release": "MIMIC-CXR-JPG 2.0.0"}
    (tmp_path / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(InputError) as told:
        write_croissant(tmp_path, tmp_path / "out")
    line = "croissant: data.mimic_cxr is MIMIC-CXR-JPG 2.0.0: it describes the synthetic hospital alone"
    assert str(told.value) == line
    assert not (tmp_path / "out").exists()


def test_a_file_that_has_changed_is_not_described(project, tmp_path):
    own = shutil.copytree(project, tmp_path / "own")
    table = f"{RAW}/mimiciv/hosp/patients.csv.gz"
    (own / table).write_bytes(gzip.compress(b"subject_id\n1\n"))
    with chdir(own), pytest.raises(InputError) as told:
        write_croissant(own / "data", tmp_path / "out")
    assert str(told.value) == f"{table}: not the file that data/manifest.json lists; run the stage manifest again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]
