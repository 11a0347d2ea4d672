"""What trials took: hours of each strategy and task, of every run once, as question 2 reads them."""

import dataclasses
import json

import polars as pl

from pipeline.params import Dimension, Grid, TuningScale, load
from pipeline.questions.which.tuning import tuning as told
from pipeline.training.settings import Common
from pipeline.training.store import Store, data_fingerprint
from pipeline.training.trials import HOURS, TRIALS, TRIALS_SCHEMA
from pipeline.training.tuning import tune
from tests.support.runs import SCALE
from tests.support.small import ENCODERS


def test_hours_are_of_each_strategy_and_task_and_count_a_run_once(root, training, data, tmp_path):
    """logistic has nothing to draw: its three trials are one run; the three of gbm are three. A run takes an hour."""
    store = Store(tmp_path / "work", data_fingerprint(data))
    own = {"gbm": {"learning_rate": Dimension(0.03, 0.3, "log")}}
    tuning = dataclasses.replace(load(root / "params.yaml").tuning, trials=3, own=own)
    written = {"gbm": {"max_iter": 3, "learning_rate": 0.1}, "logistic": {"c": [0.1]}}
    grid = Grid(tuple(written), ("mortality", "los"))
    for _ in range(2):  # the runs are made once, and then found
        common = Common("core", training, ENCODERS, SCALE)
        tune(common, grid, written, tuning, TuningScale(("base",), 1), store, data, tmp_path)
        for path in (tmp_path / "work/runs").glob("*/result.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 3600.0}))
    assert json.loads((tmp_path / HOURS).read_text()) == {
        "gbm": {"mortality": 3.0, "los": 3.0},
        "logistic": {"mortality": 1.0, "los": 1.0},
    }
    read, _ = told(tmp_path, grid, SCALE, TuningScale(("base",), 1))
    assert [(row["strategy"], row["trials"], row["epochs"], row["hours"]) for row in read] == [
        ("gbm", 3, 3, 3.0),
        ("logistic", 3, 1, 1.0),
    ] * 2
    assert {row["differs"] for row in read if row["strategy"] == "logistic"} == {""}
    rows = pl.read_csv(tmp_path / TRIALS, schema_overrides=TRIALS_SCHEMA)
    assert dict(rows.schema) == TRIALS_SCHEMA
    assert rows.height == 12
