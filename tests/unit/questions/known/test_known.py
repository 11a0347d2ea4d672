"""The known-answer tables on a planted truth made by hand: what an oracle reaches, and which verdicts are right."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.errors import InputError
from pipeline.evaluation.cells import read_people
from pipeline.params import Evaluation, Grid
from pipeline.questions.known.known import (
    KINDS,
    ceilings,
    judgement,
    kinds_right,
    known_answers,
    nothing_known,
    oracle,
)
from pipeline.questions.known.rules import RULES
from pipeline.questions.known.tables import known_markdown
from pipeline.questions.known.truth import Effect, features, read_truth, synthetic
from pipeline.questions.when.gain import gain
from pipeline.questions.when.information import information_table
from pipeline.questions.when.source import source
from pipeline.tasks import get_task, phenotype_slugs
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import MODALITIES, fabricate, training
from tests.support.when import RULE

SCALE = training(folds=(0, 1))
GRID = Grid(("lstm", "resnet", "late_fusion"), ("mortality", "phenotype"))
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
    add_probes(root, {name: (MODALITIES.get(name, ["cxr", "ehr"]), "complete") for name in GRID.strategies}, GRID.tasks)
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
    return reading, found.table, known_answers(reading, found.table, information_table(reading))


def reached(made, kind, cohort):
    people = read_people(made, [get_task("phenotype")], (0, 1), ["gender"])
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
        read_people(made, [get_task("phenotype")], (0,), ["gender"])
        .join(truth.planted, on="stay_id")
        .filter(~pl.col("has_cxr"))
    )
    effects = truth.effects
    assert not features(people, effects[SLUGS[1]], ("ehr", "cxr")).any()
    assert features(people, effects[SLUGS[2]], ("ehr", "cxr")).any(axis=0).tolist() == [True] + [False] * 7
    assert not features(people, effects[SLUGS[3]], ("ehr", "cxr")).any()
    assert features(people, effects[SLUGS[3]], ("ehr",)).shape[1] == 0


def drawn(count=8000, loss=0.8):
    """(train, test): stays whose radiographs show a cause, women's weakly; every fourth has none."""
    random = np.random.default_rng(3)
    female, z = random.random(count) < 0.5, random.normal(size=count)
    share = np.where(female, 1 - loss, 1.0)
    p = 1 / (1 + np.exp(-2.5 * z))
    frame = pl.DataFrame(
        {
            "gender": np.where(female, "F", "M"),
            "has_cxr": np.arange(count) % 4 < 3,
            "portable": random.random(count) < p,
            "cxr_aorta": share * z + np.sqrt(1 - share**2) * random.normal(size=count),
            "ehr_aorta": z + random.normal(size=count),
            "p_x": p,
            "x": random.random(count) < p,
        }
    )
    return frame[: count // 2], frame[count // 2 :]


def ranked(train, test, effect, seen=("cxr",)):
    return roc_auc_score(test["x"], oracle(train, test, "x", effect, seen))


@pytest.mark.parametrize("seen", [("cxr",), ("ehr", "cxr")])
def test_the_oracle_of_the_image_is_told_whose_it_is(seen):
    """Women's radiographs tell less: who knows the sex weighs them less, and ranks better."""
    parts, effect = drawn(), Effect("cxr_only", ("aorta",), None)
    blind = [part.with_columns(gender=pl.lit("M")) for part in parts]
    assert ranked(*parts, effect, seen) > ranked(*blind, effect, seen) + 0.01
    assert ranked(*parts, effect, ("ehr",)) == ranked(*blind, effect, ("ehr",))


def test_where_there_is_no_image_the_record_counts_for_more():
    train, test = drawn()
    effect = Effect("redundant", ("aorta",), None)
    without = test.filter(~pl.col("has_cxr"))
    both, alone = (oracle(train, without, "x", effect, seen) for seen in (("ehr", "cxr"), ("ehr",)))
    slope = [np.polyfit(without["ehr_aorta"], each, 1)[0] for each in (both, alone)]
    assert slope[0] == pytest.approx(slope[1], rel=0.2)  # as if no image had ever been seen
    with_image = test.filter("has_cxr", gender="M").with_columns(cxr_aorta=pl.lit(0.0))
    assert (
        np.polyfit(with_image["ehr_aorta"], oracle(train, with_image, "x", effect, ("ehr", "cxr")), 1)[0] < slope[0] / 2
    )


def test_traps_by_which_presence_or_view_tells_are_told_to_the_oracle(made, tmp_path):
    train, test = drawn()
    nothing = Effect("noise", (), None)
    assert features(test, nothing, ("ehr", "cxr")).shape[1] == 0
    by_presence = Effect("noise", (), None, by_presence=True)
    assert features(test, by_presence, ("cxr",))[:, 0].tolist() == test["has_cxr"].cast(float).to_list()
    assert features(test, by_presence, ("ehr",)).shape[1] == 0
    by_view = Effect("ehr_only", ("aorta",), None, by_view=True)
    told = test.drop("cxr_aorta")
    assert ranked(train.drop("cxr_aorta"), told, by_view) > 0.7
    model = json.loads((made / "truth" / "model.json").read_text())
    traps = {
        "label_by_image_presence": {"phenotype": SLUGS[-1]},
        "view_by_severity": {"severity": {"kidney": 1.5}},
    }
    (tmp_path / "truth").mkdir()
    (tmp_path / "cohort").mkdir()
    (tmp_path / "truth" / "model.json").write_text(json.dumps(model | {"traps": traps}))
    planted = pl.read_parquet(made / "truth" / "planted.parquet")
    planted.write_parquet(tmp_path / "truth" / "planted.parquet")
    views = pl.DataFrame({"stay_id": planted["stay_id"][:3], "rank": [1, 1, 2], "view": ["AP", "PA", "AP"]})
    views.write_parquet(tmp_path / "cohort" / "cxr.parquet")
    truth = read_truth(tmp_path, SLUGS)
    assert truth.planted["portable"].to_list()[:4] == [True, False, False, False]
    assert [truth.effects[slug].by_presence for slug in SLUGS] == [False] * 24 + [True]
    assert [truth.effects[slug].by_view for slug in SLUGS[:6]] == [True, False, True, True, False, False]


def test_the_oracle_learns_from_planted_probabilities_and_not_from_their_coin_flips():
    train, test = drawn()
    effect = Effect("ehr_only", ("aorta",), None)
    flipped = train.with_columns(x=~pl.col("x"))
    assert np.array_equal(*(oracle(part, test, "x", effect, ("ehr",)) for part in (train, flipped)))


@pytest.mark.parametrize(
    ("verdict", "beyond", "attainable", "found"),
    [
        ("gains", False, 0.004, "right"),
        ("gains", True, 0.004, "wrong"),
        ("gains", True, 0.011, "right"),
        ("gains", False, 0.0, "wrong"),
        ("no relevant gain", False, 0.01, "right"),
        ("no relevant gain", False, 0.011, "wrong"),
        ("equivalent", False, 0.0, "right"),
        ("equivalent", False, 0.02, "wrong"),
        ("loses", True, 0.05, "loses"),
        ("undetermined", False, 0.05, "undetermined"),
        ("not testable", False, 0.05, "not testable"),
        (None, None, 0.05, None),
        ("gains", False, None, None),
    ],
)
def test_a_verdict_is_judged_by_the_attainable_gain(verdict, beyond, attainable, found):
    assert judgement(verdict, beyond, attainable, 0.01) == found


def test_rows_are_those_of_the_confirmatory_family(answers):
    _, gains, found = answers
    confirmed = gains.filter(pl.col("label") != "macro", family="confirmatory")
    by_label = found.by_label
    assert by_label.select("task", "cohort", "label").rows() == confirmed.select("task", "cohort", "label").rows()
    assert by_label["found"].to_list() == confirmed["difference"].to_list()
    assert by_label.filter(label="icu_mortality")["kind"].to_list() == ["noise", "noise"]
    best = by_label.select(pl.max_horizontal("oracle_ehr", "oracle_image"))["oracle_ehr"]
    assert by_label["attainable"].to_list() == pytest.approx((by_label["oracle_both"] - best).clip(0).to_list())
    alone = by_label.filter(pl.col("kind").is_in(["ehr_only", "cxr_only", "noise"]))
    assert set(alone["attainable"]) == {0.0}  # nothing over the better modality


def test_kinds_are_macro_means_over_their_phenotypes(answers):
    _, gains, found = answers
    assert found.kinds.filter("chosen").select("cohort", "kind").rows() == [
        (c, k) for c in ("base", "matched") for k in KINDS
    ]
    for row in found.kinds.iter_rows(named=True):
        labels = found.by_label.filter(cohort=row["cohort"], kind=row["kind"], task="phenotype")["label"]
        each = gains.filter(
            pl.col("label").is_in(labels.implode()),
            cohort=row["cohort"],
            metric="auroc",
            stratum="all",
            task="phenotype",
            chosen=row["chosen"],
        )
        assert row["labels"] == len(labels) == each.height
        assert row["difference"] == pytest.approx(each["difference"].mean())
        assert row["low"] < row["high"]
        assert row["runs"] == 2


def test_every_rule_says_something_of_every_label_whose_truth_is_known(answers):
    rules = answers[2].rules
    assert rules.select("cohort", "rule").rows() == [(c, r) for c in ("base", "matched") for r in RULES]
    said = rules.select(pl.sum_horizontal("gain_right", "gain_wrong", "none_right", "none_wrong", "silent"))
    assert said["gain_right"].to_list() == rules["labels"].to_list() == [26] * 12
    ours = answers[2].by_label.filter(cohort="base")["judgement"].value_counts()
    counts = dict(ours.iter_rows())
    row = rules.filter(cohort="base", rule="ours").row(0, named=True)
    assert row["gain_right"] + row["none_right"] == counts.get("right", 0)
    assert row["gain_wrong"] + row["none_wrong"] == counts.get("wrong", 0)


def test_kinds_named_are_those_of_information_and_counted(answers):
    table = answers[2].by_label
    reading = answers[0]
    named = information_table(reading)
    joined = table.join(named.select("task", "cohort", "label", of="kind"), on=["task", "cohort", "label"], how="left")
    assert joined["named"].to_list() == joined["of"].to_list()
    rows = table.filter(task="phenotype", cohort="base").with_columns(
        named=pl.Series(["ehr_only", "cxr_only", "noise", "synergistic", None, *["noise"] * 20])
    )
    assert kinds_right(rows) == "23 of 25 phenotypes in the base cohort (24 testable)"


def test_markdown_and_the_empty_case(answers):
    text = known_markdown(answers[2])
    assert text.count("Information names the planted kind of") == 2
    assert text.count("paired t-test over folds") == 2
    assert "NaN" not in text
    assert "answers known" in known_markdown(nothing_known())


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
