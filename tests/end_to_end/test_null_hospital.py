"""Hospitals in which nothing can be gained: from training to verdicts, how often a gain is said all the same.

Small hospitals (tests/support/made_up_data.py) whose images are permuted among patients before anybody is trained;
fusion has the very encoders of the single modalities. Only who has an image is looked at, since whether there is one
tells something in these hospitals. The sister compares a strategy with itself trained from another seed. A family is
all labels of a hospital and their mean. FUSION_NULL_HOSPITALS: how many (20; about ten seconds each).
"""

import dataclasses
import math
import os
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.estimation.verdicts import GAINS, LOSES, NOT_TESTABLE, judge
from pipeline.evaluation.scores import headline
from pipeline.params import Evaluation, Grid, load
from pipeline.questions.when.contest import CONFIRMATORY, Contest, Side
from pipeline.questions.when.gain import gain
from pipeline.questions.when.source import cells, source
from pipeline.tasks import get_task
from pipeline.training.cell import train_cell
from pipeline.training.probe import probe
from pipeline.training.store import Store, data_fingerprint
from tests.support.made_up_data import fabricate
from tests.support.runs import SCALE, grid

HOSPITALS = int(os.environ.get("FUSION_NULL_HOSPITALS", "20"))
STAYS = 700  # half of them with an image
EHR, IMAGE, FUSION = STRATEGIES = ("transformer", "resnet", "late_fusion")
TASK = get_task("phenotype")
SIZES = {"cohorts": ("matched",), "folds": (0, 1, 2), "batch_size": 32, "max_epochs": 3}
PARAMS = load()
RULE = dataclasses.replace(PARAMS.verdicts, fusion=(FUSION,))
LEVEL = 0.05  # both sides of the family-wise 2.5 %


class Told(NamedTuple):
    """Verdicts of a hospital: fusion's, those of a strategy on itself, and of that one after it was told an outcome."""

    fusion: list[str]
    itself: list[str]
    cheated: list[str]


def hospital(folder, seed):
    """A hospital's data, with the images of other patients."""
    data = fabricate(folder / "data", n=STAYS, seed=seed)
    path = data / "images/pixels.npy"
    pixels = np.load(path)
    np.save(path, np.random.default_rng(seed).permutation(pixels))
    return data


def train(strategy, folder, data, out, seed=0):
    specs = grid(PARAMS.training, strategy, TASK.name, **SIZES, seeds=(seed,))
    store = Store(folder / "work", data_fingerprint(data))
    train_cell(specs, store, data, out / "runs" / strategy)
    return specs, store


def side(cell):
    return Side(dict.fromkeys((*TASK.labels, headline(TASK)), cell.strategy), cell.runs)


def against(known, own, other):
    """The verdicts of a hospital where one cell is held against another in both roles."""
    opponents = dict.fromkeys(("ehr", "image", "single"), side(other))
    entries = Contest(known, TASK, "matched", opponents).compare(side(own), None, {})
    family = [entry.case for entry in entries if entry.row["family"] == CONFIRMATORY]
    return [each.word for each in judge(family, known.rule, known.evaluation.seed)]


def verdicts(folder, seed):
    data = hospital(folder, seed)
    for strategy in STRATEGIES:
        specs, store = train(strategy, folder, data, data)
    probe(specs, store, data, data / "probes" / FUSION, PARAMS.scales["tiny"].probe)
    scale = dataclasses.replace(SCALE, **SIZES)
    known = source(data, Grid(STRATEGIES, (TASK.name,)), scale, Evaluation(0.95, 15, 1), RULE, 300)
    table = gain(known).table.filter(family=CONFIRMATORY)
    assert table.height == len(TASK.labels) + 1

    train(EHR, folder, data, folder / "again", seed=1)
    apart = dataclasses.replace(known, data=folder / "again", training=dataclasses.replace(scale, seeds=(1,)))
    ((_, first),) = cells(known, TASK, EHR)
    ((_, second),) = cells(apart, TASK, EHR)
    told = [dataclasses.replace(run, scores=run.scores + 0.3 * run.truth) for run in first.runs]
    return Told(
        table["verdict"].to_list(),
        against(known, first, second),
        against(known, dataclasses.replace(first, runs=tuple(told)), second),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        patch.setenv("FUSION_EXECUTOR", "inline")
        return [verdicts(tmp_path_factory.mktemp("null"), seed) for seed in range(HOSPITALS)]


def hospitals_with(word, families):
    """In how many hospitals the word is said at all, with all that is said."""
    said = Counter(word for family in families for word in family)
    return sum(word in family for family in families), dict(said)


@pytest.mark.slow
def test_where_nothing_can_be_gained_hardly_a_hospital_says_gains(found):
    gained, said = hospitals_with(GAINS, [each.fusion for each in found])
    print(f"{HOSPITALS} null hospitals, {gained} with a gain: {said}")
    assert said.get(NOT_TESTABLE, 0) < 0.5 * sum(said.values())
    assert gained <= math.ceil(LEVEL * HOSPITALS), said


@pytest.mark.slow
def test_a_strategy_hardly_gains_over_or_loses_to_itself_from_another_seed(found):
    for word in (GAINS, LOSES):
        hospitals, said = hospitals_with(word, [each.itself for each in found])
        print(f"{HOSPITALS} hospitals, a strategy against itself, {hospitals} with {word!r}: {said}")
        assert said.get(NOT_TESTABLE, 0) < 0.5 * sum(said.values())
        assert hospitals <= math.ceil(LEVEL * HOSPITALS), said


@pytest.mark.slow
def test_a_gain_that_is_there_is_counted(found):
    """The same comparison, where one side's scores have been told the outcome."""
    hospitals, said = hospitals_with(GAINS, [each.cheated for each in found])
    assert hospitals == HOSPITALS, said
