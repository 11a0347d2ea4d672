"""Raw folders of one's own, through `dvc repro`: who says what is missing, and when a file that returns is seen."""

import json
import shutil
import subprocess

import polars as pl
import pytest
import yaml

from pipeline.mimic.jpegs import with_path
from tests.end_to_end.project import environment

FINDINGS, METADATA = (f"mimic-cxr-2.0.0-{name}.csv.gz" for name in ("chexpert", "metadata"))


@pytest.fixture
def own(project, tmp_path):
    """The finished project once more, whose raw data lie outside of it, in `raw/`."""
    shutil.copytree(project, tmp_path / "project", symlinks=True)
    shutil.copytree(project / "data/raw/synthetic", tmp_path / "raw")
    choose(tmp_path / "project", "data", mimiciv=f"{tmp_path}/raw/mimiciv", mimic_cxr=f"{tmp_path}/raw/mimic-cxr-jpg")
    return tmp_path / "project"


def choose(folder, block, **values):
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params[block] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def repro(folder, stage):
    """Its words, and whether it succeeded."""
    done = subprocess.run(["dvc", "repro", stage], cwd=folder, env=environment(), capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode == 0


def test_a_wrong_folder_or_an_absent_table_is_named_before_dvc_misses_it(own):
    choose(own, "data", mimiciv="nowhere")
    text, well = repro(own, "manifest")
    assert not well
    assert "\npaths: error: data.mimiciv: nowhere: no such folder\n" in text
    assert "Errno" not in text
    choose(own, "data", mimiciv=str(own.parent / "raw/mimiciv"))
    table = own.parent / "raw/mimic-cxr-jpg" / METADATA
    table.rename(table.with_name("aside"))
    text, well = repro(own, "manifest")
    assert not well
    assert f"\npaths: error: data.mimic_cxr: {table}: not found\n" in text
    assert "Errno" not in text


@pytest.mark.slow
def test_optional_tables_may_be_absent_and_a_change_of_theirs_counts_once_paths_has_looked_again(own):
    table = own.parent / "raw/mimic-cxr-jpg" / FINDINGS
    for name in ("chexpert", "negbio", "split"):
        path = table.with_name(table.name.replace("chexpert", name))
        path.rename(path.with_name(f"{name}-aside"))

    def rows():
        assert repro(own, "ingest")[1]
        return pl.read_parquet(own / "data/interim/cxr_findings.parquet").height

    assert rows() == 0
    table.with_name("chexpert-aside").rename(table)
    assert rows() == 0  # docs/bad-input.md, Not noticed
    subprocess.run(["dvc", "repro", "-q", "-f", "-s", "paths"], cwd=own, env=environment(), check=True)
    assert rows() > 0


def test_an_image_that_was_left_out_is_used_once_it_is_back(own):
    links = with_path(pl.read_parquet(own / "data/cohort/cxr.parquet"))
    image = own.parent / "raw/mimic-cxr-jpg" / links["path"][0]
    image.rename(image.with_name("aside"))
    text, well = repro(own, "images")
    assert not well
    assert f"images: error: {image}: not found (images.skip: [damaged] leaves such images out)" in text

    def left_out():
        assert repro(own, "images")[1]
        return json.loads((own / "reports/data/images.json").read_text())["left_out"]["images"]

    choose(own, "images", skip=["damaged"])
    assert left_out() == 1
    assert "Stage 'images' didn't change" in repro(own, "images")[0]
    image.with_name("aside").rename(image)
    assert left_out() == 0
    assert pl.read_parquet(own / "data/images/index.parquet").height == links.height
    choose(own, "images", skip=[])
    assert left_out() == 0
    assert [path.name for path in (own / "data/given").glob("*.json")] == ["tables.json"]
    text, _ = repro(own, "images")
    assert "Stage 'images' didn't change" in text
    assert "watch" not in text
