"""What fusion is worth, on made-up artefacts: net benefit and deferral by loops over stays."""

import numpy as np
import polars as pl
import pytest

from pipeline.estimation.deferral import COVERAGES
from pipeline.evaluation.cells import read_people, read_predictions
from pipeline.evaluation.reading import read_table
from pipeline.params import Grid, Thresholds, Worth
from pipeline.questions.when.worth import DEFER_SCHEMA, WORTH_SCHEMA, worth
from pipeline.questions.when.worth_section import tables_of, write
from pipeline.tasks import get_task, phenotype_slugs
from tests.support.made_up_runs import training
from tests.support.when import SCALE, known, one

KNOBS = Worth(Thresholds(mortality=(0.05, 0.2), phenotype=(0.1, 0.3, 0.5)), deferred=0.2)


@pytest.fixture(scope="module")
def found_worth(made):
    return worth(known(made), KNOBS)


def picked(found, task, cohort, label):
    """(fusion, the better single modality), as question 1 chose them."""
    row = one(
        found.table,
        task=task,
        cohort=cohort,
        label=label,
        stratum="all",
        chosen=True,
        metric="accuracy" if task == "los" else "auroc",
    )
    return row["strategy"], row["single"]


def runs(made, task, strategy, cohort):
    people = read_people(made, [get_task(task)], SCALE.folds)
    cell = read_predictions(made, get_task(task), strategy, SCALE, people).filter(part="test", train_cohort=cohort)
    return (cell.filter("has_cxr") if cohort == "matched" else cell).partition_by("fold", "seed")


def benefit(run, label, threshold, act=None):
    y, p = run[label].to_numpy().astype(bool), run[f"p_{label}"].to_numpy().astype(float)
    alarm = p >= threshold if act is None else np.full(len(y), act)
    true, false = (alarm & y).sum(), (alarm & ~y).sum()
    return (true - false * threshold / (1 - threshold)) / len(y)


def mean_benefit(made, task, strategy, cohort, label, threshold, act=None):
    return np.mean([benefit(run, label, threshold, act) for run in runs(made, task, strategy, cohort)])


@pytest.mark.parametrize(("task", "label"), [("mortality", "icu_mortality"), ("phenotype", "shock")])
@pytest.mark.parametrize("cohort", ["base", "matched"])
def test_net_benefit_is_that_of_the_formula_less_single_all_and_none(made, found, found_worth, task, label, cohort):
    fusion, single = picked(found, task, cohort, label)
    thresholds = getattr(KNOBS.thresholds, task)
    where = {"task": task, "cohort": cohort, "label": label}
    rows = found_worth.benefit.filter(**where)
    assert rows["threshold"].to_list() == [*thresholds, None]
    assert set(rows["strategy"]) == {fusion}
    assert set(rows["single"]) == {single}
    mine, theirs, everyone = (
        [mean_benefit(made, task, strategy, cohort, label, at, act) for at in thresholds]
        for strategy, act in ((fusion, None), (single, None), (fusion, True))
    )
    for values, name in ((mine, "value"), (theirs, "single_value"), (everyone, "all_value")):
        assert rows[name].to_list() == pytest.approx([*values, np.mean(values)])
    for other, name in ((theirs, "less_single"), (everyone, "less_all"), ([0.0] * len(mine), "less_none")):
        apart = np.array(mine) - other
        assert rows[name].to_list() == pytest.approx([*apart, apart.mean()])
        for row in rows.drop_nulls(f"{name}_low").iter_rows(named=True):
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert rows["less_single_low"].drop_nulls().len()


def test_the_mean_over_phenotypes_is_of_each_label_with_its_own_strategies(found_worth):
    for (cohort, threshold), rows in found_worth.benefit.filter(task="phenotype").group_by("cohort", "threshold"):
        macro = rows.filter(label="macro")
        rest = rows.filter(pl.col("label") != "macro")
        assert set(rest["label"]) == set(phenotype_slugs())
        assert macro["less_single"].item() == pytest.approx(rest["less_single"].mean()), (cohort, threshold)


def naive_risks(p, truth, multiclass):
    """Risk at every coverage: the surest first, one stay after the other."""
    if multiclass:
        loss, expected = ((p - truth) ** 2).sum(axis=1), 1 - (p**2).sum(axis=1)
    else:
        loss, expected = ((p - truth) ** 2).mean(axis=1), (p * (1 - p)).mean(axis=1)
    order, found = np.argsort(expected), []
    for coverage in COVERAGES:
        stays, whole = coverage * len(loss), int(coverage * len(loss) + 1e-9)
        total = loss[order[:whole]].sum() + (loss[order[whole]] * (stays - whole) if whole < len(loss) else 0.0)
        found.append(total / stays)
    return np.array(found), order


@pytest.mark.parametrize("task", ["mortality", "los"])
def test_risk_by_coverage_and_who_is_deferred_are_those_of_a_loop(made, found, found_worth, task):
    label = "icu_mortality" if task == "mortality" else "macro"
    fusion, _ = picked(found, task, "base", label)
    risks, deferred = [], {"image": [], "outcome": []}
    for run in runs(made, task, fusion, "base"):
        p = run.select(f"p_{name}" for name in get_task(task).outputs).to_numpy().astype(float)
        answer = run[get_task(task).labels[0]].to_numpy()
        truth = np.eye(7)[answer] if task == "los" else answer[:, None].astype(float)
        each, order = naive_risks(p, truth, task == "los")
        risks.append(each)
        staying = np.zeros(len(p))
        whole = int(0.8 * len(p))
        staying[order[:whole]] = 1
        staying[order[whole]] = 0.8 * len(p) - whole
        groups = {"image": run["has_cxr"].to_numpy(), "outcome": answer.astype(bool)}
        for name, group in groups.items():
            deferred[name].append(1 - staying[group].mean())
    risks = np.mean(risks, axis=0)
    rows = found_worth.defer.filter(task=task, cohort="base")
    assert set(rows["strategy"]) == {fusion}
    assert rows.filter(quantity="risk")["value"].to_list() == pytest.approx(risks.tolist())
    assert one(rows, quantity="area")["value"] == pytest.approx(risks.mean())
    assert one(rows, quantity="saved")["value"] == pytest.approx(risks[-1] - risks.mean())
    image = one(rows, quantity="deferred_with_image")
    assert (image["value"], image["coverage"]) == pytest.approx((np.mean(deferred["image"]), 0.8))
    outcome = rows.filter(quantity="deferred_with_outcome")["value"].to_list()
    assert outcome == pytest.approx([np.mean(deferred["outcome"])] if task == "mortality" else [])
    assert image["difference"] == pytest.approx(image["value"] - image["single_value"])


def test_a_stay_of_many_labels_is_deferred_as_a_whole(made, found_worth):
    """At full coverage nobody is deferred: the risk is the mean Brier score over labels, each of its own strategy."""
    row = one(found_worth.defer.filter(coverage=1.0), task="phenotype", cohort="base", quantity="risk")
    each = []
    for label in phenotype_slugs():
        fusion = one(found_worth.benefit.filter(label=label, cohort="base", threshold=0.1))["strategy"]
        for run in runs(made, "phenotype", fusion, "base"):
            each.append(((run[f"p_{label}"].cast(pl.Float64) - run[label].cast(pl.Float64)) ** 2).mean())
    assert row["value"] == pytest.approx(np.mean(each), rel=1e-6)
    assert row["value_low"] < row["value"] < row["value_high"]


def test_one_run_is_said_to_be_one(made, found_worth):
    assert found_worth.benefit["note"].null_count() == found_worth.benefit.height
    assert set(found_worth.benefit["runs"]) == {4}
    alone = training(folds=(0,))
    part = pl.read_parquet(made / "runs/lstm/mortality/predictions.parquet")
    assert part["fold"].n_unique() == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.evaluation.cells._check_runs", lambda *_: None)
        patch.setattr("pipeline.evaluation.paired.read_predictions", _first(read_predictions))
        only = worth(known(made, Grid(("lstm", "resnet", "late_fusion"), ("mortality",)), alone), KNOBS)
    assert set(only.benefit["note"]) == {"one run: luck of training not included"}
    assert set(only.defer["runs"]) == {1}
    (benefits, _) = tables_of(only.benefit, only.defer)
    assert "One run: luck of training not included." in benefits.note


def _first(read):
    """The predictions of one run."""

    def only(data, task, strategy, _, people):
        every = read_people(data, [task], SCALE.folds)
        return read(data, task, strategy, SCALE, every).filter(fold=0, seed=0)

    return only


def test_tables_are_written_as_they_are_read_and_in_markdown(found_worth, tmp_path):
    write(found_worth, tmp_path, 0.95)
    assert read_table(tmp_path / "worth.csv", WORTH_SCHEMA).height == found_worth.benefit.height
    assert read_table(tmp_path / "defer.csv", DEFER_SCHEMA).height == found_worth.defer.height
    text = (tmp_path / "worth.md").read_text()
    assert "# What fusion is worth" in text
    assert "| ICU mortality | base | 0.05 |" in text
    assert "Saved by deferring the least sure" in text
    assert "nan" not in text.lower()
