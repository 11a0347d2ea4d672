"""Subjects to parts, by hash and by stratum."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import balance, parts_of_subject, split, uniform
from pipeline.params import Splits
from tests.fabricate import stays_frame

RULES = Splits(salt="s", folds=5, dev_share=0.1, val_share=0.125, stratify=False)
DEALT = Splits(salt="s", folds=5, dev_share=0.1, val_share=0.125, stratify=True)


def cohort(n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(3)
    stays = stays_frame(n, rng)
    labels = stays.select("stay_id").with_columns(
        icu_mortality=pl.Series(rng.random(n) < 0.15), los_class=pl.Series(rng.integers(0, 7, n).astype(np.int8))
    )
    return stays, labels


@given(st.integers(min_value=1, max_value=2**31 - 1), st.integers(min_value=2, max_value=10))
def test_a_subject_is_dev_everywhere_or_in_test_exactly_once(subject, folds):
    parts = parts_of_subject(subject, Splits(salt="s", folds=folds, dev_share=0.1, val_share=0.125, stratify=False))
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
