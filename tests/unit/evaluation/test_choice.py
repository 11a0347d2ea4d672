"""What kind a strategy is, and which of several validation chooses, label by label."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.errors import InputError
from pipeline.evaluation.choice import Card, Validation, chosen, chosen_by_label, read_card, validation
from pipeline.evaluation.scores import MACRO
from pipeline.tasks import get_task
from tests.support.made_up_runs import add_ensemble, fabricate, training


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


def test_an_ensemble_is_of_a_kind_of_its_own_whatever_it_looks_at(tmp_path):
    fabricate(tmp_path, training(folds=(0,)), ["lstm", "late_fusion"], ["los"], stays=60)
    for of, kind in (("lstm", "unimodal"), ("late_fusion", "fusion")):
        add_ensemble(tmp_path / "data", f"of_{of}", of)
        assert read_card(tmp_path / "data", of).kind == kind
        assert read_card(tmp_path / "data", f"of_{of}").kind == "ensemble"


def test_what_a_choice_looks_at_is_the_mean_over_runs_of_the_cohorts_own_validation_stays():
    random, task = np.random.default_rng(0), get_task("mortality")
    p, truth = random.random((60, 1)), random.random((60, 1)) < 0.5
    image = random.random(60) < 0.5
    one = predictions(task, p[:30], truth[:30], has_cxr=image[:30])
    two = predictions(task, p[30:], truth[30:], has_cxr=image[30:], fold=1)
    test = predictions(task, truth.astype(float), truth, part="test")  # perfect, and not looked at
    found = validation(pl.concat([one, two, test]), task)["icu_mortality"]
    halves = [(truth[:30], p[:30]), (truth[30:], p[30:])]
    assert found.score == pytest.approx(np.mean([roc_auc_score(*half) for half in halves]))
    assert found.loss == pytest.approx(np.mean([log_loss(half[0][:, 0], half[1][:, 0]) for half in halves]))
    matched = one.with_columns(train_cohort=pl.lit("matched"))
    seen = image[:30]
    own = validation(matched, task)["icu_mortality"]
    assert own.score == pytest.approx(roc_auc_score(truth[:30][seen], p[:30][seen]))
    assert validation(test, task) == {"icu_mortality": Validation(None, None)}
    nobody = validation(predictions(task, p, np.zeros((60, 1), bool)), task)["icu_mortality"]
    assert nobody == Validation(None, pytest.approx(-np.log(1 - p).mean()))


def test_phenotypes_have_a_score_each_and_their_mean_and_length_of_stay_its_accuracy():
    random, task = np.random.default_rng(1), get_task("phenotype")
    p, truth = random.random((80, 25)), random.random((80, 25)) < 0.3
    truth[:, 3] = False
    found = validation(predictions(task, p, truth), task)
    each = [roc_auc_score(truth[:, i], p[:, i]) for i in range(25) if i != 3]
    assert [found[label].score for i, label in enumerate(task.labels) if i != 3] == pytest.approx(each)
    assert found[task.labels[3]].score is None
    assert found[MACRO].score == pytest.approx(np.mean(each))
    assert found[MACRO].loss == pytest.approx(np.mean([found[label].loss for label in task.labels]))
    los = get_task("los")
    p, truth = random.random((80, 7)), random.integers(0, 7, (80, 1))
    p /= p.sum(axis=1, keepdims=True)
    of = validation(predictions(los, p, truth), los)
    assert of == {MACRO: (pytest.approx((p.argmax(1) == truth[:, 0]).mean()), pytest.approx(log_loss(truth[:, 0], p)))}


def test_of_equals_the_lower_loss_is_chosen_then_the_first_by_name_whatever_the_order_of_the_grid():
    known = {
        "a": Validation(0.7, 0.1),
        "c": Validation(0.9, 0.4),
        "b": Validation(0.9, 0.4),
        "d": Validation(None, 0.0),
        "e": Validation(0.9, 0.3),
        "f": Validation(0.9, None),
    }
    assert chosen(known, known) == "e"
    assert chosen(known, ["c", "b", "f"]) == "b"
    assert chosen(known, ["f", "a"]) == "f"
    assert chosen(known, ["d"]) is None
    assert chosen(known, []) is None
    assert chosen({}, ["a"]) is None


def test_each_label_has_a_choice_of_its_own_and_one_without_a_positive_the_headlines():
    task = get_task("phenotype")
    first, second, third = task.labels[:3]
    same = dict.fromkeys(task.labels, Validation(0.5, 0.5))
    one = same | {first: Validation(0.9, 0.5), third: Validation(None, 0.1), MACRO: Validation(0.6, 0.5)}
    two = same | {second: Validation(0.9, 0.5), third: Validation(None, 0.2), MACRO: Validation(0.7, 0.5)}
    found = chosen_by_label({"one": one, "two": two, "left out": one}, ["one", "two"], task)
    assert [found[label] for label in (first, second, third, task.labels[3], MACRO)] == [
        "one",
        "two",
        "two",
        "one",
        "two",
    ]
    nothing = dict.fromkeys((*task.labels, MACRO), Validation(None, None))
    assert chosen_by_label({"one": nothing}, ["one"], task) == {}
    assert chosen_by_label({}, [], task) == {}


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
