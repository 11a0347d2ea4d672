"""Trained runs asked again: of the raw folders that they were trained on, and of others."""

import contextlib
import dataclasses
import functools
import gzip
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from pipeline import params, predict
from pipeline.data.statics import model_variables
from pipeline.data.tensors import load_fold
from pipeline.estimation.bootstrap import draw_subjects
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.scores import in_cohort
from pipeline.prediction.inputs import new_tensors
from pipeline.prediction.stays import foreseeable
from pipeline.questions.which.run import measure
from pipeline.tasks import get_task
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.prepared import TO_AUDIT, prepare
from tests.support.runs import grid, silent

RAW = Path("data/raw/synthetic")
ASKED = {"late_fusion": "mortality", "m3care": "phenotype", "gbm": "los"}  # deep; with a memory of stays; fitted
COHORT = {"late_fusion": "base", "m3care": "matched", "gbm": "matched"}  # few with an image die


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """A small hospital, its packed data and finished runs of the ASKED, of fold 1 in both cohorts."""
    synthetic = params.load(root / "params.yaml").synthetic
    folder = prepare(tmp_path_factory.mktemp("project"), 500, TO_AUDIT, synthetic)
    training = dataclasses.replace(params.load(folder / "params.yaml").training, device="cpu", checkpoint_seconds=0.0)
    store = Store(folder / "work", data_fingerprint(folder / "data"))
    for strategy, task in ASKED.items():
        for spec in grid(training, strategy, task, folds=(1,), max_epochs=2):
            make_run(spec, store, folder / "data", silent)
    return folder


def run_of(project, strategy, cohort="base"):
    """The name of a run in the store."""
    for path in sorted((project / "work/runs").iterdir()):
        spec = json.loads((path / "spec.json").read_text())["spec"]
        if (spec["strategy"], spec["train_cohort"]) == (strategy, cohort):
            return path.name
    raise AssertionError(strategy)


def call(project, *arguments):
    """The command in the project; what it writes on ending early, or None."""
    with contextlib.chdir(project), mock.patch.object(sys, "argv", ["predict", *map(str, arguments)]):
        try:
            predict.main()
        except SystemExit as end:
            return str(end.code)
    return None


def asked(project, run, out, raw=RAW, *more):
    folders = "--mimiciv", raw / "mimiciv", "--mimic-cxr", raw / "mimic-cxr-jpg"
    return call(project, run, *folders, "--out", out, *more)


def answers(project, run, out="answers.parquet", raw=RAW, *more):
    """What the command writes for a run: the answers, and the account of them."""
    assert asked(project, run, out, raw, *more) is None
    return pl.read_parquet(project / out), json.loads((project / f"{out}.json").read_text())


@pytest.fixture(scope="module")
def own_answers(project):
    """`answers` of a run for the raw folders that it was trained on, asked once."""
    return functools.cache(functools.partial(answers, project))


@pytest.fixture(autouse=True)
def own_store(project, monkeypatch):
    monkeypatch.setenv("FUSION_WORK", str(project / "work"))
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.mark.parametrize("cohort", ["base", "matched"])
@pytest.mark.parametrize("strategy", ASKED)
def test_a_stay_of_the_training_data_is_answered_as_it_was_stored(project, own_answers, strategy, cohort):
    run = run_of(project, strategy, cohort)
    found, account = own_answers(run)
    stored = load_file(project / "work/runs" / run / "predictions.safetensors")
    p = [name for name in found.columns if name.startswith("p_")]
    own = pl.DataFrame({"stay_id": stored["stay_id"]}).join(found, on="stay_id", how="left", maintain_order="left")
    assert own.height > 50
    assert own.select(p).to_numpy().tobytes() == np.ascontiguousarray(stored["p"]).tobytes()
    assert account["run"] == run
    assert not [line for line in account["warnings"] if line.startswith("heart_rate")]
    assert found["stay_id"].is_sorted()
    assert found.height >= own.height


@pytest.mark.parametrize("strategy", ASKED)
def test_temperature_and_thresholds_are_those_of_the_evaluation(project, own_answers, strategy):
    task, data, run = get_task(ASKED[strategy]), project / "data", run_of(project, strategy, COHORT[strategy])
    _, account = own_answers(run)
    people = read_people(data, [task], [1], ["los_days"])
    stored = load_file(project / "work/runs" / run / "predictions.safetensors")
    p = {f"p_{name}": stored["p"][:, i].astype(np.float64) for i, name in enumerate(task.outputs)}
    rows = people.join(pl.DataFrame({"stay_id": stored["stay_id"], **p}), on="stay_id").with_columns(seed=0)
    validation, test = (rows.filter(pl.col("part") == part, in_cohort(COHORT[strategy])) for part in ("val", "test"))
    draws = draw_subjects(test["subject_id"].to_numpy(), 2, 0, "test", 1)
    values, _ = measure(task, test, validation, draws, 5, 30.0)
    assert account["temperature"] == pytest.approx(float(values["temperature",][0]), abs=1e-8)
    if task.name == "mortality":
        cut, said = account["thresholds"]["icu_mortality"], validation["p_icu_mortality"]
        truth = validation["icu_mortality"]
        scores = {t: (2 * ((said >= t) & truth).sum()) / ((said >= t).sum() + truth.sum()) for t in said}
        assert scores[min(said, key=lambda t: abs(t - cut))] == max(scores.values())


def test_columns_tell_what_was_said_and_what_was_missing(project, own_answers):
    found, account = own_answers(run_of(project, "late_fusion"))
    assert found.columns == [
        *("stay_id", "subject_id", "hadm_id", "intime", "p_icu_mortality", "calibrated_icu_mortality"),
        *("above_icu_mortality", "record_empty", "image_absent", "hours_charted", "variables_charted"),
    ]
    said = np.clip(found["p_icu_mortality"].to_numpy().astype(float), 1e-6, 1 - 1e-6)
    odds = np.log(said / (1 - said)) / account["temperature"]
    assert found["calibrated_icu_mortality"].to_numpy() == pytest.approx(1 / (1 + np.exp(-odds)))
    above = found["p_icu_mortality"].cast(pl.Float64) >= account["thresholds"]["icu_mortality"] - 1e-9
    assert found["above_icu_mortality"].equals(above.alias("above_icu_mortality"))
    stays = pl.read_parquet(project / "data/cohort/stays.parquet").select("stay_id", "has_cxr")
    values = dict(zip(stays["stay_id"], np.load(project / "data/series/values.npy"), strict=True))
    for row in found.join(stays, on="stay_id").iter_rows(named=True):
        there = ~np.isnan(values[row["stay_id"]])
        assert row["hours_charted"] == there.any(axis=1).mean()
        assert row["variables_charted"] == there.any(axis=0).mean()
        assert row["record_empty"] is bool(not there.any())
        assert row["image_absent"] is not row["has_cxr"]


def changed(project, folder, name, change):
    """A copy of the raw folders in which `change` has made other lines of a table."""
    shutil.copytree(project / RAW, folder, dirs_exist_ok=True)
    path = folder / "mimiciv" / f"{name}.csv.gz"
    head, *rows = gzip.decompress(path.read_bytes()).decode().splitlines()
    places = {column: i for i, column in enumerate(head.split(","))}
    path.write_bytes(gzip.compress("\n".join([head, *change(rows, places)]).encode() + b"\n"))
    return folder


@pytest.mark.slow
def test_neither_diagnoses_nor_a_known_outcome_are_needed(project, own_answers, tmp_path):
    """The same answers; and a stay whose admission has a second one, which only the future told."""
    before, _ = own_answers(run_of(project, "late_fusion"))
    raw = tmp_path / "raw"
    shutil.copytree(project / RAW, raw)
    (raw / "mimiciv/hosp/diagnoses_icd.csv.gz").unlink()
    found, account = answers(project, run_of(project, "late_fusion"), "without.parquet", raw)
    assert found.equals(before)
    assert not [step for step in account["attrition"] if "only ICU stay" in step["step"] or "same unit" in step["step"]]
    assert account["attrition"][-1]["stays"] == found.height
    training = pl.read_parquet(project / "data/cohort/stays.parquet")
    more = found.filter(~pl.col("stay_id").is_in(training["stay_id"].implode()))
    assert more.height
    assert more["p_icu_mortality"].is_finite().all()


def test_rules_that_look_into_the_future_are_not_asked(root):
    rules = params.load(root / "params.yaml").cohort
    assert rules.rules == params.CohortPreset("only_of_admission", same_unit=True)
    longer = dataclasses.replace(rules, min_stay_hours=72.0, alive_at_hours=96.0)
    known = foreseeable(longer)
    assert known.rules == params.CohortPreset("first_of_admission", same_unit=False)
    assert (known.min_stay_hours, known.alive_at_hours) == (48, 48)
    whole = dataclasses.replace(rules, preset="x", presets={"x": params.CohortPreset("first_of_subject", True)})
    assert foreseeable(whole).rules == params.CohortPreset("first_of_subject", same_unit=False)


@pytest.mark.slow
def test_values_outside_of_the_training_range_and_uncharted_variables_are_told(project, tmp_path):
    def shifted(rows, places):
        """Heart rates trebled, as in another unit; no respiratory rate."""
        item, number, text = places["itemid"], places["valuenum"], places["value"]
        for row in rows:
            cells = row.split(",")
            if cells[item] == "220045" and cells[number]:
                cells[number] = cells[text] = str(float(cells[number]) * 3)
            if cells[item] not in ("220210", "224690"):
                yield ",".join(cells)

    raw = changed(project, tmp_path / "raw", "icu/chartevents", shifted)
    _, account = answers(project, run_of(project, "late_fusion"), "odd.parquet", raw)
    told = {line.split(":")[0]: line for line in account["warnings"]}
    assert {"heart_rate", "resp_rate"} <= set(told)
    assert "lie outside of 0.1% to 99.9% of the training values" in told["heart_rate"]
    assert told["resp_rate"].startswith("resp_rate: charted in no stay, in training in 1")
    (rate,) = [row for row in account["variables"] if row["variable"] == "heart_rate"]
    splits = pl.read_parquet(project / "data/splits.parquet").filter(fold=1).sort("stay_id")
    trained = np.load(project / "data/series/values.npy")[(splits["part"] == "train").to_numpy(), :, 0].astype(float)
    low, high = np.nanquantile(trained, [0.001, 0.999])
    assert (rate["low"], rate["high"]) == (pytest.approx(low, abs=1e-8), pytest.approx(high, abs=1e-8))
    assert rate["outside"] > 0.5


@pytest.mark.slow
def test_without_any_image_of_the_stays_the_record_answers(project, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(project / RAW, raw)
    path = raw / "mimic-cxr-jpg/mimic-cxr-2.0.0-metadata.csv.gz"
    frame = pl.read_csv(path, infer_schema=False).with_columns(ViewPosition=pl.lit("LATERAL"))
    path.write_bytes(gzip.compress(frame.write_csv().encode()))
    found, _ = answers(project, run_of(project, "late_fusion"), "record.parquet", raw)
    assert found["image_absent"].all()
    assert found["p_icu_mortality"].is_finite().all()


@pytest.mark.parametrize("statics", [False, True])
def test_tensors_are_those_of_training(project, statics):
    (spec, _) = grid(params.load(project / "params.yaml").training, folds=(1,))
    spec = dataclasses.replace(spec, training=dataclasses.replace(spec.training, statics=statics))
    data = project / "data"
    own = load_fold(data, 1, get_task(spec.task), model_variables("core", statics), "mcar")
    new = new_tensors(data, data, spec)
    for name in ("row", "hours", "view"):
        assert np.array_equal(getattr(new.places, name), getattr(own.places, name)), name
    for name in ("stay_id", "image_count", "pixels"):
        mine, theirs = getattr(new, name), getattr(own, name)
        assert mine.dtype == theirs.dtype, name
        assert np.array_equal(mine, theirs), name
    for name in ("ehr", "observed", "since"):
        assert np.array_equal(getattr(new.series, name), getattr(own.series, name)), name
    assert np.isnan(new.targets).all()


def test_csv_holds_the_same_numbers(project, own_answers):
    run = run_of(project, "gbm")
    found, _ = own_answers(run)
    assert asked(project, run, "answers.csv") is None
    read = pl.read_csv(project / "answers.csv", try_parse_dates=True)
    assert read.columns == found.columns
    assert read["calibrated_los_3"].to_numpy() == pytest.approx(found["calibrated_los_3"].to_numpy(), abs=1e-9)


def test_nothing_else_is_left_behind(project):
    answers(project, run_of(project, "gbm"), "alone/answers.parquet")
    assert sorted(path.name for path in (project / "alone").iterdir()) == ["answers.parquet", "answers.parquet.json"]


def test_the_list_names_runs_of_these_data(project, capsys):
    assert call(project, "--list") is None
    head, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["strategy", "task", "cohort", "fold", "seed", "removed", "data", "code", "run"]
    run = run_of(project, "m3care", "matched")
    assert ["m3care", "phenotype", "matched", "1", "0", "none", "here", "current", run] in rows
    assert len(rows) == len(list((project / "work/runs").iterdir()))


def test_a_list_of_nothing_says_who_makes_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSION_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(sys, "argv", ["predict", "--list"])
    predict.main()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"no finished run in {tmp_path / 'work' / 'runs'}: dvc repro makes them\n")


def test_what_cannot_be_answered_is_told_in_a_line(project, tmp_path, monkeypatch):
    run = run_of(project, "late_fusion")
    names = sorted(path.name for path in (project / "work/runs").iterdir())
    assert asked(project, "zzz", "a.csv") == (
        f"predict: error: zzz: no such run in {project / 'work' / 'runs'}; --list prints those that are there"
    )
    assert asked(project, "", "a.csv") == "predict: error: RUN: missing; --help tells more"
    assert call(project, run, "--mimiciv", "x") == "predict: error: --mimic-cxr: missing; --help tells more"
    assert asked(project, run, "a.xlsx") == "predict: error: --out: a.xlsx: must end in .parquet or .csv"
    raw = tmp_path / "raw"
    assert asked(project, run, "a.csv", raw) == f"predict: error: data.mimiciv: {raw}/mimiciv: no such folder"
    shutil.copytree(project / RAW, raw)
    (raw / "mimiciv/icu/outputevents.csv.gz").unlink()
    path = f"{raw}/mimiciv/icu/outputevents.csv.gz"
    assert asked(project, run, "a.csv", raw) == f"predict: error: data.mimiciv: {path}: not found (.csv neither)"
    assert not list(project.glob("a.csv*"))

    work = tmp_path / "work"
    shutil.copytree(project / "work", work)
    monkeypatch.setenv("FUSION_WORK", str(work))
    for twin in ("abcd1", "abcd2"):
        shutil.copytree(work / "runs" / run, work / "runs" / twin)
    assert asked(project, "abcd", "a.csv") == "predict: error: abcd: ambiguous: abcd1, abcd2"
    (work / "runs/abcd1/weights.safetensors").unlink()
    gone = work / "runs/abcd1/weights.safetensors"
    assert asked(project, "abcd1", "a.csv") == f"predict: error: {gone}: not found; the run must be made again"
    (work / "runs/abcd2/result.json").unlink()
    assert asked(project, "abcd2", "a.csv").startswith(f"predict: error: {work}/runs/abcd2: not finished")
    spec = json.loads((work / "runs" / names[0] / "spec.json").read_text())
    (work / "runs" / names[0] / "spec.json").write_text(json.dumps(spec | {"data": "of another scale"}))
    assert asked(project, names[0], "a.csv") == (
        f"predict: error: {names[0]}: was trained on other data than lie in data (another scale, cohort or release); "
        "make its own again: dvc repro audit"
    )


def test_rules_of_training_are_those_it_was_made_by_not_those_of_params_now(project, own_answers):
    run = run_of(project, "late_fusion")
    before, _ = own_answers(run)
    changes = "-S", "series.lab_time=charttime", "-S", "cohort.min_age_years=90", "-S", "scales.tiny.images.px=16"
    found, account = answers(project, run, "again.parquet", RAW, *changes)
    assert found.equals(before)
    assert account["attrition"][3]["step"] == "age 18 to 120 years"
    kept = project / "data/series/rules.json"
    kept.rename(kept.with_suffix(".away"))
    try:
        assert asked(project, run, "a.csv") == (
            "predict: error: data/series/rules.json: not found; make it with `dvc repro series`"
        )
    finally:
        kept.with_suffix(".away").rename(kept)


def test_other_code_is_told(project, tmp_path, monkeypatch, caplog):
    work, run = tmp_path / "work", run_of(project, "gbm")
    shutil.copytree(project / "work", work)
    path = work / "runs" / run / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "1.0"}))
    monkeypatch.setenv("FUSION_WORK", str(work))
    _, account = answers(project, run)
    assert account["current"] is False
    assert "made with other code or versions" in caplog.text


@pytest.mark.slow
def test_a_part_of_the_stays_is_answered_as_all_of_them_are(project, own_answers, tmp_path):
    run = run_of(project, "m3care")
    every, _ = own_answers(run)

    def a_third(rows, places):
        return [row for row in rows if int(row.split(",")[places["subject_id"]]) % 3 == 0]

    raw = changed(project, tmp_path / "raw", "icu/icustays", a_third)
    found, _ = answers(project, run, "some.parquet", raw)
    assert 0 < found.height < every.height / 2
    own = found.select("stay_id").join(every, on="stay_id", how="left", maintain_order="left")
    p = [name for name in found.columns if name.startswith("p_")]
    assert own.select(p).to_numpy() == pytest.approx(found.select(p).to_numpy(), abs=1e-6)
