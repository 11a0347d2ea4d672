"""What record and image tell: planted sources get their kind, and the table is what scikit-learn makes of the cells."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import rankdata
from sklearn.metrics import mutual_info_score

from pipeline.estimation.bootstrap import draw_subjects
from pipeline.evaluation.cells import read_predictions
from pipeline.evaluation.paired import ALL, Run
from pipeline.questions.when.contest import Side
from pipeline.questions.when.information import QUANTITIES, TITLES, information_table, named
from pipeline.questions.when.information import _of_label as of_label
from pipeline.tasks import get_task
from tests.support.when import SCALE, known, one

STAYS = 1500
SEEN = ("ehr", "image", "fusion")


def log_odds(kind, record, image, seen):
    """What a perfect score on record, image or both says of a label of a kind, up to its scale."""
    add = {
        "ehr_only": {"ehr": record, "image": 0 * image, "fusion": record},
        "cxr_only": {"ehr": 0 * record, "image": image, "fusion": image},
        "complementary": {"ehr": record, "image": image, "fusion": record + image},
        "synergistic": {"ehr": 0 * record, "image": 0 * image, "fusion": np.sign(record * image)},
        "redundant": {"ehr": record, "image": image, "fusion": record + image},
        "noise": dict.fromkeys(SEEN, 0 * record),
    }
    return add[kind][seen]


def sides(kind, noise=0.3):
    """Three folds of a label of a kind; in each 1,500 stays, whose scores are what can be known, and some noise."""
    runs = {name: [] for name in SEEN}
    for fold in range(3):
        random = np.random.default_rng([list(TITLES).index(kind), fold])
        record, image = random.normal(size=(2, STAYS))
        cause = log_odds(kind, record, image, "fusion")
        if kind == "redundant":
            cause = random.normal(size=STAYS)
            record, image = cause + 0.3 * random.normal(size=(2, STAYS))
        truth = (random.random(STAYS) < 1 / (1 + np.exp(1 - 1.5 * cause)))[:, None].astype(np.int64)
        draws = draw_subjects(np.arange(STAYS), 100, 1, "test", fold)
        for name in SEEN:
            scores = log_odds(kind, record, image, name) + noise * random.normal(size=STAYS)
            inside = {ALL: np.ones(STAYS, dtype=bool)}
            runs[name].append(Run(fold, 0, np.arange(STAYS), scores[:, None], truth, inside, draws))
    return {name: Side({}, tuple(each)) for name, each in runs.items()}


@pytest.mark.parametrize("kind", TITLES)
def test_a_planted_kind_is_named(kind):
    found = of_label(sides(kind), 0, 0.25)
    assert named(found, 0.95) == kind
    value = {name: found[name].value for name in QUANTITIES}
    assert value["unique_ehr"] + value["redundant"] == pytest.approx(value["ehr"])
    assert value["unique_image"] + value["redundant"] == pytest.approx(value["image"])
    atoms = ("unique_ehr", "unique_image", "redundant", "synergistic")
    assert sum(value[name] for name in atoms) == pytest.approx(value["both"])
    assert found["entropy"].value > value["both"] > 0
    if kind == "synergistic":
        assert value["synergistic"] > 0.9 * value["both"]


def test_a_fusion_score_that_knows_less_than_the_pair_takes_nothing_away():
    both = sides("complementary")
    deaf = both | {"fusion": Side({}, tuple(replace(run, scores=0 * run.scores) for run in both["fusion"].runs))}
    found = of_label(deaf, 0, 0.25)
    assert named(found, 0.95) == "complementary"
    assert found["both"].value <= of_label(both, 0, 0.25)["both"].value


def test_the_table_is_what_scikit_learn_makes_of_the_predictions(made, found):
    reading = known(made)
    table = information_table(reading)
    assert table["task"].unique().sort().to_list() == ["mortality", "phenotype"]
    assert table.height == 2 * 26
    row = one(table, task="phenotype", cohort="base", label="shock")
    chosen = found.chosen.filter(pl.col("chosen"), task="phenotype", cohort="base", label="shock")
    picked = dict(chosen.select("role", "strategy").iter_rows())
    assert {role: row[f"{role}_strategy"] for role in SEEN} == picked
    cell = read_predictions(made, get_task("phenotype"), picked["ehr"], SCALE, reading.people)
    runs = cell.filter(part="test", train_cohort="base").partition_by("fold", "seed", maintain_order=True)
    each = []
    for run in runs:
        scores, label = run["p_shock"].to_numpy(), run["shock"].to_numpy()
        quarter = (rankdata(scores, method="min") - 1) * 4 // len(scores)
        draws = reading.sampler.subjects("test", run["fold"][0])
        weights = np.concatenate(draws.blocks, axis=1)[draws.rows(run["subject_id"].to_numpy())]
        each.append([mutual_info_score(label[w > 0], quarter[w > 0]) / np.log(2) for w in weights.T])
    mean = np.mean(each, axis=0)
    assert row["ehr"] == pytest.approx(mean[0] - (mean[1:].mean() - mean[0]))
    assert row["ehr_low"] < row["ehr"] < row["ehr_high"]
    assert (row["runs"], row["note"]) == (4, None)


def test_too_few_positives_have_no_kind(made):
    reading = known(made)
    few = replace(reading, rule=replace(reading.rule, least_positives=10_000))
    assert information_table(few)["kind"].null_count() == 52
    some = information_table(replace(reading, rule=replace(reading.rule, least_positives=1)))
    assert set(some["kind"].drop_nulls()) <= set(TITLES)
    assert some["kind"].null_count() < 26
