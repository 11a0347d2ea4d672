"""The tables of single strategies: curriculum and distillation, by hand from made-up cells."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from pipeline.params import Grid
from pipeline.questions.which.ablations import Source
from pipeline.questions.which.curriculum import SCHEMAS, curriculum
from pipeline.questions.which.distillation import MEAN, SCHEMA, distillation, untaught_twin
from pipeline.tasks import get_task
from tests.support.made_up_runs import fabricate
from tests.support.which import EVALUATION, SCALE

TASKS = ("mortality", "phenotype", "los")
OTHERS = ("late_fusion", "lstm", "transformer", "resnet")
ABLATIONS = {
    "climd": {"unmeasured": {"measure": "none"}},
    "mind": {"untaught": {"teachers": "none"}, "half": {"size": 0.5}},
}
GRID = Grid(("late_fusion", "climd", "mind"), TASKS)
RUNS = [(fold, seed) for fold in SCALE.folds for seed in SCALE.seeds]
TOLD = {
    "own_progress": 0.25,
    "own_drawn_rarest": 0.5,
    "own_drawn_pairs": 0.4,
    "own_score_rarest": 0.3,
    "own_score": 0.6,
}


def add_ablation(data, name, of):
    """data/ablations/NAME: what the strategy `of` predicts, in the matched cohort alone."""
    for path in (data / "runs" / of).rglob("predictions.parquet"):
        out = data / "ablations" / name / path.parent.name
        out.mkdir(parents=True)
        pl.read_parquet(path).filter(train_cohort="matched").write_parquet(out / path.name)
        pl.read_csv(path.with_name("history.csv")).filter(train_cohort="matched").write_csv(out / "history.csv")


def told_by_epoch(path, of):
    """Puts columns of numbers into a history, each times the epoch, and once more in fold 1."""
    frame = pl.read_csv(path)
    factor = pl.col("epoch") * (1 + pl.col("fold"))
    frame.with_columns((value * factor).alias(name) for name, value in of.items()).write_csv(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("mechanisms")
    fabricate(root, SCALE, (*OTHERS, "climd", "mind"), TASKS, stays=1600)
    data = root / "data"
    for strategy, hyper in (("climd", {"base": "late_fusion"}), ("mind", {"teachers": "same", "size": 1.0})):
        (data / "runs" / strategy / "runs.json").write_text(json.dumps([{"run": "x", "spec": {"hyper": hyper}}]))
    cells = {"climd.unmeasured": "late_fusion", "mind.untaught": "lstm", "mind.half": "transformer"}
    cells |= {"mind.teachers_transformer": "transformer", "mind.teachers_resnet": "resnet"}
    for name, of in cells.items():
        add_ablation(data, name, of)
    for task in TASKS:
        for cell in ("runs/climd", "ablations/climd.unmeasured"):
            told_by_epoch(data / cell / task / "history.csv", TOLD)
        monitor = f"val_{get_task(task).monitor}"
        for cell in ("runs/mind", "ablations/mind.untaught", "ablations/mind.half"):
            told_by_epoch(data / cell / task / "history.csv", {f"{monitor}_ehr": 0.2, f"{monitor}_cxr": 0.1})
    counts = [(cell, task, 100 + len(cell)) for cell in ("mind", *cells) for task in TASKS]
    pl.DataFrame(counts, schema=["cell", "task", "parameters"], orient="row").write_csv(
        data / "ablations" / "parameters.csv"
    )
    return data


def source_of(data, grid=GRID, ablations=ABLATIONS):
    return Source.of(data, grid, ablations, SCALE, EVALUATION, 40)


@pytest.fixture(scope="module")
def tables(data):
    return curriculum(source_of(data)) | {"distillation": distillation(source_of(data))}


def rows_of(data, cell, task, fold, seed):
    """The matched test stays of a run, with labels."""
    rows = pl.read_parquet(data / cell / task / "predictions.parquet")
    rows = rows.filter(train_cohort="matched", fold=fold, seed=seed, part="test")
    stays = pl.read_parquet(data / "cohort/stays.parquet").filter("has_cxr").select("stay_id")
    return (
        rows.join(stays, on="stay_id")
        .join(pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id")
        .sort("stay_id")
    )


def thirds(data):
    """Phenotypes by how many of the training stays with an image have them, over both folds."""
    stays = pl.read_parquet(data / "cohort/stays.parquet").filter("has_cxr").select("stay_id")
    train = pl.read_parquet(data / "splits.parquet").filter(pl.col("fold").is_in(SCALE.folds), part="train")
    labels = pl.read_parquet(data / "cohort/labels.parquet")
    counts = (
        train.join(stays, on="stay_id").join(labels, on="stay_id").select(get_task("phenotype").labels).sum().row(0)
    )
    order = [get_task("phenotype").labels[i] for i in np.argsort(counts, kind="stable")]
    return {"rare": order[:9], "middle": order[9:17], "common": order[17:], "all": order}


@pytest.mark.parametrize(("metric", "score"), [("auroc", roc_auc_score), ("auprc", average_precision_score)])
def test_scores_of_rare_and_common_phenotypes_are_means_over_labels_and_runs(data, tables, metric, score):
    cells = {"late_fusion": "runs/late_fusion", "unmeasured": "ablations/climd.unmeasured", "climd": "runs/climd"}
    for stratum, labels in thirds(data).items():
        rows = tables["curriculum"].filter(task="phenotype", stratum=stratum, metric=metric)
        assert rows["variant"].to_list() == list(cells)
        found = {}
        for variant, cell in cells.items():
            runs = [rows_of(data, cell, "phenotype", *of) for of in RUNS]
            found[variant] = np.mean([[score(run[label], run[f"p_{label}"]) for run in runs] for label in labels])
        for row in rows.iter_rows(named=True):
            assert row["labels"] == len(labels)
            assert row["value"] == pytest.approx(found[row["variant"]])
            if row["variant"] == "late_fusion":
                assert row["difference"] is None
            else:
                assert row["difference"] == pytest.approx(found[row["variant"]] - found["late_fusion"], abs=1e-12)


def test_the_difference_of_a_twin_is_0_and_of_another_has_an_interval(tables):
    rows = tables["curriculum"].filter(task="mortality")
    assert set(rows.filter(variant="unmeasured")["difference"]) == {0.0}
    for row in rows.filter(variant="climd").iter_rows(named=True):
        assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_long_stays_are_those_of_six_days_and_more(data, tables):
    for stratum, inside in (
        ("short", pl.col("los_class") < 4),
        ("long", pl.col("los_class") >= 4),
        ("all", pl.lit(True)),
    ):
        runs = [rows_of(data, "runs/climd", "los", *of).filter(inside) for of in RUNS]
        right = [
            accuracy_score(r["los_class"], r.select(f"p_los_{k}" for k in range(7)).to_numpy().argmax(1)) for r in runs
        ]
        rows = tables["curriculum"].filter(task="los", stratum=stratum, variant="climd")
        assert rows["metric"].to_list() == (["accuracy", "kappa"] if stratum == "all" else ["accuracy"])
        assert rows["value"][0] == pytest.approx(np.mean(right))


def test_what_is_drawn_is_the_mean_of_the_runs_epoch_by_epoch(data, tables):
    rows = tables["curriculum_epochs"]
    own = rows.filter(task="los", variant="climd")
    assert own.select("cohort", "epoch").rows() == [(c, e) for c in ("base", "matched") for e in (1, 2, 3)]
    assert rows.filter(task="los", variant="unmeasured")["cohort"].unique().to_list() == ["matched"]
    for row in own.iter_rows(named=True):
        assert row["runs"] == len(RUNS)
        for name, value in TOLD.items():
            assert row[name.removeprefix("own_")] == pytest.approx(value * row["epoch"] * 1.5), name
    history = pl.read_csv(data / "runs/climd/los/history.csv").filter(train_cohort="base", epoch=2)
    assert own.filter(cohort="base", epoch=2)["validation"][0] == pytest.approx(history["val_accuracy"].mean())


def test_without_a_curriculum_nothing_is_drawn_and_without_the_base_nothing_is_compared(data, tmp_path):
    own = shutil.copytree(data, tmp_path / "data")
    path = own / "runs/climd/los/history.csv"
    pl.read_csv(path).drop("own_progress").write_csv(path)
    grid = dataclasses.replace(GRID, strategies=("climd",), tasks=("los",))
    found = curriculum(source_of(own, grid, {}))
    assert found["curriculum_epochs"].height == 0
    assert set(found["curriculum"]["variant"]) == {"climd"}
    assert set(found["curriculum"]["difference"]) == {None}


def test_a_student_is_held_against_its_twin_without_teachers_at_its_own_size(data, tables):
    cells = {"mind": "runs/mind", "untaught": "ablations/mind.untaught", "half": "ablations/mind.half"}
    cells |= {name: f"ablations/mind.{name}" for name in ("teachers_transformer", "teachers_resnet")}
    rows = {
        row["answers"]: row
        for row in tables["distillation"].filter(task="mortality", metric="auroc").iter_rows(named=True)
    }
    assert list(rows) == [*cells, MEAN]
    runs = {name: [rows_of(data, cell, "mortality", *of) for of in RUNS] for name, cell in cells.items()}
    p = {name: [run["p_icu_mortality"].to_numpy().astype(float) for run in each] for name, each in runs.items()}
    p[MEAN] = [(a + b) / 2 for a, b in zip(p["teachers_transformer"], p["teachers_resnet"], strict=True)]
    for name, row in rows.items():
        each = [roc_auc_score(run["icu_mortality"], q) for run, q in zip(runs["mind"], p[name], strict=True)]
        assert row["value"] == pytest.approx(np.mean(each)), name
        student = name in ("mind", "untaught", "half")
        assert row["taught"] == ({"untaught": False}.get(name, True) if student else None)
        apart = np.mean([np.abs(a - b).mean() for a, b in zip(p[name], p[MEAN], strict=True)])
        assert row["apart"] == (pytest.approx(apart) if student else None)
        assert row["against"] == ("untaught" if name == "mind" else None)
    assert rows["mind"]["difference"] == pytest.approx(rows["mind"]["value"] - rows["untaught"]["value"])
    assert rows["half"]["difference"] is None
    assert rows["mind"]["parameters"] == 104
    assert (
        rows[MEAN]["parameters"] == rows["teachers_transformer"]["parameters"] + rows["teachers_resnet"]["parameters"]
    )
    assert (rows["half"]["head_ehr"], rows["half"]["head_cxr"]) == pytest.approx((0.2 * 3 * 1.5, 0.1 * 3 * 1.5))
    assert rows["teachers_resnet"]["head_ehr"] is None


def test_twins_differ_in_their_teachers_alone():
    known = {
        "a": {"size": 1, "teachers": "same"},
        "b": {"size": 1, "teachers": "none"},
        "c": {"size": 2, "teachers": "same"},
    }
    assert [untaught_twin(name, known) for name in known] == ["b", None, None]


def test_without_the_strategies_the_tables_have_no_row_and_all_columns(data):
    source = source_of(data, dataclasses.replace(GRID, strategies=("late_fusion",)))
    for name, table in (curriculum(source) | {"distillation": distillation(source)}).items():
        assert table.height == 0
        assert dict(table.schema) == (SCHEMAS | {"distillation": SCHEMA})[name]
    assert distillation(source_of(data, ablations={})).height == 0
