"""The gain in the target population: where the record tells who has an image, complete cases are wrong."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pipeline.errors import InputError
from pipeline.evaluation.paired import ALL, scored
from pipeline.evaluation.propensity import FIRST_HOURS, first_hours, image_chances
from pipeline.params import Grid
from pipeline.questions.when.contest import read_sides
from pipeline.questions.when.gain import gain
from pipeline.questions.when.tables import target_markdown, target_words
from pipeline.questions.when.target import SCHEMA, image_weights, target, weighted
from pipeline.tasks import get_task
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import MODALITIES, fabricate, training
from tests.support.when import known, one

FOLDS = training(folds=(0, 1))
GRID = Grid(("lstm", "resnet", "late_fusion"), ("mortality",))
BOTH = ["cxr", "ehr"]
URGENT, PLANNED = 0.9, 0.25  # share with an image, where it is missing by admission


def hospital(root, missing, told_by="admission"):
    """Fusion helps the urgent alone, who are likelier to have an image (`missing`); `told_by` what one may know it."""
    fabricate(root, FOLDS, GRID.strategies, GRID.tasks, stays=12_000)
    add_probes(root, {name: (MODALITIES.get(name, BOTH), "complete") for name in GRID.strategies}, GRID.tasks)
    data, random = root / "data", np.random.default_rng(3)
    stays = pl.read_parquet(data / "cohort" / "stays.parquet")
    urgent = random.random(stays.height) < 0.5
    share = np.where(urgent, URGENT, PLANNED) if missing else np.full(stays.height, 0.5)
    has_cxr = random.random(stays.height) < share
    admission = urgent if told_by == "admission" else random.random(stays.height) < 0.5
    stays.with_columns(
        has_cxr=pl.Series(has_cxr),
        cxr_status=pl.Series(np.where(has_cxr, "present", "not_taken")),
        admission_group=pl.Series(np.where(admission, "EMERGENCY", "ELECTIVE")),
    ).write_parquet(data / "cohort" / "stays.parquet")
    heart = np.where(urgent & (told_by == "record"), 110.0, 80.0) + random.normal(size=stays.height)
    rows = {"stay_id": stays["stay_id"], "hour": np.zeros(stays.height, np.int8), "heart_rate": heart}
    pl.DataFrame(rows).write_parquet(data / "series" / "hourly.parquet")
    labels = pl.read_parquet(data / "cohort" / "labels.parquet")
    dead = random.random(stays.height) < 0.4
    labels.with_columns(icu_mortality=pl.Series(dead)).write_parquet(data / "cohort" / "labels.parquet")
    known_of = pl.DataFrame({"stay_id": stays["stay_id"], "urgent": urgent, "dead": dead})
    for name in GRID.strategies:
        path = data / "runs" / name / "mortality" / "predictions.parquet"
        cell = pl.read_parquet(path)
        here = cell.join(known_of, on="stay_id", how="left", maintain_order="left")
        told = {"lstm": 0.8, "resnet": 0.1}.get(name, np.where(here["urgent"], 2.0, 0.4))
        logit = told * (here["dead"].to_numpy() - 0.5) + random.normal(size=cell.height)
        cell.with_columns(p_icu_mortality=pl.Series(1 / (1 + np.exp(-logit)))).write_parquet(path)
    return data


def truth(data):
    """Fusion less the record among all test stays, with and without an image: by scikit-learn, the mean over folds."""
    found = []
    labels = pl.read_parquet(data / "cohort" / "labels.parquet")
    for fold in FOLDS.folds:
        scores = {}
        for name in ("lstm", "late_fusion"):
            cell = pl.read_parquet(data / "runs" / name / "mortality" / "predictions.parquet")
            rows = cell.filter(fold=fold, part="test", train_cohort="matched").join(labels, on="stay_id")
            scores[name] = roc_auc_score(rows["icu_mortality"], rows["p_icu_mortality"])
        found.append(scores["late_fusion"] - scores["lstm"])
    return np.mean(found)


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    return hospital(tmp_path_factory.mktemp("biased"), missing=True)


def asked(data):
    return known(data, GRID, FOLDS)


@pytest.mark.parametrize("told_by", ["admission", "record"])
def test_where_images_are_missing_by_what_the_record_tells_only_the_weighted_gain_is_right(biased, tmp_path, told_by):
    data = biased if told_by == "admission" else hospital(tmp_path, missing=True, told_by=told_by)
    row = one(target(asked(data)), against="ehr")
    assert row["strategy"] == "late_fusion"
    assert abs(row["target"] - truth(data)) < 0.04
    assert row["matched"] > truth(data) + 0.06
    assert row["target_low"] < truth(data) < row["target_high"]
    assert row["shift"] == pytest.approx(row["target"] - row["matched"])
    assert row["shift"] < -0.06
    assert row["effective"] < 0.85 * int(row["n"])
    assert row["outside"] < 0.05


def test_where_images_are_missing_at_random_both_are_right(tmp_path):
    data = hospital(tmp_path, missing=False)
    row = one(target(asked(data)), against="ehr")
    assert row["matched"] == pytest.approx(truth(data), abs=0.02)
    assert row["target"] == pytest.approx(truth(data), abs=0.02)
    assert abs(row["shift"]) < 0.01
    assert row["effective"] > 0.97 * int(row["n"])


def test_what_neither_traits_nor_record_tell_weights_do_not_mend(tmp_path):
    data = hospital(tmp_path, missing=True, told_by="nothing")
    row = one(target(asked(data)), against="ehr")
    assert row["target"] > truth(data) + 0.04
    assert abs(row["shift"]) < 0.02


def test_the_complete_case_is_that_of_the_gain_and_the_weighted_one_that_of_scikit_learn(biased):
    reading = asked(biased)
    table, weights = target(reading), image_weights(reading)
    found = gain(reading).table.filter(pl.col("chosen"), stratum="all", metric="auroc", cohort="matched")
    for against, end in (("ehr", "_ehr"), ("image", "_image"), ("single", "")):
        assert one(table, against=against)["matched"] == pytest.approx(found[f"difference{end}"][0])
    labels = pl.read_parquet(biased / "cohort" / "labels.parquet")
    images = reading.people.filter("has_cxr").select("stay_id").unique()
    apart = []
    for fold in FOLDS.folds:
        scores = {}
        for name in ("lstm", "late_fusion"):
            cell = pl.read_parquet(biased / "runs" / name / "mortality" / "predictions.parquet")
            rows = cell.filter(fold=fold, part="test", train_cohort="matched").join(images, on="stay_id", how="semi")
            rows = rows.join(labels, on="stay_id").sort("stay_id")
            columns = rows["icu_mortality"], rows["p_icu_mortality"]
            scores[name] = roc_auc_score(*columns, sample_weight=weights[fold].values)
        apart.append(scores["late_fusion"] - scores["lstm"])
    assert one(table, against="ehr")["target"] == pytest.approx(np.mean(apart))
    assert all((each.values >= 1).all() for each in weights.values())
    assert "stand for" in target_markdown(table)
    single = table.head(1).with_columns(
        n=pl.lit("1", table.schema["n"]), effective=pl.lit(1.0), population=pl.lit("40", table.schema["population"])
    )
    assert target_words(single).startswith(
        "Those with an image (1 test stay) stand for all of whom one could have been taken (40); weighted, they "
        "tell as much as 1 stay would."
    )


def test_weights_are_inverse_chances_cut_at_the_99th_percentile_of_training(biased):
    reading = asked(biased)
    each = image_weights(reading)[0]
    assert sorted({round(value) for value in each.values}) == [1, 4]  # 1 / 0.9 and 1 / 0.25
    people = reading.people.filter(fold=0, part="test").unique("stay_id")
    assert each.population == people.height
    assert len(each.values) == people["has_cxr"].sum()
    assert each.effective == pytest.approx(each.values.sum() ** 2 / (each.values**2).sum())
    stays = pl.read_parquet(biased / "cohort" / "stays.parquet")
    few = stays.with_columns(cxr_status=pl.when("has_cxr").then("cxr_status").otherwise(pl.lit("not_collectable")))
    few.write_parquet(biased / "cohort" / "few.parquet")
    assert (
        image_chances(few, np.ones(stays.height, dtype=bool)) is None
    )  # all of whom one could have been taken have one


def test_the_record_of_the_first_hours_is_a_mean_and_standardised_by_training_stays(tmp_path):
    (tmp_path / "series").mkdir()
    stays = pl.DataFrame({"stay_id": [1, 2, 3], "age": [50, 60, 70]})
    hourly = pl.DataFrame(
        {"stay_id": [1, 1, 1, 3], "hour": [0, 5, FIRST_HOURS, 2], "pulse": [80.0, 100.0, 500.0, 70.0], "text": "x"}
    )
    hourly.write_parquet(tmp_path / "series" / "hourly.parquet")
    np.testing.assert_array_equal(first_hours(tmp_path, stays), [[90.0], [np.nan], [70.0]])
    with pytest.raises(InputError, match=r"hourly\.parquet: not found"):
        first_hours(tmp_path / "none", stays)


def test_the_chance_is_that_of_a_logistic_model_of_the_standardised_record():
    random = np.random.default_rng(2)
    count = 400
    record = random.normal(5, 3, (count, 1))
    record[::5] = np.nan
    image = random.random(count) < 1 / (1 + np.exp(-(np.nan_to_num(record[:, 0], nan=2.0) - 5)))
    same = {name: ["x"] * count for name in ("gender", "race_group", "admission_group", "era", "first_careunit")}
    status = np.where(image, "present", "not_taken")
    stays = pl.DataFrame({"age": [60] * count, "has_cxr": image, "cxr_status": status, **same})
    train = np.arange(count) < 300
    known_ones = ~np.isnan(record[:, 0])
    mean, spread = np.nanmean(record[train]), np.nanstd(record[train])
    scaled = np.where(known_ones, (record[:, 0] - mean) / spread, 0.0)
    seen = np.stack([scaled, ~known_ones], axis=1)
    model = LogisticRegression(max_iter=1000).fit(seen[train], image[train])
    found = image_chances(stays, train, record)
    np.testing.assert_allclose(found, model.predict_proba(seen)[:, 1], atol=2e-3)
    assert image_chances(stays, train).std() < 0.01


def test_without_a_matched_cohort_or_a_model_the_table_is_empty(biased, own):
    base = replace(FOLDS, cohorts=("base",))
    assert target(replace(asked(biased), training=base)).height == 0
    path = own / "cohort" / "stays.parquet"
    pl.read_parquet(path).with_columns(cxr_status=pl.lit("not_collectable")).write_parquet(path)
    empty = target(known(own))
    assert (empty.height, dict(empty.schema)) == (0, dict(SCHEMA))
    assert "No weights" in target_markdown(empty)


def test_equal_weights_change_nothing_but_the_names_of_those_drawn(biased):
    task = get_task("mortality")
    run = read_sides(asked(biased), task)["matched"][1]["fusion"].runs[0]
    plain = scored([run], task, ALL)
    heavy = scored([weighted(run, np.full(len(run.at), 3.0))], task, ALL)
    for key, values in plain.items():
        np.testing.assert_allclose(heavy[key], values, atol=1e-12)
