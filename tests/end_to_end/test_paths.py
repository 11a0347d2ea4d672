"""A wrong raw folder through `dvc repro` in a small project: our line, of `paths`, before DVC misses a dependency."""

import shutil
import subprocess

import pytest
import yaml

from tests.end_to_end.project import call, copy_project, environment

pytestmark = pytest.mark.slow
METADATA = "mimic-cxr-2.0.0-metadata.csv"


@pytest.fixture(scope="module")
def small(root, tmp_path_factory):
    """A project with the built-in hospital alone, and a copy of it in raw/ outside of it, as it comes and damaged."""
    above = tmp_path_factory.mktemp("paths")
    copy_project(root, above / "project")
    call(above / "project", "git", "init", "-q", "-b", "main")
    call(above / "project", "dvc", "repro", "-q", "paths")
    shutil.copytree(above / "project/data/raw/synthetic", above / "raw")
    for name, suffix in (("none", None), ("plain", ".csv")):
        shutil.copytree(above / "raw/mimic-cxr-jpg", above / f"raw/{name}", ignore=shutil.ignore_patterns("files"))
        table = above / f"raw/{name}/{METADATA}.gz"
        table.rename(table.with_suffix("")) if suffix else table.unlink()
    (above / "raw/iii").mkdir()
    (above / "raw/iii/CHARTEVENTS.csv.gz").touch()
    return above


@pytest.mark.parametrize(
    ("mimiciv", "mimic_cxr", "words"),
    [
        ("nowhere", "mimic-cxr-jpg", "data.mimiciv: {raw}/nowhere: no such folder"),
        (
            "mimic-cxr-jpg",
            "mimiciv",
            "data.mimiciv: {raw}/mimic-cxr-jpg: has no folder hosp/; it holds MIMIC-CXR-JPG: "
            "are data.mimiciv and data.mimic_cxr swapped?",
        ),
        (
            "iii",
            "mimic-cxr-jpg",
            "data.mimiciv: {raw}/iii: has no folder hosp/; it looks like MIMIC-III, which is not read",
        ),
        ("mimiciv/hosp", "mimic-cxr-jpg", "data.mimiciv: {raw}/mimiciv/hosp: name the folder above hosp/ and icu/"),
        ("mimiciv", "none", "data.mimic_cxr: {raw}/none/" + METADATA + ".gz: not found"),
        (
            "mimiciv",
            "plain",
            "data.mimic_cxr: {raw}/plain/" + f"{METADATA}.gz: not found; {METADATA} is there: set data.cxr_tables",
        ),
    ],
)
def test_a_wrong_folder_is_named_in_our_words(small, mimiciv, mimic_cxr, words):
    project, raw = small / "project", small / "raw"
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"] |= {"mimiciv": f"{raw}/{mimiciv}", "mimic_cxr": f"{raw}/{mimic_cxr}"}
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = subprocess.run(["dvc", "repro", "manifest"], cwd=project, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert f"\npaths: error: {words.format(raw=raw)}\n" in done.stdout + done.stderr
    assert "Errno" not in done.stdout + done.stderr
