"""Strategies with tables of their own, from a small hospital to the page, by the real stages."""

import polars as pl
import pytest

from pipeline.params import load
from pipeline.questions.which.own import FILES, own_tables
from tests.support.inprocess import run, synthesize, write_params
from tests.support.prepared import TO_AUDIT

STRATEGIES = ["transformer", "resnet", "drfuse", "pal", "cmcl", "climd", "mind"]


@pytest.mark.parametrize("tasks", [["phenotype"], pytest.param(["phenotype", "los"], marks=pytest.mark.slow)], ids=len)
def test_every_own_table_is_made_and_shown(tmp_path, monkeypatch, tasks):
    monkeypatch.delenv("FUSION_WORK", raising=False)
    grid = {"strategies": STRATEGIES, "tasks": tasks, "ensembles": []}
    write_params(tmp_path, 150, 1, {"grid": grid, "scales.tiny.training.batch_size": 16})
    synthesize(tmp_path)
    run(tmp_path, *TO_AUDIT, "common", "tune", *(f"train {name}" for name in STRATEGIES))
    run(tmp_path, "ablate", "forgetting", "mechanisms")
    tables = tmp_path / "reports" / "tables"
    found = {path.stem: pl.read_csv(path) for path in tables.glob("*.csv")}
    assert set(found) == {name for names in FILES.values() for name in names}
    assert all(table.height for table in found.values())
    assert set(found["curriculum"]["variant"]) == {"drfuse", "inverse_frequency", "unmeasured", "climd"}
    untaught = found["distillation"].filter(answers="mind", task="phenotype")["against"].unique().to_list()
    assert untaught == ["untaught"]
    kept = (
        found["forgetting_pal"].filter(task="phenotype", method="kept").filter(pl.col("group") > 0).drop_nulls("value")
    )
    assert kept.height
    assert kept.group_by("cohort", "group").agg(pl.col("value").n_unique())["value"].max() == 1
    shown = own_tables(tables, load(tmp_path / "params.yaml").grid)
    assert {table.source for table in shown} == {f"tables/{name}.csv" for name in found}
