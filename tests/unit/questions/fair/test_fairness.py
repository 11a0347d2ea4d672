"""The stage fairness on made-up artefacts: its tables against direct computation."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pipeline.estimation.metrics import best_threshold
from pipeline.questions.fair.fairness import fairness, write
from pipeline.questions.fair.tables import CONFIRMATORY, EXPLORATORY
from tests.support.fair import EVALUATION, GRID, KNOBS, ONE, SEEDS, SIZE
from tests.support.made_up_runs import add_ensemble


def test_an_ensemble_has_its_rows_and_is_no_candidate(own):
    """One with the answers of the unimodal strategy that is chosen: the choice stays, and no fusion is added."""
    plain = fairness(own, ONE, SEEDS, EVALUATION, KNOBS, SIZE)
    for of in ONE.strategies:
        add_ensemble(own, f"a_{of}", of)
    found = fairness(
        own, dataclasses.replace(ONE, ensembles=("a_lstm", "a_late_fusion")), SEEDS, EVALUATION, KNOBS, SIZE
    )
    strategies = pl.col("strategy").is_in(ONE.strategies)
    assert set(found.gaps.filter(~strategies)["kind"]) == {"ensemble"}
    assert set(found.gaps.filter(~strategies)["chosen"]) == {False}
    assert found.fusion.equals(plain.fusion)
    columns = ["strategy", "chosen"]
    assert found.gaps.filter(strategies).select(columns).equals(plain.gaps.select(columns))
    assert {"a_lstm", "a_late_fusion"} <= set(found.groups["strategy"])


def test_groups_are_those_of_the_test_stays_with_pooled_counts(seeded):
    """Gender and mortality in base, by hand: pairs within runs, thresholds of each run's validation."""
    data = seeded / "data"
    found = fairness(data, ONE, SEEDS, EVALUATION, KNOBS, SIZE)
    stays = pl.read_parquet(data / "cohort/stays.parquet").join(
        pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id"
    )
    cell = pl.read_parquet(data / "runs/late_fusion/mortality/predictions.parquet").filter(train_cohort="base")
    cell = cell.join(stays, on="stay_id")
    pairs, concordant, missed, positives, alerted, n = 0, 0.0, 0, 0, 0, 0
    for (_, _), run in cell.group_by("fold", "seed"):
        known = run.filter(part="val")
        p = known["p_icu_mortality"].cast(pl.Float64).to_numpy()
        threshold = best_threshold(p, known["icu_mortality"].to_numpy())
        rows = run.filter(part="test", gender="F")
        p, truth = rows["p_icu_mortality"].cast(pl.Float64).to_numpy(), rows["icu_mortality"].to_numpy()
        weight = truth.sum() * (~truth).sum()
        concordant += roc_auc_score(truth, p) * weight
        pairs += weight
        missed += (p[truth] < threshold).sum()
        positives += truth.sum()
        alerted += (p >= threshold).sum()
        n += len(p)
    row = found.groups.filter(task="mortality", cohort="base", strategy="late_fusion", attribute="gender", group="F")
    row = row.row(0, named=True)
    assert row["auroc"] == pytest.approx(concordant / pairs)
    assert row["fnr_validation"] == pytest.approx(missed / positives)
    assert row["tpr_validation"] == pytest.approx(1 - missed / positives)
    assert row["selection_rate_validation"] == pytest.approx(alerted / n)
    assert int(row["positives"]) == positives / 2  # seeds
    assert int(row["stays"]) == n / 2
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]


def test_the_calibration_slope_of_a_group_is_one_line_through_the_stays_of_all_runs(seeded):
    data = seeded / "data"
    found = fairness(data, ONE, SEEDS, EVALUATION, KNOBS, SIZE)
    cell = pl.read_parquet(data / "runs/lstm/mortality/predictions.parquet").filter(train_cohort="base", part="test")
    cell = cell.join(pl.read_parquet(data / "cohort/stays.parquet"), on="stay_id")
    rows = cell.join(pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id").filter(gender="M")
    line = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    line.fit(logit(rows["p_icu_mortality"].cast(pl.Float64).to_numpy())[:, None], rows["icu_mortality"].to_numpy())
    of = {"task": "mortality", "cohort": "base", "strategy": "lstm", "attribute": "gender"}
    row = found.groups.filter(**of, group="M").row(0, named=True)
    assert row["slope"] == pytest.approx(line.coef_[0, 0], abs=1e-4)
    assert row["slope_low"] < row["slope"] < row["slope_high"]
    assert found.groups.filter(**of)["slope"].n_unique() == 2
    assert "slope" not in found.gaps["metric"]


def test_strategies_alert_equally_often_at_equal_alert_rates(found):
    for cohort in ("base", "matched"):
        whole = found.groups.filter(task="mortality", cohort=cohort, attribute="all").drop_nulls("strategy")
        rates = whole["selection_rate_alert_rate"]
        prevalence = int(whole["positives"][0]) / int(whole["stays"][0])
        assert whole.height == 3
        assert rates.to_list() == pytest.approx([prevalence] * 3)
        assert whole["selection_rate_validation"].n_unique() == 3


def test_every_group_is_listed_and_the_small_ones_without_a_number(made, found):
    stays = pl.read_parquet(made / "data/cohort/stays.parquet")
    for task in GRID.tasks:
        here = found.groups.filter(task=task, cohort="base", attribute="race")
        assert set(here["group"]) == set(stays["race_group"])
    small = found.groups.filter(status="too small")
    assert small.height
    assert small["strategy"].null_count() == small.height
    assert small["auroc"].null_count() == small.height
    large = found.groups.filter(pl.col("status").is_null())
    assert large["strategy"].null_count() == 0
    for row in large.filter((pl.col("task") == "mortality") & pl.col("positives").str.contains(r"^\d+$")).to_dicts():
        assert 20 <= int(row["positives"]) <= int(row["stays"]) - 20


def test_rows_have_a_total_key_and_no_nan(found):
    for table, key in (
        (found.groups, ["task", "label", "cohort", "strategy", "attribute", "group"]),
        (found.gaps, ["task", "label", "cohort", "strategy", "attribute", "metric", "threshold"]),
        (found.fusion, ["task", "label", "cohort", "strategy", "attribute", "metric", "threshold"]),
    ):
        assert table.height
        assert not table.select(key).is_duplicated().any()
        floats = [name for name, kind in table.schema.items() if kind == pl.Float64]
        assert not table.select(pl.any_horizontal(pl.col(floats).is_nan().any())).item()


def test_a_gap_is_between_the_lowest_and_the_highest_group(found):
    compared = 0
    for row in found.gaps.filter(metric="auroc").drop_nulls("gap").to_dicts():
        groups = found.groups.filter(
            **{name: row[name] for name in ("task", "label", "cohort", "strategy", "attribute")}
        ).drop_nulls("auroc")
        assert groups.height == row["groups"]
        assert row["gap"] == pytest.approx(groups["auroc"].max() - groups["auroc"].min())
        assert row["lowest"] == pytest.approx(groups["auroc"].min())
        assert row["highest_group"] in groups.filter(pl.col("auroc") == groups["auroc"].max())["group"]
        assert 0 <= row["low"] <= row["gap"] <= row["high"]
        compared += 1
    assert compared > 20


def test_the_declared_family_is_the_chosen_fusion_strategys_auroc_by_attribute(found):
    family = found.gaps.filter(family=CONFIRMATORY)
    assert set(family["strategy"]) == {"late_fusion"}
    assert set(family["metric"]) == {"auroc"}
    for task in GRID.tasks:
        of_task = family.filter(task=task)
        assert set(of_task.filter(cohort="matched")["attribute"]) == {"age", "gender", "race", "admission", "insurance"}
        assert of_task.filter(cohort="base")["attribute"].to_list() == ["has_cxr"]
        assert (of_task["p_holm"].drop_nulls() >= of_task.drop_nulls("p_holm")["p"]).all()
    assert found.gaps.filter(family=EXPLORATORY)["p_holm"].null_count() == found.gaps.filter(family=EXPLORATORY).height
    assert found.gaps.filter(family=CONFIRMATORY)["p"].drop_nulls().len() > 5


def test_fusion_is_compared_with_the_unimodal_strategy_that_validation_chose(found):
    assert set(found.fusion["strategy"]) == {"late_fusion"}
    sides = found.fusion.group_by("task", "cohort").agg(pl.col("unimodal").n_unique())
    assert set(sides["unimodal"]) == {1}
    assert sides.height >= 5  # deaths are too few in matched
    for row in found.fusion.drop_nulls("difference").to_dicts()[::17]:
        where = {name: row[name] for name in ("task", "label", "cohort", "attribute", "metric")}
        rule = pl.col("threshold").eq_missing(pl.lit(row["threshold"]))
        gaps = found.gaps.filter(**where).filter(rule)
        mine = gaps.filter(strategy=row["strategy"])["gap"][0]
        assert row["difference"] == pytest.approx(mine - gaps.filter(strategy=row["unimodal"])["gap"][0])
        assert row["finding"] in ("wider", "narrower", "undetermined", None)


def test_the_same_bytes_twice(seeded, tmp_path):
    for folder in ("one", "two"):
        write(fairness(seeded / "data", ONE, SEEDS, EVALUATION, KNOBS, SIZE), tmp_path / folder, 0.95)
    for name in ("groups", "gaps", "fusion"):
        for kind in ("csv", "md"):
            file = f"fairness_{name}.{kind}"
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
