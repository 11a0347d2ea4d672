"""Who belongs to which group, which are large enough, and which counts may be seen; who is chosen on validation."""

import itertools
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline.disclosure import HIDDEN
from pipeline.errors import InputError
from pipeline.evaluation.choice import Card, chosen, read_card, validation_score
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
from pipeline.tasks import LOS_EDGES, get_task

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


def predictions(task, p, truth, part="val", cohort="base", has_cxr=True, fold=0):
    n = len(p)
    return pl.DataFrame(
        {
            "train_cohort": [cohort] * n,
            "fold": [fold] * n,
            "seed": [0] * n,
            "part": [part] * n,
            "has_cxr": np.broadcast_to(has_cxr, n),
            **{f"p_{name}": np.asarray(p)[:, i] for i, name in enumerate(task.outputs)},
            **{name: np.asarray(truth)[:, i] for i, name in enumerate(task.labels)},
        }
    )


def test_the_score_on_validation_is_the_mean_over_runs_of_the_cohorts_own_stays():
    random, task = np.random.default_rng(0), get_task("mortality")
    p, truth = random.random((60, 1)), random.random((60, 1)) < 0.5
    image = random.random(60) < 0.5
    one = predictions(task, p[:30], truth[:30], has_cxr=image[:30])
    two = predictions(task, p[30:], truth[30:], has_cxr=image[30:], fold=1)
    test = predictions(task, truth.astype(float), truth, part="test")  # perfect, and not looked at
    expected = (roc_auc_score(truth[:30], p[:30]) + roc_auc_score(truth[30:], p[30:])) / 2
    assert validation_score(pl.concat([one, two, test]), task) == pytest.approx(expected)
    matched = one.with_columns(train_cohort=pl.lit("matched"))
    seen = image[:30]
    assert validation_score(matched, task) == pytest.approx(roc_auc_score(truth[:30][seen], p[:30][seen]))
    assert validation_score(test, task) is None
    assert validation_score(predictions(task, p, np.zeros((60, 1), bool)), task) is None


def test_phenotypes_are_scored_by_their_macro_mean_and_length_of_stay_by_accuracy():
    random, task = np.random.default_rng(1), get_task("phenotype")
    p, truth = random.random((80, 25)), random.random((80, 25)) < 0.3
    truth[:, 3] = False
    each = [roc_auc_score(truth[:, i], p[:, i]) for i in range(25) if i != 3]
    assert validation_score(predictions(task, p, truth), task) == pytest.approx(np.mean(each))
    los = get_task("los")
    p, truth = random.random((80, 7)), random.integers(0, 7, (80, 1))
    expected = (p.argmax(1) == truth[:, 0]).mean()
    assert validation_score(predictions(los, p, truth), los) == pytest.approx(expected)


def test_the_first_of_the_best_is_chosen_among_those_asked_for():
    scores = {"a": 0.7, "b": 0.9, "c": 0.9, "d": None, "e": 0.95}
    assert chosen(scores, ["a", "b", "c", "d"]) == "b"
    assert chosen(scores, ["c", "b"]) == "c"
    assert chosen(scores, ["d"]) is None
    assert chosen(scores, []) is None
    assert chosen({}, ["a"]) is None


@pytest.mark.parametrize(
    ("sees", "kind"),
    [(["cxr", "ehr"], "fusion"), (["ehr"], "unimodal"), (["cxr"], "unimodal"), (["ehr", "presence"], "control")],
)
def test_the_kind_of_a_strategy_stands_on_its_cells_card(tmp_path, sees, kind):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps({"modalities": sees, "missing": "native"}))
    card = read_card(tmp_path, "one")
    assert card == Card(frozenset(sees), "native")
    assert card.kind == kind


@pytest.mark.parametrize(("text", "message"), [("", "no modalities"), ("{}", "no modalities"), (None, "not found")])
def test_a_card_that_is_absent_or_does_not_say_is_refused(tmp_path, text, message):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "card.json").write_text(text)
    with pytest.raises(InputError, match=rf"card\.json: {message}"):
        read_card(tmp_path, "one")


def test_knobs_and_edges_agree_with_the_code():
    """params.py must not import what every stage would then depend on."""
    knobs = load().fairness
    assert knobs.long_stay_days in LOS_EDGES
    replace(knobs, pairs=tuple("+".join(pair) for pair in itertools.combinations(ATTRIBUTES, 2)))
