"""Question 1 on made-up artefacts: what is compared with what, and what is written."""

import dataclasses
import shutil

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, cohen_kappa_score

from pipeline.errors import InputError
from pipeline.estimation.randomisation import holm
from pipeline.evaluation.reading import read_table
from pipeline.params import Grid
from pipeline.questions.when.gain import gain
from pipeline.questions.when.ladder import ladder
from pipeline.questions.when.tables import icd, write
from pipeline.tasks import phenotype_slugs
from tests.support.when import GRID, RULE, SCALE, auroc, known, one, scores


def auprc(run, label):
    return average_precision_score(run[label], run[f"p_{label}"])


def test_both_strategies_are_chosen_on_validation_alone(made, found):
    for task, metric in (("mortality", auroc), ("phenotype", auroc)):
        for role, names in (("unimodal", ("lstm", "transformer", "resnet")), ("fusion", ("late_fusion", "medfuse"))):
            rows = found.chosen.filter(task=task, cohort="matched", role=role)
            assert tuple(rows["strategy"]) == names
            naive = [np.mean(list(scores(made, task, name, "matched", "val", metric).values())) for name in names]
            assert rows["validation"].to_list() == pytest.approx(naive)
            assert rows.filter("chosen")["strategy"].to_list() == [names[int(np.argmax(naive))]]


def test_what_test_says_does_not_change_the_choice(own, found):
    """On test, the other unimodal strategy becomes perfect: it is not chosen, and compared with as little."""
    path = own / "runs" / "resnet" / "mortality" / "predictions.parquet"
    labels = pl.read_parquet(own / "cohort" / "labels.parquet").select("stay_id", "icu_mortality")
    frame = pl.read_parquet(path).join(labels, on="stay_id", how="left", maintain_order="left")
    better = (
        pl.when(pl.col("part") == "test").then(pl.col("icu_mortality").cast(pl.Float32)).otherwise("p_icu_mortality")
    )
    frame.with_columns(p_icu_mortality=better).drop("icu_mortality").write_parquet(path)
    mortality = Grid(GRID.strategies, ("mortality",))
    changed = gain(known(own, mortality))
    assert changed.chosen.equals(found.chosen.filter(task="mortality"))
    names = ["difference", "low", "high", "p"]
    assert changed.table.select(names).equals(found.table.filter(task="mortality").select(names))


@pytest.mark.parametrize("cohort", ["base", "matched"])
def test_differences_are_those_of_scikit_learns_metrics(made, found, cohort):
    best = found.chosen.filter("chosen", role="unimodal", task="phenotype", cohort=cohort)["strategy"][0]
    for name, metric in (("auroc", auroc), ("auprc", auprc)):
        own = scores(made, "phenotype", "medfuse", cohort, "test", metric)
        against = scores(made, "phenotype", best, cohort, "test", metric)
        key = {"task": "phenotype", "cohort": cohort, "strategy": "medfuse", "metric": name, "stratum": "all"}
        for label in ("shock", "pneumonia_except_that_caused_by_tuberculosis_or_sexually_transmitted_disease"):
            row = one(found.table, label=label, **key)
            assert row["unimodal"] == best
            assert (row["value"], row["unimodal_value"]) == pytest.approx((own[label], against[label]))
            assert row["difference"] == pytest.approx(own[label] - against[label])
            assert row["low"] < row["equivalence_low"] < row["equivalence_high"] < row["high"]
        macro = one(found.table, label="macro", **key)
        assert macro["difference"] == pytest.approx(np.mean([own[label] - against[label] for label in own]))


def test_length_of_stay_is_compared_by_accuracy_and_kappa(made, found):
    def classes(run):
        return run["los_class"], run.select(f"p_los_{i}" for i in range(7)).to_numpy().argmax(axis=1)

    best = found.chosen.filter("chosen", role="unimodal", task="los", cohort="base")["strategy"][0]
    for name, metric in (("accuracy", accuracy_score), ("kappa", cohen_kappa_score)):
        own, against = (
            scores(made, "los", strategy, "base", "test", lambda run, _, m=metric: m(*classes(run)))["los_class"]
            for strategy in ("late_fusion", best)
        )
        row = one(found.table, task="los", cohort="base", strategy="late_fusion", metric=name, stratum="all")
        assert row["difference"] == pytest.approx(own - against)
        assert row["positives"] is None


def test_the_confirmatory_family_is_one_test_a_label_task_and_cohort(found):
    family = found.table.filter(family="confirmatory")
    assert family.height == 2 * (1 + 26 + 1)
    assert family.select("task", "cohort", "label").is_unique().all()
    assert set(family["metric"]) == {"auroc", "accuracy"}
    for task, cohort in family.select("task", "cohort").unique().iter_rows():
        winner = found.chosen.filter("chosen", role="fusion", task=task, cohort=cohort)["strategy"][0]
        assert set(family.filter(task=task, cohort=cohort)["strategy"]) == {winner}
    assert family["p_holm"].to_list() == pytest.approx(holm(family["p"].to_list()))


def test_exploratory_rows_are_adjusted_within_their_block(found):
    block = found.table.filter(
        task="phenotype", cohort="base", stratum="all", metric="auroc", family="exploratory", group="all"
    )
    assert set(block["strategy"]) == {"late_fusion", "medfuse"} - set(
        found.chosen.filter("chosen", role="fusion", task="phenotype", cohort="base")["strategy"]
    )
    assert block["p_holm"].to_list() == pytest.approx(holm(block["p"].to_list()))


def test_p_of_the_second_metric_is_that_of_the_chosen_strategy_alone(found):
    second = found.table.filter(pl.col("metric").is_in(["auprc", "kappa"]), stratum="all")
    assert second.filter("chosen")["p"].null_count() == 0
    assert second.filter(~pl.col("chosen"))["p"].null_count() == second.filter(~pl.col("chosen")).height
    assert found.table.filter(pl.col("metric").is_in(["auroc", "accuracy"]))["p"].null_count() == 0


def test_a_strong_fusion_strategy_is_a_gain_and_one_against_itself_nothing(own, found):
    """late_fusion is fabricated stronger than any unimodal strategy; medfuse becomes a copy of the best of these."""
    row = one(
        found.table,
        task="phenotype",
        cohort="base",
        label="macro",
        metric="auroc",
        stratum="all",
        strategy="late_fusion",
    )
    assert (row["verdict"], row["p"]) == ("gain", 0.01)
    best = found.chosen.filter("chosen", role="unimodal", task="mortality", cohort="base")["strategy"][0]
    name = "mortality/predictions.parquet"
    shutil.copy(own / "runs" / best / name, own / "runs" / "medfuse" / name)
    table = gain(known(own, Grid((best, "medfuse"), ("mortality",)))).table
    same = one(table, cohort="base", metric="auroc", stratum="all")
    assert (same["difference"], same["low"], same["verdict"], same["p"]) == (0.0, None, None, 1.0)


@pytest.mark.parametrize(
    ("strategies", "tasks"),
    [(("lstm",), ("los",)), (("late_fusion",), ("mortality",)), (("ehr_presence",), ("phenotype",))],
)
def test_a_grid_without_a_pair_gives_empty_tables(made, tmp_path, strategies, tasks):
    reading = known(made, Grid(strategies, tasks))
    result = gain(reading)
    assert result.table.height == 0
    climbed = ladder(reading, result.chosen, {})
    write(result, climbed, icd(reading.people, phenotype_slugs() if "phenotype" in tasks else ()), RULE, tmp_path)
    assert set(climbed.filter(pl.col("left_out").is_not_null())["rung"]) >= {"permuted"}
    assert (tmp_path / "gain.csv").read_text().count("\n") == 1


def test_nothing_to_choose_from_nothing_estimable_and_single_subjects_are_empty_fields(own, tmp_path):
    """One death, in test; no image in test; one phenotype without positives: no NaN, and no crash."""
    splits = pl.read_parquet(own / "splits.parquet")
    test = splits.filter(fold=0, part="test")["stay_id"]
    path = own / "cohort" / "labels.parquet"
    labels = pl.read_parquet(path)
    dead = pl.col("stay_id") == test[0]
    labels.with_columns(icu_mortality=dead, shock=pl.lit(False)).write_parquet(path)
    stays = pl.read_parquet(own / "cohort" / "stays.parquet")
    images = pl.col("has_cxr") & ~pl.col("stay_id").is_in(splits.filter(part="test", fold=0)["stay_id"].implode())
    stays.with_columns(has_cxr=images).write_parquet(own / "cohort" / "stays.parquet")
    scale = dataclasses.replace(SCALE, folds=(0,))
    images_told = own / "probes" / "resnet" / "image_control.parquet"
    pl.read_parquet(images_told).clear().write_parquet(images_told)
    for task in GRID.tasks:
        for strategy in GRID.strategies:
            file = own / "runs" / strategy / task / "predictions.parquet"
            pl.read_parquet(file).filter(fold=0).write_parquet(file)
    reading = known(own, scale=scale)
    result = gain(reading)
    assert result.chosen.filter(task="mortality")["validation"].null_count() == 10
    assert result.table.filter(task="mortality").height == 0
    shock = result.table.filter(label="shock", metric="auroc")
    assert shock["verdict"].null_count() == shock.height > 0
    matched = result.table.filter(cohort="matched", stratum="all")
    assert matched["difference"].null_count() == matched.height > 0
    assert not any(result.passed.values())
    write(result, ladder(reading, result.chosen, {}), icd(reading.people, phenotype_slugs()), RULE, tmp_path)
    for file in tmp_path.glob("*.csv"):
        assert "NaN" not in file.read_text(), file
        assert "inf," not in file.read_text(), file


def test_the_same_bytes_twice_and_back(made, found, tmp_path):
    for folder in ("one", "two"):
        reading = known(made)
        result = gain(reading)
        climbed = ladder(reading, result.chosen, dict.fromkeys(result.passed, True))
        write(result, climbed, icd(reading.people, phenotype_slugs()), RULE, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(
        f"{name}" for name in ("gain.csv", "gain.md", "chosen.csv", "ladder.csv", "ladder.md", "icd.csv", "icd.md")
    )
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    again = read_table(tmp_path / "one" / "gain.csv", dict(found.table.schema))
    assert again.drop("value").shape == found.table.drop("value").shape
    assert again["verdict"].to_list() == found.table["verdict"].to_list()
    with pytest.raises(InputError, match=r"none\.csv: not found"):
        read_table(tmp_path / "none.csv", {})


def test_a_card_that_is_absent_is_named(own):
    (own / "runs" / "medfuse" / "card.json").unlink()
    with pytest.raises(InputError, match=r"runs.medfuse.card\.json: not found"):
        gain(known(own, Grid(GRID.strategies, ("mortality",))))
