"""Bad input through DVC in a small project: our line, before DVC misses a dependency or shows a traceback."""

import gzip
import shutil
import subprocess

import pytest
import yaml

from tests.end_to_end.project import call, commit, copy_project, environment

pytestmark = pytest.mark.slow
METADATA = "mimic-cxr-2.0.0-metadata.csv"


def line(number, change):
    """Damage: another line `number`, counted from 1, of a table."""

    def damage(packed):
        lines = gzip.decompress(packed).split(b"\n")
        lines[number - 1] = change(lines[number - 1])
        return gzip.compress(b"\n".join(lines), mtime=0)

    return damage


# by folder: the damage to icu/icustays.csv.gz, the stage that tells it, and its words
DAMAGED = {
    "cut": (lambda packed: packed[:-20], "manifest", "truncated: the compressed data end too early"),
    "header": (
        lambda packed: gzip.compress(gzip.decompress(packed).split(b"\n")[0] + b"\n", mtime=0),
        "manifest",
        "has no rows",
    ),
    "column": (line(1, lambda text: text.replace(b"intime", b"begin")), "manifest", "column intime is missing"),
    "bytes": (line(4, lambda text: text + b"\xff"), "manifest", "line 4: not UTF-8"),
    "id": (
        line(3, lambda text: b"x31" + text[text.index(b",") :]),
        "ingest",
        "line 3: column subject_id: 'x31' is not a number",
    ),
}


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
    for name in ("twice", "short", *DAMAGED):
        shutil.copytree(above / "raw/mimiciv", above / f"raw/{name}")
    (above / "raw/twice/icu/icustays.csv").touch()
    (above / "raw/short/icu/icustays.csv.gz").unlink()
    for name, (damage, _, _) in DAMAGED.items():
        table = above / f"raw/{name}/icu/icustays.csv.gz"
        table.write_bytes(damage(table.read_bytes()))
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
        ("short", "mimic-cxr-jpg", "data.mimiciv: {raw}/short/icu/icustays.csv.gz: not found (.csv neither)"),
        (
            "twice",
            "mimic-cxr-jpg",
            "data.mimiciv: {raw}/twice: has both icu/icustays.csv.gz and icu/icustays.csv; leave one",
        ),
        ("mimiciv", "none", "data.mimic_cxr: {raw}/none/" + METADATA + ".gz: not found"),
        (
            "mimiciv",
            "plain",
            "data.mimic_cxr: {raw}/plain/" + f"{METADATA}.gz: not found; {METADATA} is there: set data.cxr_tables",
        ),
    ],
)
def test_a_wrong_folder_is_named_in_our_words(small, mimiciv, mimic_cxr, words):
    raw = small / "raw"
    point_to(small, f"{raw}/{mimiciv}", f"{raw}/{mimic_cxr}")
    refused(small / "project", f"paths: error: {words.format(raw=raw)}", "repro", "manifest")


def point_to(small, mimiciv, mimic_cxr):
    params = yaml.safe_load((small / "project/params.yaml").read_text())
    params["data"] |= {"mimiciv": mimiciv, "mimic_cxr": mimic_cxr}
    (small / "project/params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def refused(project, words, *command):
    done = subprocess.run(["dvc", *command], cwd=project, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert f"\n{words}\n" in done.stdout + done.stderr
    assert "Errno" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_table_is_named_in_our_words(small, name):
    _, stage, words = DAMAGED[name]
    folder = small / f"raw/{name}"
    point_to(small, str(folder), str(small / "raw/mimic-cxr-jpg"))
    refused(small / "project", f"{stage}: error: {folder}/icu/icustays.csv.gz: {words}", "repro", stage)


def test_an_experiment_says_it_in_the_same_words_and_git_restores_what_it_changed(small):
    project = small / "project"
    point_to(small, str(small / "raw/mimiciv"), str(small / "raw/mimic-cxr-jpg"))
    commit(project, "the raw folders")
    nowhere = small / "nowhere"
    words = f"paths: error: data.mimiciv: {nowhere}: no such folder"
    refused(project, words, "exp", "run", "-S", f"data.mimiciv={nowhere}", "manifest")
    call(project, "git", "checkout", "-q", "params.yaml")
    assert str(nowhere) not in (project / "params.yaml").read_text()
