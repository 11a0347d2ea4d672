"""The strategy that CONTRIBUTING.md adds as an example: dropped into a copy of the project, checked and trained."""

import re
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.end_to_end.project import call, copy_project
from tests.support.made_up_data import fabricate

CHECK = "from pipeline.modelling.checks import check_strategy; check_strategy('gated', tasks=['mortality'])"


def example(root: Path, language: str) -> str:
    """The one block of that language in CONTRIBUTING.md's section on strategies."""
    section = (root / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## A strategy\n")[1].split("\n## ")[0]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return block


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("third-party")
    copy_project(root, folder)
    (folder / "pipeline/strategies/gated.py").write_text(example(root, "python"), encoding="utf-8")
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["strategies"] |= yaml.safe_load(example(root, "yaml"))["strategies"]
    params["grid"] = {"strategies": ["gated"], "tasks": ["mortality"], "ensembles": []}
    params["training"]["device"] = "cpu"
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    fabricate(folder / "data", n=60)
    return folder


def test_it_keeps_the_contract_and_is_trained(project):
    call(project, sys.executable, "-c", CHECK)
    call(project, sys.executable, "-m", "stages.tune")
    call(project, sys.executable, "-m", "stages.train", "gated")
    cell = project / "data/runs/gated"
    predictions = pl.read_parquet(cell / "mortality/predictions.parquet")
    assert predictions.height > 0
    assert predictions["p_icu_mortality"].is_between(0, 1).all()
    assert pl.read_csv(cell / "mortality/history.csv")["train_loss"].is_finite().all()
    assert "Arevalo" in (cell / "card.json").read_text(encoding="utf-8")


def test_it_is_written_as_the_project_is(project):
    path = "pipeline/strategies/gated.py"
    for command in (["check"], ["format", "--check"]):
        call(project, sys.executable, "-m", "ruff", *command, path)
