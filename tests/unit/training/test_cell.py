"""A train cell: what its runs leave behind, for all tasks."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.modelling.registry import names
from pipeline.tasks import get_task
from pipeline.training import executors
from pipeline.training.cell import read_runs, train_cell, write_runs
from pipeline.training.grid import KEY
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.runs import grid, silent


@pytest.mark.parametrize("strategy", names())
@pytest.mark.parametrize("task", ["mortality", "phenotype", "los"])
def test_predictions_are_probabilities_of_all_val_test_and_dev_stays(data, tmp_path, training, strategy, task):
    specs = grid(training, strategy, task, max_epochs=1)
    store = Store(tmp_path / "work", data_fingerprint(data))
    for spec in specs:
        make_run(spec, store, data, silent)
    train_cell(specs, store, data, tmp_path / "out")
    frame = pl.read_parquet(tmp_path / "out" / task / "predictions.parquet")
    splits = pl.read_parquet(data / "splits.parquet").filter((pl.col("fold") == 0) & (pl.col("part") != "train"))
    for cohort in ("base", "matched"):
        rows = frame.filter(pl.col("train_cohort") == cohort).sort("stay_id")
        assert rows["stay_id"].to_list() == splits.sort("stay_id")["stay_id"].to_list()
        assert rows["part"].to_list() == splits.sort("stay_id")["part"].to_list()
    p = frame.select(pl.col("^p_.*$")).to_numpy().astype(float)
    assert p.shape[1] == len(get_task(task).outputs)
    assert ((p >= 0) & (p <= 1)).all()
    if task == "los":
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    history = pl.read_csv(tmp_path / "out" / task / "history.csv")
    assert set(KEY) <= set(history.columns)
    assert history.group_by("train_cohort").agg(pl.col("best").sum())["best"].to_list() == [1, 1]


def test_a_cxr_model_predicts_the_training_prevalence_where_there_is_no_image(data, tmp_path, training):
    spec, store = grid(training, "resnet", "phenotype")[0], Store(tmp_path, data_fingerprint(data))
    make_run(spec, store, data, silent)
    train_cell([spec], store, data, tmp_path / "out")
    frame = pl.read_parquet(tmp_path / "out/phenotype/predictions.parquet")
    without = frame.join(pl.read_parquet(data / "cohort/stays.parquet").filter(~pl.col("has_cxr")), on="stay_id")
    train = pl.read_parquet(data / "splits.parquet").filter((pl.col("fold") == 0) & (pl.col("part") == "train"))
    labels = pl.read_parquet(data / "cohort/labels.parquet").join(train, on="stay_id")
    for slug in get_task("phenotype").labels:
        assert without[f"p_{slug}"].n_unique() == 1
        assert without[f"p_{slug}"][0] == pytest.approx(labels[slug].mean(), abs=1e-5)


def test_runs_of_all_tasks_fill_one_pool_and_each_task_has_its_folder(data, tmp_path, training, monkeypatch):
    asked = []
    monkeypatch.setenv("FUSION_EXECUTOR", "inline")
    work_off = executors.work_off

    def seen(worklist, *rest):
        asked.append([job.spec for job in worklist.open.values()])
        work_off(worklist, *rest)

    monkeypatch.setattr(executors, "work_off", seen)
    specs = [spec for task in ("los", "mortality") for spec in grid(training, "lstm", task, max_epochs=1)]
    train_cell(specs, Store(tmp_path / "work", data_fingerprint(data)), data, tmp_path / "out")
    assert asked == [specs]
    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    each = {f"{task}/{file}" for task in ("los", "mortality") for file in ("predictions.parquet", "history.csv")}
    assert left == each | {"card.json", "runs.json"}


@pytest.fixture(scope="module")
def cell(data, training, tmp_path_factory):
    """(folder, store, specs) of a trained cell."""
    folder = tmp_path_factory.mktemp("cell")
    specs = grid(training, "gbm", "mortality") + grid(training, "gbm", "los", seeds=(0, 7))
    store = Store(folder / "work", data_fingerprint(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_EXECUTOR", "inline")
        train_cell(specs, store, data, folder / "out")
    return folder / "out", store, specs


def test_the_runs_of_a_cell_are_read_as_they_were_asked_for(cell):
    out, store, specs = cell
    assert read_runs(out, store) == specs
    filed = [each["run"] for each in json.loads((out / "runs.json").read_text())]
    assert filed == [store.folder(spec).name for spec in specs]


def test_fewer_tasks_train_nothing_again(cell, data, tmp_path, monkeypatch):
    """grid.tasks may be shortened: the run store answers."""
    out, store, specs = cell
    monkeypatch.setattr(executors, "work_off", None)
    train_cell([spec for spec in specs if spec.task == "los"], store, data, tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["card.json", "los", "runs.json"]
    for name in ("los/predictions.parquet", "los/history.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()


def test_hyper_parameters_survive_to_the_last_digit(tmp_path, training):
    spec = grid(training, "logistic")[0]
    spec = dataclasses.replace(spec, hyper={"c": [1e-17, 0.1, 1 / 3, 2], "flag": True, "name": "x"})
    store = Store(tmp_path / "work", "data")
    write_runs([spec], store, tmp_path)
    assert read_runs(tmp_path, store) == [spec]


def test_runs_made_with_other_data_are_refused_by_name(cell):
    out, store, specs = cell
    with pytest.raises(InputError, match=rf"runs\.json: {specs[0].name} was made with other code, data or versions"):
        read_runs(out, dataclasses.replace(store, data="other"))


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "not found; run the stage train"), ("[{", "cannot be read"), ('[{"run": "x", "spec": {}}]', "missing")],
)
def test_a_list_of_runs_that_is_absent_or_damaged_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "runs.json").write_text(text)
    with pytest.raises(InputError, match=rf"runs\.json: .*{message}"):
        read_runs(tmp_path, Store(tmp_path, "data"))
