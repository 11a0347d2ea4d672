"""The stage fairness where little can be told: parts of the grid, one class, one subject, no image."""

from dataclasses import replace

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.params import Grid
from pipeline.questions.fair.fairness import fairness, write
from pipeline.questions.fair.section import answer
from pipeline.questions.fair.tables import CONFIRMATORY
from tests.support.fair import EVALUATION, GRID, KNOBS, ONE, SCALE, SEEDS, SIZE
from tests.support.made_up_runs import fabricate


@pytest.mark.parametrize(
    ("strategies", "task", "says"),
    [
        (("lstm",), "mortality", "no fusion strategy was chosen for ICU mortality"),
        (("resnet",), "phenotype", "no fusion strategy was chosen for Phenotypes"),
        (("late_fusion",), "los", "after Holm"),
    ],
)
def test_any_part_of_the_grid(made, tmp_path, strategies, task, says):
    tables = fairness(made / "data", Grid(strategies, (task,)), SCALE, EVALUATION, replace(KNOBS, pairs=()), SIZE)
    assert tables.groups.drop_nulls("strategy").height
    assert not tables.fusion.height
    write(tables, tmp_path / "t", 0.95)
    assert says in answer(tmp_path / "t", KNOBS, 0.95).sentence


def test_one_cohort_alone(own):
    scale = replace(SEEDS, cohorts=("base",))
    for path in own.glob("runs/*/*/predictions.parquet"):
        pl.read_parquet(path).filter(train_cohort="base").write_parquet(path)
    tables = fairness(own, ONE, scale, EVALUATION, KNOBS, SIZE)
    assert set(tables.groups["cohort"]) == {"base"}
    assert "age" in tables.gaps.filter(family=CONFIRMATORY)["attribute"]


def change(own, column):
    for path in own.glob("runs/*/mortality/predictions.parquet"):
        pl.read_parquet(path).with_columns(column).write_parquet(path)


def relabel(own, column):
    path = own / "cohort/labels.parquet"
    pl.read_parquet(path).with_columns(column).write_parquet(path)


def test_constant_scores_are_chance_and_have_no_gap(own, tmp_path):
    change(own, pl.lit(0.3, pl.Float32).alias("p_icu_mortality"))
    tables = fairness(own, ONE, SEEDS, EVALUATION, KNOBS, SIZE)
    assert set(tables.groups["auroc"].drop_nulls()) == {0.5}
    aurocs = tables.gaps.filter(metric="auroc").drop_nulls("gap")
    assert set(aurocs["gap"]) == {0.0}
    assert aurocs["low"].null_count() == aurocs.height  # resampling tells nothing
    assert set(aurocs["p"].drop_nulls()) == {1.0}
    write(tables, tmp_path / "t", 0.95)
    sentence = answer(tmp_path / "t", KNOBS, 0.95).sentence
    assert "The one AUROC gap tested (attribute × task) is not shown to be more than chance, after Holm" in sentence


@pytest.mark.parametrize("value", [False, True])
def test_one_class_is_too_small(own, tmp_path, value):
    relabel(own, pl.lit(value).alias("icu_mortality"))
    tables = fairness(own, ONE, SEEDS, EVALUATION, KNOBS, SIZE)
    assert set(tables.groups["status"]) == {"too small"}
    write(tables, tmp_path / "t", 0.95)
    assert answer(tmp_path / "t", KNOBS, 0.95).sentence.startswith("Not to be told: no fusion strategy was chosen")


def test_a_fold_without_positives_counts_for_nothing(own):
    splits = pl.read_parquet(own / "splits.parquet").filter((pl.col("fold") == 1) & (pl.col("part") == "test"))
    relabel(own, (pl.col("icu_mortality") & ~pl.col("stay_id").is_in(splits["stay_id"].to_list())))
    tables = fairness(own, ONE, SEEDS, EVALUATION, KNOBS, SIZE)
    assert tables.groups["auroc"].drop_nulls().len()


def test_no_image_at_all(own, tmp_path):
    path = own / "cohort/stays.parquet"
    pl.read_parquet(path).with_columns(has_cxr=pl.lit(False)).write_parquet(path)
    tables = fairness(own, ONE, SEEDS, EVALUATION, KNOBS, SIZE)
    assert not tables.gaps.filter(attribute="has_cxr").height
    assert not tables.groups.filter(pl.col("cohort") == "matched").drop_nulls("auroc").height
    write(tables, tmp_path / "t", 0.95)
    assert answer(tmp_path / "t", KNOBS, 0.95).sentence


def test_a_single_subject(own, tmp_path):
    path = own / "cohort/stays.parquet"
    pl.read_parquet(path).with_columns(subject_id=pl.lit(7)).write_parquet(path)
    for path in own.glob("runs/*/*/predictions.parquet"):
        pl.read_parquet(path).filter(seed=0).write_parquet(path)
    tables = fairness(own, ONE, SCALE, EVALUATION, KNOBS, SIZE)
    assert not tables.gaps["low"].drop_nulls().len()
    assert set(tables.groups.filter(attribute="gender")["stays"]) == {"hidden"}
    write(tables, tmp_path / "t", 0.95)
    assert answer(tmp_path / "t", KNOBS, 0.95).sentence


def test_a_handful_of_stays_is_too_small_to_tell(tmp_path):
    """As many as the open demo has; some groups have nobody in test, and deaths may be in no validation part."""
    fabricate(tmp_path, SCALE, GRID.strategies, GRID.tasks, stays=53)
    tables = fairness(tmp_path / "data", GRID, SCALE, EVALUATION, KNOBS, SIZE)
    assert set(tables.groups["status"]) == {"too small"}
    assert not tables.groups.filter(
        pl.col("positives").str.contains(r"^\d$") | pl.col("stays").str.contains(r"^\d$")
    ).height
    write(tables, tmp_path / "t", 0.95)
    assert answer(tmp_path / "t", KNOBS, 0.95).sentence.startswith("Too small to tell")


def test_a_trait_that_is_absent_is_named(own):
    path = own / "cohort/stays.parquet"
    pl.read_parquet(path).drop("insurance").write_parquet(path)
    with pytest.raises(InputError, match=r"stays\.parquet: no column insurance"):
        fairness(own, ONE, SEEDS, EVALUATION, KNOBS, SIZE)
