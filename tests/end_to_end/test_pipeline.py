"""The whole pipeline, tiny, as a user runs it: `dvc repro` in a copy of the project, in a temporary folder."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.mimic.schema import FINDINGS
from pipeline.mimic.variables import load_variables
from pipeline.tasks import phenotype_slugs
from stages import INTERRUPTED
from tests.end_to_end.project import STRATEGIES, TRAINED, TRIALS, call, commit, environment
from tests.support.processes import group, wait_until

RUNS = 2 * 3 * len(TRAINED)  # of two cohorts and three tasks


def test_the_report_is_made_and_says_that_it_is_synthetic(project):
    page = (project / "reports/index.html").read_text()
    assert "SYNTHETIC" in page
    for name in STRATEGIES:
        assert name in page
    for family in ("dev", "test"):
        for task in ("mortality", "phenotype", "los"):
            found = json.loads((project / f"reports/metrics/{family}/{task}.json").read_text())
            assert set(found) == {*STRATEGIES, "autoprognosis_m"}


def test_the_audit_passed_and_the_cohort_is_not_empty(project):
    checks = json.loads((project / "reports/audit.json").read_text())["checks"]
    assert checks
    assert all(check["passed"] for check in checks)
    stays = pl.read_parquet(project / "data/cohort/stays.parquet")
    assert stays.height > 50
    assert 0.2 < stays["has_cxr"].mean() < 0.7


CORE = load_variables("core")
KINDS = {
    "int": pl.Int32,
    "short": pl.Int16,
    "byte": pl.Int8,
    "text": pl.String,
    "float": pl.Float64,
    "flag": pl.Boolean,
}
KINDS |= {"time": pl.Datetime("us"), "date": pl.Date}


def columns(text: str) -> dict[str, pl.DataType]:
    """`int: a b; text: c` as a schema."""
    groups = [group.split(":") for group in text.split(";")]
    return {name: KINDS[kind.strip()] for kind, names in groups for name in names.split()}


# docs/artefacts.md: the key, by which a table is sorted (none: by all columns), and the columns in their order.
TABLES = {
    "interim/patients": ("subject_id", "int: subject_id; text: gender; int: anchor_age anchor_year;"
                         "text: anchor_year_group; date: dod"),
    "interim/admissions": ("hadm_id", "int: subject_id hadm_id; time: admittime dischtime deathtime;"
                           "text: admission_type admission_location insurance language race;"
                           "short: hospital_expire_flag"),
    "interim/icustays": ("stay_id", "int: subject_id hadm_id stay_id; text: first_careunit last_careunit;"
                         "time: intime outtime"),
    "interim/diagnoses": ("hadm_id seq_num icd_version icd_code", "int: subject_id hadm_id seq_num; short: icd_version;"
                          "text: icd_code"),
    "interim/chart": ("", "int: stay_id; time: charttime; int: itemid; text: value; float: valuenum"),
    "interim/output": ("", "int: stay_id; time: charttime; int: itemid; float: value"),
    "interim/lab": ("", "int: stay_id; time: charttime available; int: itemid; float: valuenum"),
    "interim/cxr_metadata": ("dicom_id", "text: dicom_id; int: subject_id study_id; text: procedure view_position;"
                             "int: rows columns; time: study_time"),
    "interim/cxr_findings": ("study_id", "int: study_id subject_id"),
    "cohort/stays": ("stay_id", "int: stay_id subject_id hadm_id; time: intime outtime; float: los_days; int: age;"
                     "text: gender race_group admission_group admission_type insurance era; short: icd_version;"
                     "text: first_careunit; flag: has_cxr; text: cxr_status"),
    "cohort/cxr": ("stay_id rank", "int: stay_id rank; text: dicom_id; int: study_id subject_id; time: cxr_time;"
                   "float: hours_from_intime; text: view"),
    "cohort/labels": ("stay_id", "int: stay_id; flag: icu_mortality hospital_mortality; byte: los_class"),
    "series/hourly": ("stay_id hour", "int: stay_id; byte: hour"),
    "images/index": ("row", "int: row stay_id; text: dicom_id; float: hours_from_intime; text: view;"
                     "int: rank height width; text: sha256"),
    "exposure": ("subject_id", "int: subject_id; flag: saw"),
    "splits": ("stay_id fold", "int: stay_id; byte: fold; int: subject_id; text: part"),
    "masks": ("stay_id fold modality mechanism", "int: stay_id; byte: fold; text: modality mechanism;"
              "float: removed_at"),
}  # fmt: skip
MORE = {  # columns that other files name
    "interim/cxr_findings": dict.fromkeys(FINDINGS, pl.Float64),
    "cohort/labels": dict.fromkeys(phenotype_slugs(), pl.Boolean),
    "series/hourly": {v.name: pl.String if v.kind == "category" else pl.Float64 for v in CORE},
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_columns_types_and_order_of_its_contract(project, name):
    key = TABLES[name][0].split()
    schema = columns(TABLES[name][1]) | MORE.get(name, {})
    frame = pl.read_parquet(project / f"data/{name}.parquet")
    assert frame.height or name == "exposure"  # without an encoder in use nobody is told apart
    assert dict(frame.schema) == schema
    assert frame.columns == list(schema)
    assert frame.equals(frame.sort(key or frame.columns, nulls_last=True))
    if key:
        assert frame.select(key).is_unique().all()
        assert not any(frame.select(key).null_count().row(0))


def test_every_table_stands_in_the_contracts_and_with_its_columns_in_their_document(project):
    data = project / "data"
    found = {path.relative_to(data).with_suffix("").as_posix() for path in data.rglob("*.parquet")}
    assert {
        name for name in found if not name.startswith(("runs/", "ensembles/", "ablations/", "probes/", "truth/"))
    } == set(TABLES)
    text = (project / "docs/artefacts.md").read_text()
    for name, (_, names) in TABLES.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `data/{name}.parquet`")]
        assert [column for column in columns(names) if column not in re.findall(r"\w+", row)] == [], name


def test_an_ensemble_has_the_form_of_a_train_cell(project):
    cells = project / "data/runs/lstm", project / "data/ensembles/autoprognosis_m"
    theirs, own = (json.loads((cell / "card.json").read_text()) for cell in cells)
    assert set(own) - set(theirs) == {"group"}
    assert own["needs"] == sorted(STRATEGIES)
    for task in ("mortality", "phenotype", "los"):
        theirs, own = (pl.read_parquet(cell / task / "predictions.parquet") for cell in cells)
        assert own.schema == theirs.schema
        about = [name for name in own.columns if not name.startswith("p_")]
        assert own.select(about).equals(theirs.select(about))
    weights = pl.read_csv(project / "reports/tables/ensemble.csv")
    assert set(weights["component"]) == {*STRATEGIES, "best_single", "unweighted_mean", "greedy", "tpe"}
    assert "autoprognosis_m" in (project / "reports/index.html").read_text()


def test_the_artefacts_fit_together(project):
    tables = {name: pl.read_parquet(project / f"data/{name}.parquet") for name in TABLES}
    stays, cxr, index, splits = (tables[name] for name in ("cohort/stays", "cohort/cxr", "images/index", "splits"))
    assert tables["cohort/labels"]["stay_id"].equals(stays["stay_id"])
    assert splits["stay_id"].unique().sort().equals(stays["stay_id"])
    assert splits["fold"].unique().sort().to_list() == [0, 1, 2, 3, 4]
    first = cxr.filter(rank=1)
    assert first["stay_id"].equals(stays.filter("has_cxr")["stay_id"])
    assert (cxr["rank"] == cxr.select(pl.int_range(1, pl.len() + 1).over("stay_id")).to_series()).all()
    assert index["row"].to_list() == list(range(first.height))
    for column in ("stay_id", "dicom_id", "hours_from_intime", "view"):
        assert index[column].equals(first[column]), column
    pixels = np.load(project / "data/images/pixels.npy", mmap_mode="r")
    assert (pixels.dtype, pixels.shape) == (np.uint8, (first.height, 16, 16))
    values = np.load(project / "data/series/values.npy", mmap_mode="r")
    assert (values.dtype, values.shape) == (np.float32, (stays.height, 48, len(CORE)))
    statistics = json.loads((project / "data/series/statistics.json").read_text())
    assert set(statistics) == {"0", "1", "2", "3", "4"}
    for fold in statistics.values():
        assert set(fold) == {v.name for v in CORE if v.kind != "category"}
        assert all(set(entry) == {"median", "iqr", "scale", "count"} for entry in fold.values())
    masks = tables["masks"]
    assert masks["removed_at"].is_between(0, 1, closed="left").all()
    kinds = masks.group_by("modality", "mechanism").agg(pl.col("stay_id").n_unique(), rows=pl.len())
    images, everyone = first.height, stays.height
    assert set(kinds.rows()) == {
        ("cxr", "mcar", images, 5 * images),
        ("cxr", "mar", images, 5 * images),
        ("ehr", "mcar", everyone, 5 * everyone),
    }


def test_a_leak_ends_in_one_line_and_leaves_no_verdict_and_no_id_in_the_report(project, tmp_path):
    shutil.copytree(project / "data", tmp_path / "data", ignore=shutil.ignore_patterns("raw", "runs", "truth"))
    shutil.copy(project / "params.yaml", tmp_path)
    labels = pl.read_parquet(tmp_path / "data/cohort/labels.parquet")
    (tmp_path / "data/cohort/labels.parquet").unlink()  # DVC may have made it read-only
    labels[1:].write_parquet(tmp_path / "data/cohort/labels.parquet")
    done = subprocess.run(
        [sys.executable, "-m", "stages.audit"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    first = labels["stay_id"][0]
    assert done.stderr == (
        "audit: error: leak: stays_without_series: without a row in labels.parquet: 1 stay_id(s), "
        f"the first stay_id {first}\n"
    )
    assert not (tmp_path / "data/audit.ok").exists()
    report = (tmp_path / "reports/audit.json").read_text()
    assert "1 stay_id(s)" in report
    assert str(first) not in report


def test_a_leak_stops_dvc_before_any_training_and_its_mending_lets_it_go_on(project):
    """The leak is in the code: some stays change their part by their own id, not by their subject's."""
    path = project / "pipeline/data/splits.py"
    before = path.read_text()
    leaky = before.replace(
        '.sort("stay_id", "fold")\n    )\n\n\ndef balance',
        '.sort("stay_id", "fold")\n        .with_columns(pl.when(pl.col("stay_id") % 2 == 0).then(pl.lit("train"))'
        '.otherwise("part").alias("part"))\n    )\n\n\ndef balance',
    )
    assert leaky != before
    runs = sorted(path.name for path in (project / "work/runs").iterdir())
    path.write_text(leaky)
    try:
        done = subprocess.run(
            ["dvc", "repro", "train@lstm"],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        text = done.stdout + done.stderr
        assert "audit: error: leak: subjects_cross_parts: in two parts of a fold" in text
        assert "Traceback" not in text
        assert "Running stage 'train" not in text
        assert not (project / "data/audit.ok").exists()
        assert sorted(path.name for path in (project / "work/runs").iterdir()) == runs
        failed = json.loads((project / "reports/audit.json").read_text())["checks"]
        assert "subjects_cross_parts" in [check["name"] for check in failed if not check["passed"]]
    finally:
        path.write_text(before)
        call(project, "dvc", "repro", "-q", "train@lstm")
    assert (project / "data/audit.ok").is_file()


def test_a_second_repro_runs_nothing_and_git_and_dvc_are_clean(project):
    commit(project, "results")
    assert "Data and pipelines are up to date." in call(project, "dvc", "repro")
    assert call(project, "git", "status", "--porcelain") == ""
    assert "up to date" in call(project, "dvc", "status")


def test_a_fresh_clone_is_clean_apart_from_outputs_that_are_not_made(project, tmp_path):
    if call(project, "git", "status", "--porcelain"):
        commit(project, "results")
    call(tmp_path, "git", "clone", "-q", str(project), "clone")
    clone = tmp_path / "clone"
    subprocess.run([sys.executable, "-c", "import pipeline.params"], cwd=clone, check=True)
    assert list(clone.rglob("__pycache__"))  # what a directory dependency must not hash
    status = json.loads(call(clone, "dvc", "status", "--json"))
    for stage, changes in status.items():
        for change in changes:
            assert change != "changed command", stage
            for state in (change.get("changed outs") or change.get("changed deps")).values():
                assert state in ("deleted", "not in cache"), f"{stage}: {change}"


def test_touching_one_strategy_concerns_its_cell_and_the_cost_alone(project):
    """And its probe, which depends on what the cell leaves: the runs under their new names."""
    path = project / "pipeline/strategies/lstm.py"
    before = path.read_text()
    path.write_text(before + "\n# touched\n")
    try:
        status = json.loads(call(project, "dvc", "status", "--json"))
    finally:
        path.write_text(before)
    assert sorted(status) == ["cost", "train@lstm", "tune"]  # which writes the same settings again
    lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert "data/runs/lstm" in [dep["path"] for dep in lock["probe@lstm"]["deps"]]


def test_the_same_runs_come_from_the_run_store_and_are_the_same_bytes(project):
    path = project / "data/runs/late_fusion/mortality/predictions.parquet"
    before = path.read_bytes()
    results = {p: p.stat().st_mtime_ns for p in (project / "work/runs").glob("*/result.json")}
    assert len(results) == RUNS + 3 * (TRIALS - 1) * len(TRAINED)  # of a cohort's trials one is trained with
    call(project, sys.executable, "-m", "stages.train", "late_fusion")
    assert path.read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in (project / "work/runs").glob("*/result.json")} == results


def test_the_plan_finds_all_runs_made(project):
    text = call(project, sys.executable, "-m", "pipeline.plan")
    assert f"in the run store: {RUNS} runs; to be made: 0" in text


def test_a_broken_param_stops_dvc_in_one_line_that_names_it(project):
    path = project / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("val_share: 0.125", "val_share: 1.5"))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "stages.splits"], cwd=project, capture_output=True, text=True, check=False
        )
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert done.stderr == "splits: error: params.yaml: splits.val_share: must be in [0, 1), is 1.5\n"


@pytest.mark.parametrize("seconds", [0.3, 1.2])
def test_ctrl_c_ends_in_one_line_and_leaves_nobody_behind(project, tmp_path, seconds):
    environment = {**os.environ, "FUSION_WORK": str(tmp_path), "FUSION_EXECUTOR": "pool:2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train", "late_fusion"],
        cwd=project,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert re.findall("interrupted; .*", text) == [INTERRUPTED]
    assert "Traceback" not in text
    assert wait_until(lambda: not group(process.pid))


@pytest.mark.slow
def test_another_cohort_map_and_split_go_all_the_way(project, tmp_path):
    """Every stay, images of the day before, the legacy phenotypes and the split by era: from the cohort to the page."""
    folder = tmp_path / "variant"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".git", ".dvc", "runs", "truth", "work", "reports"))
    shutil.copytree(project / "reports/data", folder / "reports/data")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["cohort"]["presets"]["carebench"] = {"stays": "all", "same_unit": False}
    params["cohort"]["cxr_hours_before"] = 24
    params["labels"]["phenotypes"] = "legacy_medfuse"
    params["splits"]["scheme"] = "temporal"
    params["grid"] = {"strategies": ["late_fusion"], "tasks": ["mortality"], "ensembles": []}
    (folder / "params.yaml").unlink()
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    stages = ["cohort", "labels", "series", "images", "splits", "masks", "statistics", "audit"]
    for stage in [*stages, "tune", "train late_fusion", "evaluate", "report"]:
        call(folder, sys.executable, "-m", *f"stages.{stage}".split())
    stays, labels, splits = (
        pl.read_parquet(folder / f"data/{name}.parquet") for name in ("cohort/stays", "cohort/labels", "splits")
    )
    assert stays["hadm_id"].n_unique() < stays.height  # several stays of an admission
    assert set(splits["fold"]) == {0}
    placed = stays.join(splits.select("stay_id", "part"), on="stay_id", validate="1:1")
    assert placed.group_by("subject_id").agg(pl.col("part").n_unique())["part"].max() == 1
    first_year = pl.col("era").str.head(4).cast(pl.Int32)
    assert set(placed["part"]) == {"train", "val", "test", "dev"}
    assert placed.filter(pl.col("part").is_in(["train", "val"]) & (first_year >= 2014)).height == 0
    late = placed.filter(first_year >= 2014)["subject_id"].implode()
    assert placed.filter(pl.col("part") == "test").select(pl.col("subject_id").is_in(late).all()).item()
    shared = labels.join(stays.select("stay_id", "hadm_id"), on="stay_id").group_by("hadm_id")
    assert shared.agg(pl.col(*phenotype_slugs()).n_unique()).drop("hadm_id").max().row(0) == (1,) * 25
    assert pl.read_parquet(folder / "data/cohort/cxr.parquet")["hours_from_intime"].min() < 0
    people = pl.read_parquet(folder / "data/runs/late_fusion/mortality/predictions.parquet")
    assert set(people["fold"]) == {0}
    assert "The scheme is temporal" in (folder / "reports/index.html").read_text()


@pytest.mark.slow
def test_an_edit_of_the_library_is_seen_by_exp_run_temp(project):
    """The copy that DVC makes imports its own library, not the workspace's."""
    if call(project, "git", "status", "--porcelain"):
        commit(project, "results")
    path = project / "pipeline/data/splits.py"
    before = path.read_text()
    path.write_text(before.replace('"dev", subject_id', '"edited", subject_id'))
    try:
        call(project, "dvc", "exp", "run", "--temp", "-n", "edited", "splits")
    finally:
        path.write_text(before)
    refs = call(project, "git", "for-each-ref", "refs/exps", "--format=%(refname)").split()
    (ref,) = [ref for ref in refs if ref.endswith("/edited")]
    locks = [
        yaml.safe_load(text)
        for text in (call(project, "git", "show", f"{ref}:dvc.lock"), (project / "dvc.lock").read_text())
    ]
    edited, own = (lock["stages"]["splits"]["outs"][0]["md5"] for lock in locks)
    assert edited != own
