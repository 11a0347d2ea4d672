"""results.load and the notebook that uses it."""

import json
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
import yaml

from pipeline import files, results
from pipeline.closure import ROOT
from pipeline.errors import InputError
from pipeline.evaluation.evaluate import evaluate, write
from pipeline.page import figures
from pipeline.params import Evaluation, Grid
from tests.support.made_up_runs import add_ensemble, fabricate, training

GRID = Grid(("lstm", "late_fusion"), ("mortality", "phenotype", "los"))
SCALE = training(folds=(0, 1))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with results: fabricated cells, evaluate's tables, and params that name them."""
    root = tmp_path_factory.mktemp("project")
    fabricate(root, SCALE, (*GRID.strategies, "resnet"), GRID.tasks, stays=300)
    write(evaluate(root / "data", GRID, SCALE, Evaluation(0.95, 10, 1), 20), root / "reports", 0.95)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["grid"] = {"strategies": list(GRID.strategies), "tasks": list(GRID.tasks), "ensembles": []}
    params["scales"]["demo"]["training"] |= {"folds": [0, 1], "train_missing": [0.0]}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return root


@pytest.fixture(scope="module")
def loaded(project):
    return results.load(project)


def test_predictions_are_those_of_the_grid_with_their_truth(project, loaded):
    found = loaded.predictions
    assert set(found["strategy"]) == set(GRID.strategies)
    stored = pl.read_parquet(project / "data" / "runs" / "lstm" / "phenotype" / "predictions.parquet")
    shock = found.filter(task="phenotype", strategy="lstm", output="shock")
    labels = pl.read_parquet(project / "data" / "cohort" / "labels.parquet")
    key = ["train_cohort", "fold", "stay_id"]
    joined = shock.join(stored.with_columns(pl.col("fold").cast(pl.Int64)), on=key).join(labels, on="stay_id")
    assert joined.height == shock.height == stored.height
    assert (joined["p"] - joined["p_shock"]).abs().max() < 1e-7
    assert (joined["y"] == joined["shock"]).all()
    los = found.filter(task="los", strategy="lstm", train_cohort="base").join(labels, on="stay_id")
    truth = los.with_columns(was=pl.format("los_{}", "los_class"))
    assert (truth["y"] == (truth["output"] == truth["was"])).all()
    assert (
        found.select(pl.struct("task", "strategy", *key, "seed", "part", "output").is_duplicated().any()).item()
        is False
    )


def test_metrics_are_the_table(project, loaded):
    table = pl.read_csv(project / "reports" / "tables" / "results.csv", infer_schema_length=None)
    assert loaded.metrics.height == table.height
    assert loaded.metrics["value"].to_list() == table["value"].cast(pl.Float64).to_list()


def test_provenance_names_what_the_results_were_made_from(project, loaded):
    found = dict(loaded.provenance.rows())
    assert found["manifest_sha256"] == files.sha256(project / "data" / "manifest.json")
    assert found["params.grid.strategies"] == "lstm, late_fusion"
    assert found["params.scales.demo.training.folds"] == "0, 1"
    assert "params.scales.paper.training.folds" not in found
    assert found["version.polars"] == pl.__version__
    assert found["commit"] is None


def test_the_commit_is_told_where_git_is_there(project, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    git = ["git", "-C", str(copy), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert dict(results.load(copy, ["mortality"], ["lstm"]).provenance.rows())["commit"] == head
    with (copy / "params.yaml").open("a") as file:
        file.write("# changed\n")
    assert dict(results.load(copy, ["mortality"], ["lstm"]).provenance.rows())["commit"] == head + "+"


def test_an_ensemble_is_among_the_strategies(project, tmp_path):
    copy = shutil.copytree(project, tmp_path / "copy")
    add_ensemble(copy / "data", "autoprognosis_m", "lstm")
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["grid"]["ensembles"] = ["autoprognosis_m"]
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    found = results.load(copy, tasks=["los"]).predictions
    own, theirs = (found.filter(strategy=name).drop("strategy") for name in ("autoprognosis_m", "lstm"))
    assert own.height
    assert own.equals(theirs)


def test_a_part_of_the_grid(project, monkeypatch):
    monkeypatch.chdir(project)
    found = results.load(tasks=["mortality"], strategies=["late_fusion"])
    assert set(found.predictions["task"]) == set(found.metrics["task"]) == {"mortality"}
    assert set(found.predictions["strategy"]) == set(found.metrics["strategy"]) == {"late_fusion"}
    with pytest.raises(InputError, match=r"strategies: 'resnet' is not one of grid.strategies: lstm, late_fusion"):
        results.load(strategies=["resnet"])


def test_what_is_missing_is_named(project, tmp_path):
    with pytest.raises(InputError, match=r"params\.yaml: not found"):
        results.load(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    (copy / "reports" / "tables" / "results.csv").unlink()
    with pytest.raises(InputError, match=r"results\.csv: not found"):
        results.load(copy)
    shutil.rmtree(copy / "data" / "runs" / "lstm" / "los")
    with pytest.raises(InputError, match=r"lstm.los.predictions\.parquet: not found"):
        results.load(copy)


def code_cells() -> list[str]:
    content = json.loads((ROOT / "docs" / "figure.ipynb").read_text())
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("where", [".", "docs"])
def test_the_notebook_rebuilds_the_pages_figure(project, monkeypatch, where):
    """Its code, whether it is opened from the root or from docs/; the page draws the same bytes."""
    (project / "docs").mkdir(exist_ok=True)
    monkeypatch.chdir(project / where)
    names: dict[str, object] = {}
    for cell in code_cells():
        exec(cell, names)
    table = pl.read_csv(project / "reports" / "tables" / "results.csv", infer_schema_length=None)
    title = "ICU mortality: AUROC"
    drawn = figures.forest(table.filter(task="mortality"), "auroc", "AUROC", "result_mortality_auroc", title)
    assert names["svg"] == drawn
    assert names["Picture"](names["svg"])._repr_svg_() == drawn
    before = "\n".join(code_cells()).split("class Picture")[0]
    assert len([line for line in before.splitlines() if line]) <= 10
    assert Path(names["root"]).resolve() == project.resolve()


def test_the_notebook_holds_no_outputs():
    content = json.loads((ROOT / "docs" / "figure.ipynb").read_text())
    assert all(cell.get("outputs", []) == [] for cell in content["cells"])
