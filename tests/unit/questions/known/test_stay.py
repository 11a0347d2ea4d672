"""The known answer of length of stay, where record and radiograph each show one half of it exactly."""

import json

import numpy as np
import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.evaluation.cells import read_people
from pipeline.params import Evaluation, Grid
from pipeline.questions.known import section
from pipeline.questions.known.known import known_answers
from pipeline.questions.known.stay import ceilings
from pipeline.questions.known.tables import known_markdown, write
from pipeline.questions.known.truth import P_STAY, STAY, read_truth
from pipeline.questions.when.gain import gain
from pipeline.questions.when.information import information_table
from pipeline.questions.when.source import source
from pipeline.tasks import get_task
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import MODALITIES, fabricate, training
from tests.support.when import RULE

SCALE = training(folds=(0, 1))
GRID = Grid(("lstm", "resnet", "late_fusion"), (STAY,))
SURE, ELSE = 0.9, 0.1 / 6  # of the class that the two causes name, and of each other one


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The record shows whether the class is above 1, the radiograph whether it is odd."""
    root = tmp_path_factory.mktemp("stay")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=1500)
    add_probes(root, {name: (MODALITIES.get(name, ["cxr", "ehr"]), "complete") for name in GRID.strategies}, GRID.tasks)
    stays = pl.read_parquet(root / "data/cohort/stays.parquet")
    random = np.random.default_rng(5)
    high, odd = (random.random(stays.height) < share for share in (0.5, 0.4))
    p = np.where(np.arange(7)[None, :] == (2 * high + odd)[:, None], SURE, ELSE)
    columns = {name: p[:, k] for k, name in enumerate(P_STAY)}
    shown = {"ehr_kidney": np.where(high, 1.0, -1.0), "cxr_aorta": np.where(odd, 1.0, -1.0)}
    (root / "data/truth").mkdir()
    (root / "data/truth/model.json").write_text(
        json.dumps({"phenotypes": {}, STAY: {"kind": "complementary", "causes": {"kidney": 1.0, "aorta": 1.0}}})
    )
    pl.DataFrame({"stay_id": stays["stay_id"].cast(pl.Int64), **columns, **shown}).write_parquet(
        root / "data/truth/planted.parquet"
    )
    return root / "data"


def reached(made, cohort, truth=None):
    people = read_people(made, [get_task(STAY)], (0, 1), ["gender"])
    return ceilings(people, truth or read_truth(made, [STAY]), cohort)


def by_hand(made, cohort):
    """Of the record alone and of both: who does not see whether the class is odd says that it is not."""
    planted = pl.read_parquet(made / "truth/planted.parquet")
    test = read_people(made, [get_task(STAY)], (0, 1), ["gender"]).filter(part="test").join(planted, on="stay_id")
    test = test.filter("has_cxr") if cohort == "matched" else test
    even = pl.when(pl.col("cxr_aorta") < 0).then(SURE).otherwise(ELSE)
    folds = test.with_columns(ehr=even, both=pl.when("has_cxr").then(SURE).otherwise(even)).partition_by("fold")
    return [np.mean([fold[name].mean() for fold in folds]) for name in ("ehr", "both")]


@pytest.mark.parametrize("cohort", ["base", "matched"])
def test_each_oracle_is_as_right_as_what_it_sees_allows(made, cohort):
    found, (ehr, both) = reached(made, cohort), by_hand(made, cohort)
    assert found["planted"] == pytest.approx(SURE)
    assert found["ehr"] == pytest.approx(ehr)
    assert found["both"] == pytest.approx(both)
    assert found["cxr"] < found["both"] - 0.1
    if cohort == "matched":
        assert both == pytest.approx(SURE)


def test_who_sees_nothing_says_the_commonest_class(made, tmp_path):
    truth = read_truth(made, [STAY])
    blind = truth.planted.drop("ehr_kidney", "cxr_aorta")
    found = reached(made, "base", type(truth)(truth.effects, blind))
    p = blind.select(P_STAY).mean().row(0)
    assert found["ehr"] == found["cxr"] == found["both"] == pytest.approx(max(p), abs=0.02)


def test_stays_of_which_the_model_does_not_speak_are_left_out(made):
    truth = read_truth(made, [STAY])
    silent = pl.when(pl.col("stay_id") % 2 == 0).then(None)
    half = truth.planted.with_columns(silent.otherwise(pl.col(name)).alias(name) for name in P_STAY)
    assert reached(made, "matched", type(truth)(truth.effects, half))["planted"] == pytest.approx(SURE)
    none = truth.planted.with_columns(pl.lit(None, pl.Float64).alias(name) for name in P_STAY)
    assert set(reached(made, "matched", type(truth)(truth.effects, none)).values()) == {None}


def test_the_verdict_is_held_against_it_and_the_page_has_a_line(made, tmp_path):
    reading = source(made, GRID, SCALE, Evaluation(0.95, 10, 1), RULE, 60)
    gains = gain(reading).table
    found = known_answers(reading, gains, information_table(reading))
    assert found.by_label.select("task", "cohort", "label").rows() == [
        (STAY, cohort, "macro") for cohort in ("base", "matched")
    ]
    assert (found.kinds.height, found.rules.height) == (0, 0)  # those are of single labels
    for row in found.by_label.iter_rows(named=True):
        ehr, both = by_hand(made, row["cohort"])
        assert row["attainable"] == pytest.approx(both - max(ehr, row["oracle_image"]))
        own = gains.filter(task=STAY, cohort=row["cohort"], family="confirmatory").row(0, named=True)
        assert (row["found"], row["verdict"], row["kind"]) == (own["difference"], own["verdict"], "complementary")
    write(found, tmp_path)
    told = section.answer(tmp_path, RULE)
    base, matched = found.by_label.iter_rows(named=True)
    assert told.sentence == (
        "Of length of stay, accuracy to be gained over the better modality (margin 0.01): "
        f"{base['attainable']:.3f} in the base cohort ({section.judged(base)}) and "
        f"{matched['attainable']:.3f} in the matched cohort ({section.judged(matched)})."
    )
    assert [table.rows[0][0] for table in told.tables] == ["Length of stay"] * 2
    assert "| los |" in known_markdown(found)


def test_a_verdict_is_called_right_or_wrong_in_the_line():
    row = {"verdict": "gains", "judgement": "wrong"}
    assert section.judged(row) == "“gains”: wrong"
    assert section.judged(row | {"verdict": "undetermined", "judgement": "undetermined"}) == "“undetermined”"
    assert section.judged(dict.fromkeys(row)) == "no verdict"


def test_a_planted_probability_that_is_absent_is_named(made, tmp_path):
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/model.json").write_bytes((made / "truth/model.json").read_bytes())
    pl.read_parquet(made / "truth/planted.parquet").drop("p_los_6").write_parquet(tmp_path / "truth/planted.parquet")
    with pytest.raises(InputError, match=r"planted\.parquet: .*p_los_6"):
        read_truth(tmp_path, [STAY])
