"""`python -m pipeline.scales`: what differs between scales, and nothing else."""

import subprocess
import sys

import pytest

from pipeline.errors import InputError
from pipeline.params import flat, load
from pipeline.scales import differences


def test_knobs_that_differ_stand_side_by_side_and_no_others():
    params = load()
    head, *rows = differences(params, ["study", "demo"])
    assert head == ["", "study", "demo"]
    study, demo = (dict(flat(params.scales[name])) for name in ("study", "demo"))
    assert {row[0]: tuple(row[1:]) for row in rows} == {
        key: (study[key], demo[key]) for key in study if study[key] != demo[key]
    }
    assert ["synthetic.patients", "16000", "1100"] in rows
    assert differences(params, ["demo"]) == [["", "demo"]]


def test_a_scale_that_there_is_not_is_named():
    with pytest.raises(InputError, match="scales: 'huge' is not one of tiny, demo"):
        differences(load(), ["demo", "huge"])


def test_the_command_prints_all_scales(root):
    def call(*names):
        command = [sys.executable, "-m", "pipeline.scales", *names]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert call().stdout.splitlines()[0].split() == list(load().scales)
    wrong = call("x")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
