"""The plots of dvc.yaml: their templates name columns that the tables have."""

import json
import re

import pytest
import yaml

from pipeline.closure import ROOT
from pipeline.presentation.figures import PALETTE

PLOTS = {name: plot for each in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] for name, plot in each.items()}


def test_the_questions_are_plotted():
    assert set(PLOTS) == {"gain", "ranking", "roc", "precision_recall", "calibration", "history"}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_names_columns_of_its_table(name):
    ((path, column),) = PLOTS[name]["y"].items()
    columns = set((ROOT / path).read_text().split("\n", 1)[0].split(","))
    text = (ROOT / ".dvc/plots" / f"{PLOTS[name]['template']}.json").read_text()
    optional = {"rev", "x", "y", "zero", "fold", "seed", "train_missing"}
    fields = {each for each in re.findall(r'"field": "(\w+)"', text) if not each.startswith("DVC")} - optional
    assert {column, PLOTS[name]["x"], *fields, *re.findall(r"datum\.(\w+)", text)} <= columns
    json.loads(text)


@pytest.mark.parametrize("template", ["by_strategy", "calibration"])
def test_colours_and_dashes_tell_28_strategies_apart(template):
    """Both cycle by the same order, and their lengths share no divisor."""
    text = (ROOT / ".dvc/plots" / f"{template}.json").read_text()
    assert all(f'"{color}"' in text for color in PALETTE)
    dashes = json.loads(re.search(r'"strokeDash": \{"field": "strategy".*?"range": (\[\[.*?\]\])', text)[1])
    assert len({(i % len(PALETTE), i % len(dashes)) for i in range(28)}) == 28
