"""Who belongs to which group, which are large enough, and which counts may be seen."""

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.disclosure import HIDDEN
from pipeline.params import load
from pipeline.questions.fair.subgroups import (
    ATTRIBUTES,
    WHOLE,
    Grouping,
    age_labels,
    common_labels,
    enough,
    grouping,
    lines,
    shown,
    sizes,
)
from pipeline.tasks import LOS_EDGES

STAYS = pl.DataFrame(
    {
        "age": [39, 40, 59, 60, 79, 80, 101],
        "gender": ["F", "M", "M", "F", "F", "M", None],
        "race_group": ["WHITE", "OTHER", "UNKNOWN", None, "WHITE", "WHITE", "WHITE"],
        "admission_group": ["ELECTIVE"] * 7,
        "insurance": [None, "Medicare", "Medicare", "Other", "Other", "Other", "Other"],
        "has_cxr": [True, False, True, True, True, False, True],
    }
)
EDGES = (40, 60, 80)


def of(name):
    found = grouping(STAYS, name, EDGES)
    return [found.groups[code] for code in found.codes]


def test_age_is_cut_at_its_edges():
    assert age_labels(EDGES) == ("<40", "40–59", "60–79", "≥80")
    assert of("age") == ["<40", "40–59", "40–59", "60–79", "60–79", "≥80", "≥80"]
    assert grouping(STAYS[:2], "age", EDGES).groups == ("<40", "40–59")  # only those that are there


@given(st.lists(st.integers(18, 110), min_size=1), st.lists(st.integers(19, 100), min_size=1, max_size=5, unique=True))
def test_every_age_is_in_the_group_that_names_it(ages, edges):
    edges = sorted(edges)
    found = grouping(pl.DataFrame({"age": ages}), "age", edges)
    for age, code in zip(ages, found.codes, strict=True):
        name = found.groups[code]
        if name[0] == "<":
            assert age < int(name[1:])
        elif name[0] == "≥":
            assert age >= int(name[1:])
        else:
            low, high = map(int, name.split("–"))
            assert low <= age <= high


def test_what_is_not_known_is_a_group_of_its_own_apart_from_other():
    assert of("race") == ["WHITE", "OTHER", "UNKNOWN", "UNKNOWN", "WHITE", "WHITE", "WHITE"]
    assert of("insurance")[0] == "UNKNOWN"
    assert of("gender")[-1] == "UNKNOWN"
    assert of("has_cxr")[:2] == ["image", "no image"]
    assert set(of(WHOLE)) == {WHOLE}


def test_pairs_are_crossed():
    assert of("age+gender") == ["<40, F", "40–59, M", "40–59, M", "60–79, F", "60–79, F", "≥80, M", "≥80, UNKNOWN"]
    assert grouping(STAYS, "age+gender", EDGES).crossed


def test_sizes_count_stays_subjects_and_labels():
    found = sizes(
        Grouping("gender", ("F", "M"), np.array([0, 0, 0, 1])),
        np.array([5, 5, 6, 6]),
        np.array([[True, False], [True, False], [False, False], [True, True]]),
    )
    assert found.stays.tolist() == [3, 1]
    assert found.subjects.tolist() == [2, 1]
    assert found.positives.tolist() == [[2, 0], [1, 1]]
    assert found.negatives.tolist() == [[1, 3], [0, 0]]
    assert enough(found, 2, 1).tolist() == [[True, False], [False, False]]
    nobody = sizes(Grouping("age", (), np.zeros(0, int)), np.zeros(0, int), np.zeros((0, 2), bool))
    assert not enough(nobody, 1, 1).any()


def test_a_macro_mean_is_over_labels_that_all_its_groups_can_tell():
    large = np.array([[True, True, True, True], [True, True, False, False], [True, False, False, False]])
    groups, labels = common_labels(large)
    assert groups.tolist() == [True, True, False]  # the third could tell one of four
    assert labels.tolist() == [True, True, False, False]
    groups, labels = common_labels(np.array([[True, False], [False, True]]))  # no label in common
    assert not groups.any()
    assert not labels.any()
    groups, labels = common_labels(np.zeros((3, 2), bool))
    assert not groups.any()
    assert not labels.any()


def crossed(rows, columns):
    names = tuple(f"a{i}, b{j}" for i in range(rows) for j in range(columns))
    return Grouping("one+other", names, np.zeros(0, int))


@given(st.integers(1, 4), st.integers(1, 4), st.data())
@settings(deadline=None)
def test_no_count_below_the_limit_is_shown_or_follows_from_a_sum(rows, columns, data):
    counts = np.array(data.draw(st.lists(st.integers(0, 30), min_size=rows * columns, max_size=rows * columns)))
    for grouped in (crossed(rows, columns), Grouping("race", tuple(map(str, range(len(counts)))), np.zeros(0, int))):
        texts = shown(grouped, counts, counts < 10)
        for count, text in zip(counts, texts, strict=True):
            assert text == str(count) if text.isdigit() else text == ("<10" if count < 10 else HIDDEN)
            assert text.isdigit() <= (count >= 10)
        for line in lines(grouped):
            unseen = [i for i in line if not texts[i].isdigit()]
            assert len(unseen) != 1 or len(line) == 1
        if (counts >= 10).all():
            assert HIDDEN not in texts


def test_a_lone_suppressed_count_takes_the_smallest_other_with_it():
    race = Grouping("race", ("A", "B", "C"), np.zeros(0, int))
    assert shown(race, np.array([5, 40, 20]), np.array([True, False, False])) == ["<10", "40", HIDDEN]
    table = crossed(2, 3)
    counts = np.array([5, 40, 20, 30, 31, 32])
    assert shown(table, counts, counts < 10) == ["<10", "40", HIDDEN, HIDDEN, "31", HIDDEN]


def test_knobs_and_edges_agree_with_the_code():
    """params.py must not import what every stage would then depend on."""
    knobs = load().fairness
    assert knobs.long_stay_days in LOS_EDGES
    replace(knobs, pairs=tuple("+".join(pair) for pair in itertools.combinations(ATTRIBUTES, 2)))
