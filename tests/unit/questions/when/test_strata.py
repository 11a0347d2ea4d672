"""Strata of stays and of phenotypes."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from pipeline.evaluation.cells import read_people
from pipeline.questions.when.gain import gain
from pipeline.questions.when.source import strata_told, summed
from pipeline.questions.when.strata import label_groups
from pipeline.questions.when.tables import icd
from pipeline.tasks import get_task, phenotype_slugs
from tests.support.when import GRID, auroc, known, one, scores


def test_strata_are_of_stays_by_image_and_coding_and_of_phenotypes_by_type_and_prevalence(made, found):
    key = {"task": "phenotype", "cohort": "base", "metric": "auroc", "label": "macro"}
    rows = found.table.filter(~pl.col("chosen"), strategy="late_fusion", **key)
    assert set(rows["image"]) == {"resnet"}
    assert [tuple(row) for row in rows.select("stratum", "group").iter_rows()] == [
        ("all", "all"),
        ("type", "acute"),
        ("type", "chronic"),
        *(("prevalence", name) for name in ("low", "middle", "high")),
        ("has_cxr", "yes"),
        ("has_cxr", "no"),
        ("icd_version", "9"),
        ("icd_version", "10"),
    ]
    for group, where in {"yes": pl.col("has_cxr"), "no": ~pl.col("has_cxr"), "10": pl.col("icd_version") == 10}.items():
        own, against = (
            np.mean(list(scores(made, "phenotype", name, "base", "test", auroc, where).values()))
            for name in ("late_fusion", "resnet")
        )
        assert one(rows, group=group)["difference_image"] == pytest.approx(own - against)
    assert "has_cxr" not in found.table.filter(cohort="matched")["stratum"].unique().to_list()


def test_whom_a_frozen_encoder_has_seen_stand_apart(made):
    """Every third subject was seen; the differences are those of the others alone."""
    people = read_people(made, [get_task("mortality")], (0, 1))
    subjects = people.filter(part="test").select("subject_id").unique().sort("subject_id")
    saw = subjects.with_columns(saw=pl.int_range(pl.len()) % 3 == 0)
    grid = replace(GRID, strategies=("lstm", "resnet", "late_fusion"), tasks=("mortality",))
    reading = known(made, grid, draws=10, saw=saw)
    table = gain(reading).table
    key = {
        "task": "mortality",
        "cohort": "base",
        "metric": "auroc",
        "label": "icu_mortality",
        "strategy": "late_fusion",
    }
    rows = table.filter(~pl.col("chosen"), stratum="encoder_saw", **key)
    assert rows["group"].to_list() == ["yes", "no"]
    stays = people.join(saw, on="subject_id").select("stay_id", "saw").unique()
    for group, where in {"yes": "saw", "no": ~pl.col("saw")}.items():
        some = pl.col("stay_id").is_in(stays.filter(where)["stay_id"].implode())
        own, against = (
            scores(made, "mortality", name, "base", "test", auroc, some)["icu_mortality"]
            for name in ("late_fusion", "resnet")
        )
        assert one(rows, group=group)["difference_image"] == pytest.approx(own - against)
        assert one(rows, group=group)["n"] == str(stays.filter(where).height)
    assert "encoder_saw" not in gain(known(made, grid, draws=10, saw=saw.clear())).table["stratum"]


def test_phenotypes_are_grouped_by_the_benchmarks_types_and_by_their_counts(made):
    task = get_task("phenotype")
    people = read_people(made, [task], (0,))
    groups = label_groups(task, people, "matched")
    parts = [groups["prevalence", name] for name in ("low", "middle", "high")]
    assert [len(part) for part in parts] == [9, 8, 8]
    matched = people.filter("has_cxr")
    shares = [[matched[label].sum() for label in part] for part in parts]
    assert max(shares[0]) <= min(shares[1])
    assert max(shares[1]) <= min(shares[2])
    for split in (parts, [groups[key] for key in groups if key[0] == "type"]):
        assert sorted(label for part in split for label in part) == sorted(phenotype_slugs())
    assert label_groups(get_task("mortality"), people, "base") == {}


def test_prevalence_by_coding_and_image_and_small_counts_are_not_told(made):
    people = read_people(made, [get_task("phenotype")], (0,), ["icd_version"])
    table = icd(people, ["shock"])
    stays = people.unique("stay_id")
    for row in table.iter_rows(named=True):
        group = stays.filter(icd_version=row["icd_version"], has_cxr=row["has_cxr"])
        assert row["n"] == str(group.height)
        assert row["prevalence"] == pytest.approx(group["shock"].mean())
    few = icd(people.head(30), ["shock"])
    assert set(few["positives"]) == {"<10"}
    assert few["prevalence"].null_count() == few.height


def test_a_cell_of_prevalence_is_hidden_where_it_would_give_a_small_one_away():
    groups = [(9, True, 30, 4), (9, False, 30, 12), (10, True, 40, 12), (10, False, 5, 0)]
    rows = [(version, image, i < some) for version, image, stays, some in groups for i in range(stays)]
    people = pl.DataFrame(rows, schema=["icd_version", "has_cxr", "shock"], orient="row").with_row_index("stay_id")
    table = icd(people, ["shock"])
    assert table.select("icd_version", "has_cxr", "n", "positives").rows() == [
        (9, False, "hidden", "hidden"),  # of two with 12 the first
        (9, True, "hidden", "<10"),
        (10, False, "<10", "0"),
        (10, True, "hidden", "12"),
    ]
    assert table["prevalence"].null_count() == 4


def test_strata_tell_no_few_and_sums_over_labels_no_label_of_few():
    image, coded = [True] * 50 + [False] * 50, [9] * 4 + [10] * 96
    people = pl.DataFrame({"has_cxr": image, "icd_version": coded, "icu_mortality": [i % 4 == 0 for i in range(100)]})
    people = people.with_row_index("stay_id").with_columns(part=pl.lit("test"))
    told = strata_told(people, get_task("mortality"), "base")
    assert {key: (each.n, each.positives["icu_mortality"]) for key, each in told.items()} == {
        ("all", "all"): ("100", "25"),
        ("has_cxr", "yes"): ("50", "13"),
        ("has_cxr", "no"): ("50", "12"),
        ("icd_version", "9"): ("<10", "<10"),
        ("icd_version", "10"): ("hidden", "hidden"),
    }
    assert summed({"a": "12", "b": "0", "c": "<10"}, ["a", "b"]) == "12"
    assert summed({"a": "12", "b": "0", "c": "<10"}, ["a", "c"]) == "hidden"
