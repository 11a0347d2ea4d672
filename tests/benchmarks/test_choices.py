"""tests/benchmarks/choices.py: which cells it asks for, on which stays, and the table."""

import csv
import sys

import pytest
import yaml

from pipeline.closure import ROOT
from pipeline.modelling.cards import read_card
from pipeline.params import load
from pipeline.presentation.text import number
from tests.benchmarks import choices, pictured
from tests.benchmarks.image_use import KINDS, Use


@pytest.fixture
def hospital(tmp_path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["scale"], params["scales"]["study"]["training"]["folds"] = "study", [2, 0]
    for name in pictured.HOSPITALS:
        (tmp_path / "1" / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "1" / "data" / name).touch()
    (tmp_path / "1" / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path / "1"


def test_both_values_of_a_knob_are_learned_in_the_first_fold_and_asked_on_dev(hospital, monkeypatch, tmp_path):
    made, asked = [], []
    monkeypatch.setattr(pictured.subprocess, "run", lambda command, cwd, **how: made.append((command[2:], cwd)))
    monkeypatch.setattr(choices, "data_fingerprint", lambda data: "0" * 12)
    monkeypatch.setattr(choices, "OUT", tmp_path / "choices.csv")
    monkeypatch.setattr(sys, "argv", ["choices", str(hospital), "training.start=scratch", "mmtm", "daft"])

    def uses(data, store, part, cells):
        asked.append((part, cells))
        return [Use(cells, 1, dict.fromkeys(KINDS, (0.5, 0.4, 0.6)), None)]

    monkeypatch.setattr(choices, "uses", uses)
    choices.main()
    assert [command for command, _ in made[:2]] == [["stages.tune"], ["stages.train", "mmtm"]]
    assert asked == [("dev", "mmtm")] * 2 + [("dev", "daft")] * 2
    of = [load(cwd / "params.yaml") for _, cwd in made[::2][:2]]
    assert len({cwd for _, cwd in made}) == 2
    assert [(each.training.start, each.scales["study"].training.folds) for each in of] == [
        ("unimodal", (2,)),
        ("scratch", (2,)),
    ]
    rows = list(csv.DictReader((tmp_path / "choices.csv").read_text().splitlines()))
    assert [(row["change"], row["strategy"], row["value"], row["cost"]) for row in rows] == [
        ("training.start", name, value, "") for name in ("daft", "mmtm") for value in ("scratch", "unimodal")
    ]


def test_a_row_takes_the_place_of_the_one_that_was_there():
    def row(value, auroc):
        kinds = dict.fromkeys(KINDS, (auroc, None, None))
        return choices.line(Use("mmtm", 1, kinds, (0.1, 0.0, 0.2)), "training.start", value)

    written = choices.table([row("scratch", 0.5), row("unimodal", 0.6)])
    again = list(csv.DictReader(choices.table([row("scratch", 0.7)], written).splitlines()))
    assert [(each["value"], each["synergistic"], each["cost_high"]) for each in again] == [
        ("scratch", "0.7000", "0.2000"),
        ("unimodal", "0.6000", "0.2000"),
    ]


def test_what_deviations_tells_of_the_start_is_in_the_table():
    rows = list(csv.DictReader(choices.OUT.read_text(encoding="utf-8").splitlines()))
    of = {(row["strategy"], row["value"]): row for row in rows if row["change"] == "training.start"}
    names = [name for name in sorted({name for name, _ in of}) if read_card(name).group == "fusion"]
    gains = {
        kind: [float(of[name, "unimodal"][kind]) - float(of[name, "scratch"][kind]) for name in names] for kind in KINDS
    }
    told = [f"{number(sum(each) / len(each))} ({sum(gain > 0 for gain in each)})" for each in gains.values()]
    text = (ROOT / "docs/deviations.md").read_text(encoding="utf-8")
    words = "in the mean {} on record-only labels (above 0 in so many), {} on image-only and {} on synergistic ones"
    assert f"{len(names)} fusion strategies, " + words.format(*told) in text
