"""The preflight: a line a fault, and `ready`; commands that explain themselves."""

import subprocess
import sys

import pytest
import torch

from pipeline.check import faults
from pipeline.params import load
from tests.support.raw_tree import raw_tree

CHANGES = ["-S", "grid.strategies=[lstm,late_fusion]"]


def run(root, module, *arguments):
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_all_faults_are_told_at_once_each_in_a_line(root, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    raw_tree(tmp_path, {"iv/icu/chartevents.csv.gz": "stay_id\n1\n"})
    changes = [
        f"data.mimiciv={tmp_path}/iv",
        f"data.mimic_cxr={tmp_path}/cxr",
        "grid.strategies=[lstm,late_fusion]",
        "training.device=cuda",
    ]
    params = load(root / "params.yaml", changes)
    params.strategies["lstm"]["unheard"] = 1
    first, second, third = faults(params)
    assert first.startswith(f"{tmp_path}/iv/icu/chartevents.csv.gz: column ")
    assert second.startswith("strategies.lstm.unheard: unknown; it knows ")
    assert third == "training.device: cuda is asked for, but torch finds no GPU"


def test_the_command_says_ready_or_why_not(root):
    status, out, err = run(root, "pipeline.check", *CHANGES)
    assert (status, out, err) == (0, "ready: scale demo, 2 strategies, device auto\n", "")
    status, out, err = run(root, "pipeline.check", *CHANGES, "-S", "scale=dmeo")
    assert (status, out) == (1, "")
    assert err == (
        "check: error: params.yaml: scale: 'dmeo' is not one of tiny, demo, study, paper; did you mean demo?\n"
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("stages.train", "Writes data/runs/STRATEGY/{runs,card}.json"),
        ("stages.paths", "the optional tables that are there"),
        ("pipeline.scales", "usage: python -m pipeline.scales"),
        ("pipeline.page.strategies", "usage: python -m pipeline.page.strategies"),
        ("pipeline.check", "usage: python -m pipeline.check"),
    ],
)
def test_help_helps_and_runs_nothing(root, tmp_path, module, words):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert list(tmp_path.iterdir()) == []
