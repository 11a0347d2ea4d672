"""The small question 1 that its tests ask."""

from dataclasses import replace

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.cells import read_people, read_predictions
from pipeline.params import Evaluation, Grid, load
from pipeline.questions.when.information import information_table
from pipeline.questions.when.ladder import ladder
from pipeline.questions.when.source import source
from pipeline.questions.when.tables import icd
from pipeline.questions.when.target import target
from pipeline.tasks import get_task, phenotype_slugs
from tests.support.made_up_runs import training

SCALE = training(folds=(0, 1), seeds=(0, 1))

EVALUATION = Evaluation(confidence=0.95, ece_bins=10, seed=1)

RULE = replace(load().verdicts, fusion=("late_fusion", "medfuse"))

GRID = Grid(
    ("lstm", "transformer", "resnet", "ehr_presence", "ehr_metadata", "late_fusion", "medfuse"),
    ("mortality", "phenotype", "los"),
)


def known(data, grid=GRID, scale=SCALE, draws=60, saw=None):
    return source(data, grid, scale, EVALUATION, RULE, draws, saw)


def beside(reading):
    """The tables beside those of `gain`, as the stage makes them."""
    labels = phenotype_slugs() if "phenotype" in reading.grid.tasks else ()
    return {
        "ladder": ladder(reading),
        "icd": icd(reading.people, labels),
        "information": information_table(reading),
        "target": target(reading),
    }


def one(table, **where):
    rows = table.filter(**where)
    assert rows.height == 1, rows
    return rows.row(0, named=True)


def scores(data, task, strategy, cohort, part, metric, where=True):
    """The metric by label, averaged over the runs that have both classes: by scikit-learn."""
    people = read_people(data, [get_task(task)], SCALE.folds, ["icd_version"])
    cell = read_predictions(data, get_task(task), strategy, SCALE, people)
    cell = cell.join(people.select("fold", "stay_id", "icd_version"), on=["fold", "stay_id"])
    rows = cell.filter((pl.col("part") == part) & where, train_cohort=cohort)
    if cohort == "matched":
        rows = rows.filter("has_cxr")
    runs = rows.partition_by("fold", "seed")
    return {
        label: np.mean([metric(run, label) for run in runs if run[label].n_unique() > 1])
        for label in get_task(task).labels
    }


def auroc(run, label):
    return roc_auc_score(run[label], run[f"p_{label}"])
