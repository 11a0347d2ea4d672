"""Subjects to parts, by hash and by stratum."""

import dataclasses
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.splits import balance, eras, parts_of_subject, split, uniform
from pipeline.errors import InputError
from pipeline.params import Splits
from tests.support.made_up_data import stays_frame

RULES = Splits(scheme="folds", test_from_year=2014, salt="s", folds=5, dev_share=0.1, val_share=0.125, stratify=False)
DEALT = Splits(scheme="folds", test_from_year=2014, salt="s", folds=5, dev_share=0.1, val_share=0.125, stratify=True)


def cohort(n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(3)
    stays = stays_frame(n, rng)
    labels = stays.select("stay_id").with_columns(
        icu_mortality=pl.Series(rng.random(n) < 0.15), los_class=pl.Series(rng.integers(0, 7, n).astype(np.int8))
    )
    return stays, labels


@given(st.integers(min_value=1, max_value=2**31 - 1), st.integers(min_value=2, max_value=10))
def test_a_subject_is_dev_everywhere_or_in_test_exactly_once(subject, folds):
    parts = parts_of_subject(
        subject,
        Splits(
            scheme="folds", test_from_year=2014, salt="s", folds=folds, dev_share=0.1, val_share=0.125, stratify=False
        ),
    )
    assert len(parts) == folds
    if "dev" in parts:
        assert set(parts) == {"dev"}
    else:
        assert parts.count("test") == 1
        assert set(parts) <= {"train", "val", "test"}


def test_the_hash_is_the_same_on_every_machine():
    # `printf fusion-1:dev:10000032 | sha256sum` begins with 4df438f9561f8e93
    assert uniform("fusion-1", "dev", 10000032) == pytest.approx(0x4DF438F9561F8E93 / 2**64, abs=1e-15)


def test_shares_are_near_their_knobs():
    counts = Counter(part for subject in range(4000) for part in parts_of_subject(subject, RULES))
    total = sum(counts.values())
    assert counts["dev"] / total == pytest.approx(0.1, abs=0.02)
    assert counts["test"] / total == pytest.approx(0.9 / 5, abs=0.02)
    assert counts["val"] / total == pytest.approx(0.9 * 0.8 / 8, abs=0.02)


@given(st.data())
def test_a_subjects_fold_does_not_depend_on_who_else_is_there(data):
    stays, labels = cohort(60)
    keep = data.draw(st.lists(st.sampled_from(stays["stay_id"].to_list()), min_size=1, unique=True))
    few = split(stays.filter(pl.col("stay_id").is_in(keep)), labels, RULES)
    everyone = split(stays, labels, RULES)
    assert few.equals(everyone.filter(pl.col("stay_id").is_in(keep)))


@pytest.mark.parametrize("rules", [RULES, DEALT])
def test_subjects_never_cross_parts(rules):
    stays, labels = cohort(400)
    splits = split(stays, labels, rules)
    assert splits.group_by("fold", "subject_id").agg(pl.col("part").n_unique())["part"].max() == 1
    tests = splits.filter(pl.col("part") == "test").group_by("subject_id").agg(pl.col("fold").n_unique())
    assert tests["fold"].to_list() == [1] * tests.height
    dev = splits.filter(pl.col("part") == "dev")["subject_id"].unique()
    assert tests.height + dev.len() == stays["subject_id"].n_unique()


def test_stratified_parts_hold_equal_shares():
    stays, labels = cohort(600)
    rows = balance(split(stays, labels, DEALT), stays, labels)
    test = [row for row in rows if row["part"] == "test"]
    assert len(test) == 5
    subjects = [row["subjects"] for row in test]
    assert max(subjects) - min(subjects) <= 1
    images = [row["has_cxr"] for row in test]
    assert max(images) - min(images) < 0.12


def test_the_balance_lists_every_fold_and_part_in_order():
    stays, labels = cohort(300)
    rows = balance(split(stays, labels, RULES), stays, labels)
    assert [(row["fold"], row["part"]) for row in rows] == [
        (fold, part) for fold in range(5) for part in ("train", "val", "test", "dev")
    ]
    assert sum(row["stays"] for row in rows) == 5 * stays.height


TEMPORAL = Splits(
    scheme="temporal", salt="s", folds=5, test_from_year=2014, dev_share=0.1, val_share=0.125, stratify=False
)
ERAS = ["2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022"]


def in_eras(subjects: list[list[str | None]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Stays and labels: a list of eras a subject."""
    rows = [(100 * subject + i, subject, era) for subject, of in enumerate(subjects, 1) for i, era in enumerate(of)]
    stays = pl.DataFrame(
        rows, schema={"stay_id": pl.Int32, "subject_id": pl.Int32, "era": pl.String}, orient="row"
    ).with_columns(has_cxr=pl.col("stay_id") % 3 == 0, los_days=2.5)
    return stays, stays.select("stay_id", icu_mortality=pl.col("stay_id") % 7 == 0, los_class=pl.lit(0, pl.Int8))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from([*ERAS, None]), min_size=1, max_size=4), min_size=1, max_size=40),
    st.sampled_from([2011, 2014, 2017, 2020]),
    st.booleans(),
)
def test_the_past_trains_and_the_later_eras_test(subjects, year, stratify):
    # enough of both eras that each part has its subjects
    stays, labels = in_eras([*subjects, *([["2008 - 2010"]] * 40), *([["2020 - 2022"]] * 40)])
    splits = split(stays, labels, dataclasses.replace(TEMPORAL, test_from_year=year, stratify=stratify))
    assert splits.columns == ["stay_id", "fold", "subject_id", "part"]
    assert splits["stay_id"].equals(stays["stay_id"])
    assert set(splits["fold"]) == {0}
    assert splits.group_by("subject_id").agg(pl.col("part").n_unique())["part"].max() == 1
    for subject, of in splits.join(stays, on="stay_id").group_by("subject_id", maintain_order=True):
        starts = [None if era is None else int(era[:4]) for era in of["era"]]
        (part,) = set(of["part"])
        if None in starts:
            assert part == "dev"
        elif part != "dev":
            assert (part == "test") == (max(starts) >= year), subject


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_subjects_part_in_time_does_not_depend_on_who_else_is_there(data):
    subjects = data.draw(st.lists(st.lists(st.sampled_from([*ERAS, None]), min_size=1, max_size=3), max_size=20))
    everyone = in_eras([*([["2008 - 2010"]] * 40), *([["2020 - 2022"]] * 40), *subjects])
    few = in_eras([*([["2008 - 2010"]] * 40), *([["2020 - 2022"]] * 40)])
    parts = split(*everyone, TEMPORAL)
    assert split(*few, TEMPORAL).equals(parts.filter(pl.col("subject_id") <= 80))


def test_dev_is_the_same_tenth_in_both_schemes():
    stays, labels = cohort(600)
    dev = [
        set(split(stays, labels, rules).filter(pl.col("part") == "dev")["subject_id"]) for rules in (RULES, TEMPORAL)
    ]
    assert dev[0] == dev[1]
    assert 0.05 < len(dev[0]) / stays["subject_id"].n_unique() < 0.15


def test_validation_is_a_share_of_the_early_subjects():
    stays, labels = in_eras([["2008 - 2010"]] * 2000 + [["2014 - 2016"]] * 500)
    counts = Counter(split(stays, labels, TEMPORAL)["part"])
    assert counts["val"] / (counts["val"] + counts["train"]) == pytest.approx(0.125, abs=0.025)
    assert counts["test"] == pytest.approx(450, abs=25)


def test_who_comes_back_is_tested_with_all_stays_and_counted():
    back = ["2008 - 2010", "2011 - 2013", "2017 - 2019"]
    undated = [[None]] * 10 + [["2011 - 2013", None]] * 10
    stays, labels = in_eras([["2008 - 2010"]] * 400 + [back] * 10 + [["2014 - 2016"]] * 40 + undated)
    rules = dataclasses.replace(TEMPORAL, dev_share=0.0)
    splits = split(stays, labels, rules)
    assert set(splits.filter(subject_id=401)["part"]) == {"test"}
    counts = eras(splits, stays, rules)
    assert counts["test_stays_of_an_earlier_era"] == 20
    assert counts["stays_without_era"] == 20
    assert counts["subjects_in_dev_for_want_of_an_era"] == 20
    assert counts["stays_by_era"][-1] == {"era": "none", "train": 0, "val": 0, "test": 0, "dev": 20}
    by_era = {row["era"]: row for row in counts["stays_by_era"]}
    assert by_era["2014 - 2016"] == {"era": "2014 - 2016", "train": 0, "val": 0, "test": 40, "dev": 0}
    assert by_era["2008 - 2010"]["test"] == 10
    assert by_era["2008 - 2010"]["train"] + by_era["2008 - 2010"]["val"] == 400
    assert by_era["2011 - 2013"]["dev"] == 10


def test_a_few_who_come_back_are_not_counted():
    back = ["2008 - 2010", "2017 - 2019"]
    stays, labels = in_eras([["2008 - 2010"]] * 400 + [back] * 2 + [["2014 - 2016"]] * 40)
    rules = dataclasses.replace(TEMPORAL, dev_share=0.0)
    counts = eras(split(stays, labels, rules), stays, rules)
    assert counts["test_stays_of_an_earlier_era"] == "<10"
    by_era = {row["era"]: row for row in counts["stays_by_era"]}
    assert [by_era[era]["test"] for era in ("2008 - 2010", "2014 - 2016", "2017 - 2019")] == ["<10", "hidden", "<10"]


def test_a_fold_tells_no_few_deaths_and_no_share_of_them():
    stays, labels = cohort(300)
    dead = labels["stay_id"].is_in(labels["stay_id"].head(40).implode())
    splits = split(stays, labels, RULES)
    rows = balance(splits, stays, labels.with_columns(icu_mortality=dead))
    for row in rows:
        people = splits.filter(fold=row["fold"], part=row["part"])
        deaths = people.filter(pl.col("stay_id").is_in(labels.filter(dead)["stay_id"].implode())).height
        assert row["stays"] == people.height
        assert row["mortality"] is None or row["mortality"] == pytest.approx(deaths / people.height)
        assert row["mortality"] is None or not 0 < deaths < 10
    assert {row["mortality"] is None for row in rows} == {True, False}
    for fold in range(5):  # a lone one would follow from the others
        assert sum(row["mortality"] is None for row in rows if row["fold"] == fold) != 1


def test_a_part_of_fewer_than_ten_stays_is_not_counted():
    stays, labels = cohort(40)
    splits = split(stays, labels, RULES)
    for row in balance(splits, stays, labels):
        height = splits.filter(fold=row["fold"], part=row["part"]).height
        assert row["stays"] == (height if isinstance(row["stays"], int) else "<10" if height < 10 else "hidden")
        assert isinstance(row["stays"], str) or height >= 10
        assert (row["los_mean"] is None) == isinstance(row["stays"], str)


@pytest.mark.parametrize(("only", "lacks"), [("2008 - 2010", "test"), ("2017 - 2019", "train"), (None, "train")])
def test_a_year_that_leaves_a_part_empty_is_named(only, lacks):
    with pytest.raises(InputError, match=rf"splits\.test_from_year: 2014 leaves no subject for {lacks}"):
        split(*in_eras([[only]] * 30), TEMPORAL)
