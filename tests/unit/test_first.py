"""The first result's parts: its copy, DVC's stages one by one, an end by failure or by Ctrl-C, the lines at the end."""

import polars as pl
import pytest
import yaml

from pipeline import first
from pipeline.errors import InputError
from pipeline.questions.when.contest import SCHEMA
from tests.support.processes import at_work_in, wait_until


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A DVC project with the stages `one` and `two`; returns its folder, and what writes the command of `two`."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(first.APART)

    def write(command):
        stages = {"one": {"cmd": "echo 1 > one", "outs": ["one"]}, "two": {"cmd": command, "deps": ["one"]}}
        (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        return tmp_path

    return write


def test_the_copy_has_the_code_of_now_and_the_params_asked_for(root, tmp_path):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/gone.py").write_text("")
    (tmp_path / "data").mkdir()
    params = first.copy(root, tmp_path, ["grid.strategies=[lstm]", "strategies.lstm.lr=3e-4"])
    assert (params.scale, params.grid.strategies, params.grid.tasks) == ("tiny", ("lstm",), ("mortality",))
    assert params.strategies["lstm"]["lr"] == 3e-4
    assert not (tmp_path / "pipeline/gone.py").exists()
    assert (tmp_path / "data").is_dir()
    assert (tmp_path / "pipeline/first.py").read_bytes() == (root / "pipeline/first.py").read_bytes()
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_change_of_no_key_is_named(root, tmp_path):
    with pytest.raises(InputError, match=r"-S grid.nobody=1: \S+params.yaml has no such key"):
        first.copy(root, tmp_path, ["grid.nobody=1"])


def test_stages_are_told_one_by_one_and_again_as_made(small):
    folder = small("echo 2")
    assert list(first.repro(folder)) == [("one", True), ("two", True)]
    assert list(first.repro(folder)) == [("one", False), ("two", False)]


def test_a_stage_that_fails_is_told_in_its_words(small):
    folder = small("echo the disk is lost; exit 3")
    with pytest.raises(
        InputError, match=r"(?s)dvc repro ended with status \d+; \S+log.txt ends in\n.*the disk is lost"
    ):
        list(first.repro(folder))


def test_who_stops_early_leaves_nobody_at_work(small):
    folder = small("sleep 300")
    stages = first.repro(folder)
    assert [next(stages), next(stages)] == [("one", True), ("two", True)]
    assert wait_until(lambda: any("sleep" in line for line in at_work_in(folder)))
    stages.close()
    assert at_work_in(folder) == []


def test_the_result_is_the_headline_of_each_task(tmp_path):
    row = {"cohort": "base", "family": "confirmatory", "metric": "auroc", "n": "44", "verdict": "undetermined"}
    row |= {"strategy": "late_fusion", "ehr": "transformer", "image": "resnet"}
    row |= {"value": 0.74, "ehr_value": 0.67, "image_value": 0.5, "difference": -0.07, "low": -0.1, "high": 0.2}
    rows = [
        row | {"task": "mortality", "label": "icu_mortality"},
        row | {"task": "phenotype", "label": "shock"},
        row | {"task": "phenotype", "label": "macro", "verdict": "gains", "n": "40"},
        row | {"task": "mortality", "label": "icu_mortality", "family": "exploratory"},
    ]
    (tmp_path / "reports/tables").mkdir(parents=True)
    pl.DataFrame(rows, schema=SCHEMA).write_csv(tmp_path / "reports/tables/gain.csv")
    told = "AUROC late_fusion 0.740, transformer 0.670, resnet 0.500; fusion less the better of the two −0.070"
    assert first.result(tmp_path) == [
        f"mortality, base cohort, 44 test stays: {told} (−0.100 to 0.200): undetermined",
        f"phenotype, base cohort, 40 test stays: {told} (−0.100 to 0.200): gains",
    ]
