"""The answer as metrics: what gain.csv says of the task's own label, short enough for a terminal."""

import json

import polars as pl
import pytest
from dvc.compare import diff_table, metrics_table

from pipeline.presentation.text import number
from pipeline.questions.when.answer import answer, write
from pipeline.questions.when.contest import SCHEMA
from pipeline.questions.when.tables import opponent
from tests.support.when import one

WIDTH = 120


def test_the_answer_is_the_confirmatory_row_of_the_tasks_own_label(found, tmp_path):
    (tmp_path / "old_base.json").write_text("{}")
    write(found.table, tmp_path)
    files = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    labels = {"mortality": "icu_mortality", "phenotype": "macro", "los": "macro"}
    assert set(files) == {f"{task}_{cohort}" for task in labels for cohort in ("base", "matched")}
    for task, label in labels.items():
        row = one(found.table, task=task, cohort="matched", label=label, family="confirmatory")
        told = files[f"{task}_matched"]
        assert told["verdict"] == row["verdict"]
        differences = [row[name] for name in ("difference", "difference_ehr", "difference_image")]
        assert told["gain"] == round(row["difference"] if row["family_low"] is None else min(differences), 4)
        end = "family_" if row["family_low"] is not None else ""
        assert told["interval"] == ", ".join(number(row[f"{end}{side}"]).replace("0.", ".") for side in ("low", "high"))


def row(task, cohort, label, **other):
    return dict.fromkeys(SCHEMA) | {
        "task": task,
        "cohort": cohort,
        "label": label,
        "family": "confirmatory",
        **other,
    }


def test_signs_and_what_is_not_estimable():
    rows = [
        row("los", "base", "macro", verdict="undetermined", difference=-0.01, low=-0.0204, high=0.0006),
        row("mortality", "base", "icu_mortality", verdict="not testable"),
        row("phenotype", "base", "shock", verdict="gains", difference=0.1, low=0.05, high=0.15),
    ]
    assert answer(pl.DataFrame(rows, schema=SCHEMA, orient="row")) == {
        "los_base": {"verdict": "undetermined", "gain": -0.01, "interval": "−.020, .001"},
        "mortality_base": {"verdict": "not testable", "gain": None, "interval": "n. e."},
    }


def test_the_interval_is_the_one_by_which_the_verdict_was_told():
    """The unadjusted one lies below 0, which the verdict denies."""
    about = row("los", "base", "macro", verdict="undetermined", difference=-0.02, low=-0.04, high=-0.01)
    bounds = {"family_low": -0.06, "family_high": 0.001, "difference_ehr": -0.02, "difference_image": 0.02}
    table = pl.DataFrame([about | bounds], schema=SCHEMA, orient="row")
    assert answer(table)["los_base"] == {"verdict": "undetermined", "gain": -0.02, "interval": "−.060, .001"}


@pytest.mark.parametrize(
    ("verdict", "low", "high"), [("loses", -0.13, -0.05), ("undetermined", -0.13, 0.04), ("not testable", None, None)]
)
def test_the_difference_beside_a_verdict_is_to_the_opponent_that_scores_higher(verdict, low, high):
    """Validation preferred the image, by which fusion's lead is 0.03; bounds are of both."""
    about = row("los", "base", "macro", verdict=verdict, difference=0.03, low=0.01, high=0.05)
    about |= {"ehr": "gbm", "image": "resnet", "single": "resnet", "difference_ehr": -0.09, "difference_image": 0.03}
    about |= {"family_low": low, "family_high": high}
    (told,) = answer(pl.DataFrame([about], schema=SCHEMA, orient="row")).values()
    assert told["gain"] == (0.03 if low is None else -0.09)
    assert about[opponent(about)] == ("resnet" if low is None else "gbm")


def test_a_bound_just_below_zero_keeps_its_sign():
    rows = [row("los", "base", "macro", verdict="loses", difference=-0.07, low=-0.144, high=-0.0002)]
    assert answer(pl.DataFrame(rows, schema=SCHEMA, orient="row"))["los_base"]["interval"] == "−.144, −.000"


def test_every_answer_changed_is_under_twenty_lines_and_120_columns(found):
    """As `dvc metrics diff` and `dvc metrics show` lay them out."""
    paths = {f"reports/metrics/answer/{name}.json": each for name, each in answer(found.table).items()}
    changes = {
        path: {key: {"old": "no relevant gain", "new": value} for key, value in each.items()}
        for path, each in paths.items()
    }
    diff = diff_table(changes, title="Metric", a_rev="main")
    widest = {"verdict": "no relevant gain", "gain": -0.0484, "interval": "−.040, −.004"}
    paths = dict.fromkeys(paths, widest)
    paths["reports/metrics/sweep/autoprognosis_m.json"] = dict.fromkeys(("los", "mortality", "phenotype"), 0.2345)
    shown = metrics_table({"workspace": {"data": {path: {"data": each} for path, each in paths.items()}}})
    assert len(diff) + 1 < 20
    for table in (diff, shown):
        columns = [max(len(name) + 2, *(len(str(each)) for each in column)) for name, column in table.items()]
        assert sum(columns) + 2 * (len(columns) - 1) <= WIDTH
