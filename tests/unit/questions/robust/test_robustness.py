"""Degradation curves and families, against naive computations; what is not estimable."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.errors import InputError
from pipeline.evaluation.cells import read_people, read_predictions
from pipeline.evaluation.evaluate import evaluate
from pipeline.params import Evaluation, Grid
from pipeline.questions.robust import robustness as robustness_module
from pipeline.questions.robust.overlap import overlap
from pipeline.questions.robust.removal import (
    Removal,
)
from pipeline.questions.robust.robustness import robustness
from pipeline.questions.robust.text import markdown
from pipeline.tasks import get_task
from pipeline.training.grid import run_keys
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import fabricate, training
from tests.support.robust import CARDS, PROBE, SCALE, TASKS

EVALUATION = Evaluation(confidence=0.95, ece_bins=10, seed=1)


@pytest.fixture(scope="module")
def tables(made):
    return robustness(made, Grid(tuple(CARDS), TASKS), SCALE, PROBE, EVALUATION, 60)


def naive(data, strategy, task, cohort, removal):
    """AUROC and AUPRC by a loop over runs and labels, from the files alone."""
    task = get_task(task)
    people = pl.read_parquet(data / "cohort/labels.parquet").join(
        pl.read_parquet(data / "cohort/stays.parquet").select("stay_id", "has_cxr"), on="stay_id"
    )
    p = [f"p_{name}" for name in task.outputs]
    stored = pl.read_parquet(data / "runs" / strategy / task.name / "predictions.parquet").filter(
        part="test", train_cohort=cohort
    )
    other = pl.read_parquet(data / "probes" / strategy / "removal.parquet").filter(
        task=task.name, train_cohort=cohort, test_modality=removal.modality, test_mechanism="whole"
    )
    mask = pl.read_parquet(data / "masks.parquet").filter(modality=removal.modality, mechanism=removal.mechanism)
    found = {label: [] for label in task.labels}
    for (fold, seed), run in stored.group_by("fold", "seed"):
        gone = set(mask.filter(pl.col("fold") == fold, pl.col("removed_at") < removal.rate)["stay_id"])
        without = {
            row["stay_id"]: [row[name] for name in p]
            for row in other.filter(pl.col("fold") == fold, pl.col("seed") == seed).iter_rows(named=True)
        }
        for label in task.labels:
            truth, score = [], []
            for row in run.join(people.filter("has_cxr"), on="stay_id").iter_rows(named=True):
                i = p.index(f"p_{label}")
                answer = without[row["stay_id"]][i] if row["stay_id"] in gone and without else row[p[i]]
                truth.append(row[label])
                score.append(answer)
            if 0 < sum(truth) < len(truth):
                found[label].append((roc_auc_score(truth, score), average_precision_score(truth, score)))
    return np.mean([np.mean(each, axis=0) for each in found.values() if each], axis=0)


@pytest.mark.parametrize("task", ["mortality", "phenotype"])
@pytest.mark.parametrize("strategy", ["late_fusion", "resnet", "lstm"])
@pytest.mark.parametrize(
    "removal", [Removal("cxr", "mar", 0.5), Removal("ehr", "mcar", 0.25), Removal("cxr", "mcar", 1.0)]
)
def test_curves_against_a_loop_over_runs_and_labels(made, tables, strategy, task, removal):
    for cohort in ("base", "matched"):
        auroc, auprc = naive(made, strategy, task, cohort, removal)
        rows = tables["robustness"].filter(task=task, strategy=strategy, train_cohort=cohort, **removal._asdict())
        assert rows.filter(metric="auroc")["value"].item() == pytest.approx(auroc, abs=1e-9)
        assert rows.filter(metric="auprc")["value"].item() == pytest.approx(auprc, abs=1e-9)


def test_with_nothing_removed_the_scores_are_those_of_the_results_table(made, tables):
    results = evaluate(made, Grid(tuple(CARDS), TASKS), SCALE, EVALUATION, 60).table
    key = ["task", "strategy", "train_cohort", "metric"]
    for group in ("base", "matched"):
        mine = tables["robustness_natural"].filter(group=group)
        both = mine.join(results.filter(eval_cohort=group), on=key, suffix="_there")
        assert both.height == mine.height
        np.testing.assert_allclose(both["value"].to_numpy(), both["value_there"].to_numpy(), atol=1e-9)


def test_changes_and_leads_are_differences_of_the_values(tables):
    curves = tables["robustness"]
    value = {
        tuple(row[:-1]): row[-1]
        for row in curves.select(
            "task", "strategy", "train_cohort", "modality", "mechanism", "rate", "metric", "value"
        ).iter_rows()
    }
    for row in curves.iter_rows(named=True):
        key = (
            row["task"],
            row["strategy"],
            row["train_cohort"],
            row["modality"],
            row["mechanism"],
            row["rate"],
            row["metric"],
        )
        whole = (*key[:3], "none", "none", 0.0, row["metric"])
        if row["modality"] == "none":
            assert row["change"] is None
        else:
            assert row["change"] == pytest.approx(value[key] - value[whole], abs=1e-9)
        if row["reference"] is None:
            assert row["lead"] is None
        else:
            assert row["reference"] in ("lstm", "transformer")
            assert row["lead"] == pytest.approx(value[key] - value[(key[0], row["reference"], *key[2:])], abs=1e-9)


def test_the_reference_is_the_best_ehr_strategy_on_validation(made, tables):
    for task in ("mortality", "phenotype"):
        for cohort in ("base", "matched"):
            scores = {}
            for strategy in ("lstm", "transformer"):
                people = read_people(made, [get_task(task)], SCALE.folds)
                rows = read_predictions(made, get_task(task), strategy, SCALE, people)
                rows = rows.filter(part="val", train_cohort=cohort)
                rows = rows.filter("has_cxr") if cohort == "matched" else rows
                scores[strategy] = np.mean(
                    [
                        np.mean(
                            [
                                roc_auc_score(run[label], run[f"p_{label}"])
                                for label in get_task(task).labels
                                if 0 < run[label].sum() < run.height
                            ]
                        )
                        for run in rows.partition_by("fold", "seed")
                    ]
                )
            best = max(scores, key=scores.get)
            chosen = tables["robustness"].filter(task=task, train_cohort=cohort)["reference"].drop_nulls().unique()
            assert chosen.to_list() == [best]


def test_what_a_strategy_does_not_look_at_changes_nothing(tables):
    rows = tables["robustness"].filter(strategy="lstm", modality="cxr")
    assert set(rows["change"]) == {0.0}
    assert rows["change_low"].null_count() == rows.height
    assert set(tables["robustness"].filter(strategy="resnet", modality="ehr")["change"]) == {0.0}
    assert tables["robustness"].filter(strategy="ehr_presence", modality="cxr", rate=0.5)["change"].abs().max() > 0


def test_families_are_means_of_their_strategies_and_their_difference(tables):
    curves, families = tables["robustness"], tables["robustness_families"]
    rows = families.filter(task="phenotype", train_cohort="base", mechanism="mar", rate=0.5, metric="auroc")
    mine = curves.filter(task="phenotype", train_cohort="base", mechanism="mar", rate=0.5, metric="auroc")
    native, complete = (-mine.filter(strategy=name)["change"].item() for name in ("drfuse", "late_fusion"))
    found = dict(rows.select("family", "loss").iter_rows())
    assert found["native"] == pytest.approx(native, abs=1e-9)
    assert found["complete"] == pytest.approx(complete, abs=1e-9)
    assert found["difference"] == pytest.approx(native - complete, abs=1e-9)
    assert dict(rows.select("family", "strategies").iter_rows()) == {"native": 1, "complete": 1, "difference": 2}
    # `less` of add_probes: what is built for missing images keeps more of its answer
    assert found["difference"] < 0


def test_training_with_removal_is_compared_with_training_on_everything(tmp_path):
    scale = dataclasses.replace(training(folds=(0,), missing=(0.0, 0.5)), missing_tasks=("mortality",))
    cards = {name: CARDS[name] for name in ("lstm", "late_fusion")}
    fabricate(tmp_path, scale, list(cards), ("mortality", "los"), stays=300)
    add_probes(tmp_path, cards, ("mortality", "los"))
    found = robustness(tmp_path / "data", Grid(tuple(cards), ("mortality", "los")), scale, PROBE, EVALUATION, 20)
    curves = found["robustness"]
    assert curves.filter(train_missing=0.0)["gain"].null_count() == curves.filter(train_missing=0.0).height
    removed = curves.filter(train_missing=0.5)
    assert set(removed["task"]) == {"mortality"}
    assert set(removed["train_cohort"]) == {"matched"}
    key = ["task", "strategy", "train_cohort", "modality", "mechanism", "rate", "metric"]
    both = removed.join(curves.filter(train_missing=0.0), on=key, suffix="_plain")
    assert both.height == removed.height > 0
    np.testing.assert_allclose(both["gain"], both["value"] - both["value_plain"], atol=1e-9)
    assert removed["reference"].null_count() == 0
    assert set(found["robustness_families"]["train_missing"]) == {0.0, 0.5}


def damaged(made, folder):
    shutil.copytree(made, folder / "data")
    return folder / "data"


def test_one_unimodal_strategy_and_one_task(made):
    found = robustness(made, Grid(("resnet",), ("los",)), SCALE, PROBE, EVALUATION, 20)
    assert set(found["robustness"]["metric"]) == {"accuracy", "kappa"}
    assert found["robustness"]["reference"].null_count() == found["robustness"].height
    assert found["robustness_families"].height == 0
    assert markdown(found, 0.95).startswith("# Robustness")


def test_without_an_image_nothing_is_estimable_in_the_matched_cohort_and_no_nan_is_written(made, tmp_path):
    data = damaged(made, tmp_path)
    path = data / "cohort/stays.parquet"
    pl.read_parquet(path).with_columns(has_cxr=pl.lit(False), cxr_status=pl.lit("not_taken")).write_parquet(path)
    found = robustness(data, Grid(("late_fusion", "lstm"), TASKS), SCALE, PROBE, EVALUATION, 20)
    assert found["robustness"]["value"].null_count() == found["robustness"].height
    assert set(found["robustness"]["n"]) == {"0"}
    for table in found.values():
        for column in table.select(pl.col(pl.Float64)):
            assert not column.is_nan().any()
    assert found["robustness_natural"].filter(group="base", metric="auroc")["value"].null_count() == 0
    assert overlap(data, (0,)).height == 0


def test_a_single_class_in_test_is_not_estimable(made, tmp_path):
    data = damaged(made, tmp_path)
    path = data / "cohort/labels.parquet"
    pl.read_parquet(path).with_columns(icu_mortality=pl.lit(False)).write_parquet(path)
    found = robustness(data, Grid(("late_fusion", "lstm"), ("mortality",)), SCALE, PROBE, EVALUATION, 20)
    assert found["robustness"].height > 0
    assert found["robustness"]["value"].null_count() == found["robustness"].height
    assert found["robustness_summary"]["pays"].null_count() == found["robustness_summary"].height
    assert "n. e." in markdown(found, 0.95)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"matched": 50, "no image": 50, "not_taken": 30, "not_collectable": 20}, ("50", "50", "30", "20")),
        ({"matched": 50, "no image": 34, "not_taken": 4, "not_collectable": 30}, ("50", "34", "<10", "hidden")),
        ({"matched": 4, "no image": 50, "not_taken": 30, "not_collectable": 20}, ("<10", "hidden", "hidden", "hidden")),
    ],
)
def test_no_group_of_few_follows_from_the_others(counts, expected):
    counts = {"base": counts["matched"] + counts["no image"], **counts}
    told = robustness_module._told(SimpleNamespace(counts={name: (count, None) for name, count in counts.items()}))
    assert tuple(told[name] for name in list(counts)[1:]) == tuple((n, None) for n in expected)
    told = robustness_module._told(SimpleNamespace(counts={name: (100, count) for name, count in counts.items()}))
    assert told["matched"] == ("100", expected[0])


def test_what_the_probe_has_not_left_is_named(made, tmp_path):
    data = damaged(made, tmp_path)
    grid = Grid(("late_fusion",), ("mortality",))
    path = data / "probes/late_fusion/removal.parquet"
    frame = pl.read_parquet(path)
    frame.filter(pl.col("seed") != 1).write_parquet(path)
    with pytest.raises(InputError, match=r"removal\.parquet: no rows for mortality, train_cohort=base, fold=0, seed=1"):
        robustness(data, grid, SCALE, PROBE, EVALUATION, 10)
    frame.filter(~((pl.col("test_modality") == "ehr") & (pl.int_range(pl.len()) % 7 == 0))).write_parquet(path)
    with pytest.raises(InputError, match=r"removal\.parquet: no answer without the record for a test stay of fold 0"):
        robustness(data, grid, SCALE, PROBE, EVALUATION, 10)
    path.unlink()
    with pytest.raises(InputError, match=r"late_fusion.removal\.parquet: not found"):
        robustness(data, grid, SCALE, PROBE, EVALUATION, 10)


def test_the_same_rows_twice_and_each_key_once(made, tables):
    again = robustness(made, Grid(tuple(CARDS), TASKS), SCALE, PROBE, EVALUATION, 60)
    keys = {
        "robustness": ["task", "strategy", "train_cohort", "train_missing", "modality", "mechanism", "rate", "metric"],
        "robustness_summary": ["task", "strategy", "train_cohort", "train_missing", "modality", "mechanism", "metric"],
        "robustness_natural": ["task", "strategy", "train_cohort", "train_missing", "group", "metric"],
        "robustness_families": ["task", "train_cohort", "modality", "mechanism", "rate", "metric", "family"],
    }
    for name, table in tables.items():
        assert table.equals(again[name]), name
        assert not table.select(keys[name]).is_duplicated().any(), name


def test_training_with_removal_is_for_the_tasks_that_the_scale_names():
    scale = dataclasses.replace(training(missing=(0.0, 0.5)), missing_tasks=("mortality",))

    assert {key.train_missing for key in run_keys(scale, "mortality")} == {0.0, 0.5}
    assert {key.train_missing for key in run_keys(scale, "los")} == {0.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_missing": (0.5,)}, "test_missing: must hold 1"),
        ({"test_missing": (0.0, 1.0)}, "test_missing: must be in"),
        ({"last_hours": (48,)}, "last_hours: must lie between"),
        ({"mechanisms": ()}, "mechanisms: must not be empty"),
        ({"stays": 1}, "stays: must be at least 2"),
    ],
)
def test_an_impossible_probe_is_an_error_of_params(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PROBE, **change)
