"""Reliance: Shapley values against the sum over orders, permuted scores against loops; what is not estimable."""

import shutil
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.errors import InputError
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.scores import Sampler
from pipeline.params import Evaluation, Grid
from pipeline.questions.when import swaps as swapping
from pipeline.questions.when.reliance import quantities, reliance
from pipeline.questions.when.tables import reliance_markdown
from pipeline.tasks import get_task
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import fabricate, training

SCALE = training(folds=(0, 1), seeds=(0,))
EVALUATION = Evaluation(confidence=0.95, ece_bins=10, seed=1)
CARDS = {"lstm": (["ehr"], "complete"), "resnet": (["cxr"], "native"), "late_fusion": (["cxr", "ehr"], "complete")}
TASKS = ("mortality", "phenotype", "los")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("fabricated")
    fabricate(root, SCALE, list(CARDS), TASKS, stays=700)
    add_probes(root, CARDS, TASKS)
    return root / "data"


@pytest.fixture(scope="module")
def found(made):
    return reliance(made, Grid(tuple(CARDS), TASKS), SCALE, EVALUATION, 60)


def test_shapley_values_against_the_sum_over_orders():
    random = np.random.default_rng(0)
    names = {"full": {"ehr", "cxr"}, "cxr_permuted": {"ehr"}, "ehr_permuted": {"cxr"}, "both_permuted": set()}
    scores = {kind: random.random(5) for kind in (*names, "emap")}
    value = {frozenset(left): scores[kind] for kind, left in names.items()}
    for modality in ("ehr", "cxr"):
        gains = []
        for order in permutations(("ehr", "cxr")):
            before = frozenset(order[: order.index(modality)])
            gains.append(value[before | {modality}] - value[before])
        np.testing.assert_allclose(quantities(scores)[f"shapley_{modality}"], np.mean(gains, axis=0), atol=1e-12)
    both = quantities(scores)["shapley_ehr"] + quantities(scores)["shapley_cxr"]
    np.testing.assert_allclose(both, scores["full"] - scores["both_permuted"], atol=1e-12)


@pytest.mark.parametrize("task", ["mortality", "phenotype", "los"])
def test_scores_by_kind_against_a_loop_over_runs_labels_and_permutations(made, found, task):
    labels = pl.read_parquet(made / "cohort/labels.parquet")
    swaps = pl.read_parquet(made / "probes/late_fusion/swaps.parquet").filter(task=task).join(labels, on="stay_id")
    task = get_task(task)
    p = [f"p_{name}" for name in task.outputs]
    for cohort in ("base", "matched"):
        rows = found[0].filter(task=task.name, strategy="late_fusion", train_cohort=cohort)
        for kind, quantity in (("full", "full"), ("cxr_permuted", "ehr"), ("both_permuted", "none"), ("emap", "emap")):
            each = {label: [] for label in task.labels}
            for run in swaps.filter(train_cohort=cohort, kind=kind).partition_by("fold", "seed", "draw"):
                for label in task.labels:
                    if task.kind == "multiclass":
                        each[label].append((run.select(p).to_numpy().argmax(1) == run[label].to_numpy()).mean())
                    elif 0 < run[label].sum() < run.height:
                        each[label].append(roc_auc_score(run[label], run[f"p_{label}"]))
            expected = np.mean([np.mean(values) for values in each.values() if values])
            assert rows.filter(quantity=quantity)["value"].item() == pytest.approx(expected, abs=1e-9)


def test_rows_are_of_fusion_strategies_alone_and_differences_add_up(found):
    table, _ = found
    assert table["strategy"].unique().to_list() == ["late_fusion"]
    wide = table.pivot(on="quantity", index=["task", "train_cohort"], values="value")
    for row in wide.iter_rows(named=True):
        assert row["interaction"] == pytest.approx(row["full"] - row["emap"], abs=1e-9)
        assert row["shapley_ehr"] + row["shapley_cxr"] == pytest.approx(row["full"] - row["none"], abs=1e-9)
    assert dict(table.select("task", "metric").iter_rows()) == {
        "mortality": "auroc",
        "phenotype": "auroc",
        "los": "accuracy",
    }


def test_the_control_against_a_loop_over_folds(made, found):
    control = found[1]
    assert control["strategy"].unique(maintain_order=True).to_list() == ["resnet", "late_fusion"]
    told = pl.read_parquet(made / "probes/resnet/image_control.parquet")
    told = told.filter(task="los", train_cohort="matched", encoder="trained")
    folds = [roc_auc_score(rows["present"], rows["score"]) for rows in told.partition_by("fold")]
    row = control.filter(strategy="resnet", task="los", train_cohort="matched")
    assert row["auroc"].item() == pytest.approx(np.mean(folds), abs=1e-9)
    assert row["auroc_low"].item() < row["auroc"].item() < row["auroc_high"].item()
    assert row["stays"].item() == str(told["stay_id"].n_unique())


def test_branches_are_scored_where_a_strategy_has_them(made, tmp_path):
    shutil.copytree(made, tmp_path / "data")
    path = tmp_path / "data/probes/late_fusion/swaps.parquet"
    frame = pl.read_parquet(path)
    branch = frame.filter(kind="emap").with_columns(kind=pl.lit("branch_ehr"))
    pl.concat([frame, branch]).write_parquet(path)
    table, _ = reliance(tmp_path / "data", Grid(("late_fusion",), ("los",)), SCALE, EVALUATION, 20)
    values = dict(table.filter(train_cohort="base").select("quantity", "value").iter_rows())
    assert values["branch_ehr"] == values["emap"]
    assert "branch_cxr" not in values


def test_unimodal_strategies_alone_leave_an_empty_table(made):
    table, control = reliance(made, Grid(("lstm",), ("mortality",)), SCALE, EVALUATION, 20)
    assert table.height == control.height == 0
    assert reliance_markdown(table, control, 0.95).startswith("# What the scores rest on")


def test_one_class_among_the_probed_is_not_estimable(made, tmp_path):
    shutil.copytree(made, tmp_path / "data")
    path = tmp_path / "data/cohort/labels.parquet"
    pl.read_parquet(path).with_columns(icu_mortality=pl.lit(True)).write_parquet(path)
    table, _ = reliance(tmp_path / "data", Grid(("late_fusion",), ("mortality",)), SCALE, EVALUATION, 20)
    assert table.height > 0
    assert table["value"].null_count() == table["low"].null_count() == table.height


def test_answers_that_no_swap_changes_have_no_interval_and_no_share(made):
    people = read_people(made, [get_task("los")], SCALE.folds)
    swaps = pl.read_parquet(made / "probes/late_fusion/swaps.parquet").filter(task="los", train_cohort="base")
    constant = swaps.with_columns(pl.lit(1 / 7).alias(f"p_los_{i}") for i in range(7))
    constant = constant.with_columns(pl.col("fold").cast(pl.Int64)).join(
        people.select("fold", "stay_id", "subject_id", "los_class"), on=["fold", "stay_id"]
    )
    scores = quantities(swapping.scored(constant, get_task("los"), Sampler(people, 30, 1)).values)
    for name in ("interaction", "shapley_ehr", "shapley_cxr"):
        np.testing.assert_allclose(scores[name], 0, atol=1e-12)


def test_a_probe_that_has_not_run_is_named(made, tmp_path):
    shutil.copytree(made, tmp_path / "data")
    (tmp_path / "data/probes/late_fusion/swaps.parquet").unlink()
    with pytest.raises(InputError, match=r"late_fusion.swaps\.parquet: not found"):
        reliance(tmp_path / "data", Grid(("late_fusion",), ("mortality",)), SCALE, EVALUATION, 10)


def test_the_same_rows_twice(made, found):
    again = reliance(made, Grid(tuple(CARDS), TASKS), SCALE, EVALUATION, 60)
    assert again[0].equals(found[0])
    assert again[1].equals(found[1])
