"""The known-answer tables on a planted truth made by hand: what an oracle reaches, and which verdicts are right."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.errors import InputError
from pipeline.evaluation.cells import read_people
from pipeline.params import Evaluation, Grid, load
from pipeline.questions.known.known import (
    KINDS,
    ceilings,
    features,
    judgement,
    known_answers,
    known_markdown,
    nothing_known,
    read_truth,
    synthetic,
)
from pipeline.questions.when.gain import gain, source
from pipeline.tasks import get_task, phenotype_slugs
from tests.support.made_up_runs import fabricate, training

SCALE = training(folds=(0, 1))
GRID = Grid(("lstm", "resnet", "late_fusion"), ("mortality", "phenotype"))
RULE = replace(load().verdicts, permutations=99)
SLUGS = phenotype_slugs()
EFFECTS = {  # the first phenotypes, one of each kind; the others are noise
    "ehr_only": {"causes": {"kidney": 2.5}},
    "cxr_only": {"causes": {"aorta": 2.5}},
    "complementary": {"causes": {"kidney": 1.8, "aorta": 1.8}},
    "synergistic": {"causes": {}, "interaction": {"log_odds": 3.0, "sign_of_product": ["kidney", "aorta"]}},
    "redundant": {"causes": {"pacing": 2.5}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Artefacts whose phenotypes follow a structural model that is written beside them."""
    root = tmp_path_factory.mktemp("known")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=3000)
    data = root / "data"
    stays = pl.read_parquet(data / "cohort" / "stays.parquet")
    labels = pl.read_parquet(data / "cohort" / "labels.parquet")
    random = np.random.default_rng(5)
    cause = {name: random.normal(size=stays.height) for name in ("kidney", "aorta", "pacing")}
    kinds = list(EFFECTS) + ["noise"] * (len(SLUGS) - len(EFFECTS))
    model, planted = {"phenotypes": {}}, {}
    for slug, kind in zip(SLUGS, kinds, strict=True):
        effect = {"causes": {}, **EFFECTS.get(kind, {}), "kind": kind}
        logit = sum((c * cause[name] for name, c in effect["causes"].items()), np.zeros(stays.height)) - 0.5
        if "interaction" in effect:
            logit = logit + 3.0 * np.sign(cause["kidney"] * cause["aorta"])
        planted[f"p_{slug}"] = 1 / (1 + np.exp(-logit))
        labels = labels.with_columns(pl.Series(slug, random.random(stays.height) < planted[f"p_{slug}"]))
        model["phenotypes"][slug] = effect
    model["icu_mortality"] = {"kind": "noise", "causes": {}}
    planted["p_icu_mortality"] = np.full(stays.height, 0.1)
    seen = {"ehr_kidney": "kidney", "cxr_aorta": "aorta", "ehr_pacing": "pacing", "cxr_pacing": "pacing"}
    shown = {name: cause[of] + 0.3 * random.normal(size=stays.height) for name, of in seen.items()}
    labels.write_parquet(data / "cohort" / "labels.parquet")
    (data / "truth").mkdir()
    (data / "truth" / "model.json").write_text(json.dumps(model))
    pl.DataFrame({"stay_id": stays["stay_id"].cast(pl.Int64), **planted, **shown}).write_parquet(
        data / "truth" / "planted.parquet"
    )
    return data


@pytest.fixture(scope="module")
def answers(made):
    reading = source(made, GRID, SCALE, Evaluation(0.95, 10, 1), RULE, 60)
    found = gain(reading)
    return reading, found.table, known_answers(reading, found.table)


def reached(made, kind, cohort):
    people = read_people(made, [get_task("phenotype")], (0, 1))
    slug = SLUGS[list(EFFECTS).index(kind)] if kind in EFFECTS else SLUGS[-1]
    return ceilings(people, read_truth(made, [slug]), slug, cohort)


@pytest.mark.parametrize("cohort", ["base", "matched"])
def test_an_oracle_sees_what_its_modality_shows(made, cohort):
    for kind in ("ehr_only", "noise"):
        found = reached(made, kind, cohort)
        assert found["both"] == found["ehr"]
        assert found["cxr"] == 0.5
    assert reached(made, "noise", cohort)["planted"] == 0.5
    alone = reached(made, "cxr_only", cohort)
    assert alone["ehr"] == 0.5
    assert alone["both"] == alone["cxr"] > 0.6
    added = reached(made, "complementary", cohort)
    assert added["planted"] > added["both"] > added["ehr"] + 0.03
    hidden = reached(made, "synergistic", cohort)
    assert (hidden["ehr"], hidden["cxr"]) == (0.5, 0.5)
    assert hidden["both"] > (0.75 if cohort == "matched" else 0.55)
    twice = reached(made, "redundant", cohort)
    assert abs(twice["both"] - twice["ehr"]) < 0.03


def test_the_planted_ceiling_is_scikit_learns(made):
    people = read_people(made, [get_task("phenotype")], (0, 1))
    planted = pl.read_parquet(made / "truth" / "planted.parquet")
    test = people.filter("has_cxr", part="test").join(planted, on="stay_id")
    naive = [roc_auc_score(fold[SLUGS[0]], fold[f"p_{SLUGS[0]}"]) for fold in test.partition_by("fold")]
    assert reached(made, "ehr_only", "matched")["planted"] == pytest.approx(np.mean(naive))


def test_without_an_image_a_radiograph_shows_nothing(made):
    truth = read_truth(made, SLUGS)
    people = (
        read_people(made, [get_task("phenotype")], (0,)).join(truth.planted, on="stay_id").filter(~pl.col("has_cxr"))
    )
    effects = truth.effects
    assert not features(people, effects[SLUGS[1]], ("ehr", "cxr")).any()
    assert features(people, effects[SLUGS[2]], ("ehr", "cxr")).any(axis=0).tolist() == [True, False]
    assert not features(people, effects[SLUGS[3]], ("ehr", "cxr")).any()
    assert features(people, effects[SLUGS[3]], ("ehr",)).shape[1] == 0


@pytest.mark.parametrize(
    ("verdict", "attainable", "found"),
    [
        ("gain", 0.05, "right"),
        ("gain", 0.01, "wrong"),
        ("no gain", 0.01, "right"),
        ("no gain", 0.011, "wrong"),
        ("undetermined", 0.05, "undetermined"),
        (None, 0.05, None),
        ("gain", None, None),
    ],
)
def test_a_verdict_is_judged_by_the_attainable_gain(verdict, attainable, found):
    assert judgement(verdict, attainable, 0.01) == found


def test_rows_are_those_of_the_confirmatory_family(answers):
    _, gains, (by_label, _) = answers
    confirmed = gains.filter(pl.col("label") != "macro", family="confirmatory")
    assert by_label.select("task", "cohort", "label").rows() == confirmed.select("task", "cohort", "label").rows()
    assert by_label["found"].to_list() == confirmed["difference"].to_list()
    assert by_label.filter(label="icu_mortality")["kind"].to_list() == ["noise", "noise"]


def test_kinds_are_macro_means_over_their_phenotypes(answers):
    _, gains, (by_label, kinds) = answers
    assert kinds.select("cohort", "kind").rows() == [(c, k) for c in ("base", "matched") for k in KINDS]
    for row in kinds.iter_rows(named=True):
        labels = by_label.filter(cohort=row["cohort"], kind=row["kind"], task="phenotype")["label"]
        each = gains.filter(
            pl.col("label").is_in(labels.implode()),
            cohort=row["cohort"],
            metric="auroc",
            stratum="all",
            task="phenotype",
        )
        assert row["labels"] == len(labels)
        assert row["difference"] == pytest.approx(each["difference"].mean())
        assert row["low"] < row["high"]


def test_markdown_and_the_empty_case(answers):
    _, _, (by_label, kinds) = answers
    text = known_markdown(by_label, kinds)
    assert text.count("undetermined.") == 2
    assert "NaN" not in text
    assert "answers known" in known_markdown(*nothing_known())


def test_only_a_synthetic_hospital_has_known_answers(made, tmp_path):
    assert synthetic(made)
    (tmp_path / "manifest.json").write_text(
        json.dumps({"mimiciv": {"kind": "demo"}, "mimic_cxr": {"kind": "synthetic"}})
    )
    assert not synthetic(tmp_path)
    with pytest.raises(InputError, match=r"manifest\.json: not found"):
        synthetic(tmp_path / "none")
    with pytest.raises(InputError, match=r"model\.json: not found"):
        read_truth(tmp_path, SLUGS)
    with pytest.raises(InputError, match=r"model\.json: no los_class"):
        read_truth(made, ["los_class"])
