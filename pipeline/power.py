"""Before the run: which gain each label's test stays could show, and how many positives the margin would need.

`python -m pipeline.plan` prints it. Of accuracy and kappa (length of stay) there is no closed form.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.estimation.power import Plan, positives_needed, smallest_detectable
from pipeline.params import Params
from pipeline.tasks import get_task

COHORTS = ("base", "matched")


def comparisons(params: Params) -> int:
    """How many the confirmatory family has: every task, cohort and label, and the phenotypes' mean."""
    tasks = [get_task(name) for name in params.grid.tasks]
    each = sum(len(task.labels) + (task.kind == "multilabel") for task in tasks)
    return each * len(params.get("scales.training").cohorts)


def told(params: Params, data: Path) -> str:
    """The text: a line a task and label, by cohort; a line that says so where there are no labels or splits yet."""
    files = [data / "cohort/labels.parquet", data / "cohort/stays.parquet", data / "splits.parquet"]
    absent = next((path for path in files if not path.is_file()), None)
    if absent:
        return f"what gains the test stays could show: not known before {absent} is made"
    scale, rule = params.get("scales.training"), params.verdicts
    labels, stays, splits = (pl.read_parquet(path) for path in files)
    tested = splits.filter(pl.col("part") == "test", pl.col("fold").is_in(list(scale.folds))).select("stay_id").unique()
    rows = tested.join(labels, on="stay_id").join(stays.select("stay_id", "has_cxr"), on="stay_id")
    runs = len(scale.folds) * len(scale.seeds)
    plan = Plan(runs=runs, confidence=rule.confidence, tests=comparisons(params))
    margin = rule.margin("auroc")
    lines = [
        f"smallest gain of AUROC shown with {plan.power:.0%} power over one opponent, among {plan.tests} comparisons "
        f"at once, and the positives that {margin:g} would need (both AUROC {plan.auroc:g}, correlated by "
        f"{plan.correlation:g}; luck of training {plan.luck:g} times the patients', {runs} run{'s' * (runs > 1)}):",
        f"{'task':<11}{'label':<34}" + "".join(f"{of + ': positives':>20}{'gain':>7}{'needed':>9}" for of in COHORTS),
    ]
    for task in map(get_task, params.grid.tasks):
        for label in task.labels if task.kind != "multiclass" else ():
            cells = "".join(_cell(of, label, plan, margin) for of in (rows, rows.filter("has_cxr")))
            lines.append(f"{task.name:<11}{label[:32]:<34}{cells}")
    if runs == 1:
        lines.append("one run: no verdict will be said; add folds or seeds to the scale's training")
    return "\n".join(lines)


def _cell(rows: pl.DataFrame, label: str, plan: Plan, margin: float) -> str:
    positives = int(rows[label].sum())
    gain = smallest_detectable(positives, rows.height - positives, plan)
    if gain is None:
        return f"{positives:>20}{'–':>7}{'–':>9}"
    return f"{positives:>20}{gain:>7.3f}{positives_needed(margin, positives / rows.height, plan):>9}"
