"""What workers on a cluster are handed. Neither Slurm nor Ray is needed."""

import os
import sys

import pytest

from pipeline import options, work
from pipeline.closure import ROOT
from pipeline.errors import InputError
from pipeline.params import load
from pipeline.training.launch import prepare, ray_resources, ray_run, slurm_script, submit
from pipeline.training.store import Store

CHANGES = ["scale=tiny", "grid.strategies=[lstm]", "grid.tasks=[mortality]"]


def launch(tmp_path, device, workers=None, per_gpu=None):
    changes = [*CHANGES, f"training.device={device}"]
    store = Store(tmp_path / "my work", "made up")
    return prepare("params.yaml", changes, load(changes=changes), store, tmp_path / "data", workers, per_gpu)


def test_the_job_script_is_whole_and_its_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_LEASE", "30")
    made = launch(tmp_path, "cuda")
    digest = made.folder.name
    folder = f"{tmp_path}/my work/launches/{digest}"
    assert slurm_script(made, 4, ["--partition=gpu", "--time=1-00:00:00", "--comment=a b"]) == (
        f"""#!/bin/bash
#SBATCH --job-name=fusion
#SBATCH --array=1-4
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --open-mode=append
#SBATCH '--output={folder}/slurm-%A_%a.log'
#SBATCH --partition=gpu
#SBATCH --time=1-00:00:00
#SBATCH '--comment=a b'
cd {ROOT} || exit 1
export FUSION_WORK='{tmp_path}/my work'
export FUSION_LEASE=30
exec {sys.executable} -m pipeline.work --params '{folder}/params.yaml' --data {tmp_path}/data --expect {digest}
"""
    )


def test_the_params_are_those_of_the_launch_whatever_becomes_of_the_file(tmp_path):
    made = launch(tmp_path, "cpu")
    copy = load(made.folder / "params.yaml")
    assert copy == load(changes=[*CHANGES, "training.device=cpu"])
    assert copy.grid.strategies == ("lstm",)


@pytest.mark.parametrize(
    ("device", "workers", "per_gpu", "asked", "command"),
    [
        ("cpu", None, None, ["--cpus-per-task=1"], "--workers 1"),
        ("cpu", 6, None, ["--cpus-per-task=6"], "--workers 6"),
        ("cuda", None, 3, ["--cpus-per-task=3", "--gres=gpu:1"], "--per-gpu 3"),
        ("cuda", 2, None, ["--cpus-per-task=2", "--gres=gpu:1"], "--workers 2"),
    ],
)
def test_a_core_is_asked_for_each_run_at_a_time(tmp_path, device, workers, per_gpu, asked, command):
    made = launch(tmp_path, device, workers, per_gpu)
    lines = slurm_script(made, 1).splitlines()
    about = [line.split()[1] for line in lines if "cpus" in line or "gres" in line]
    assert about == asked
    assert lines[-1].endswith(f"--expect {made.folder.name} {command}")


def test_ray_keeps_a_share_of_a_gpu_for_a_run(tmp_path):
    assert ray_resources(launch(tmp_path, "cuda")) == {"num_cpus": 1, "num_gpus": 1.0}
    assert ray_resources(launch(tmp_path, "cuda", per_gpu=4)) == {"num_cpus": 1, "num_gpus": 0.25}
    assert ray_resources(launch(tmp_path, "cpu", workers=3)) == {"num_cpus": 3}


def test_auto_is_refused_on_a_cluster(tmp_path):
    with pytest.raises(InputError, match=r"training\.device: auto may train on the CPU in silence; write cuda"):
        launch(tmp_path, "auto")


def test_without_slurm_or_ray_a_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--slurm: there is no sbatch here; ask from a login node"):
        submit(tmp_path / "script")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="--ray: Ray is not installed; uv sync --group ray"):
        ray_run(launch(tmp_path, "cpu"), 1)


def test_what_slurm_refuses_is_told_in_a_line(tmp_path, monkeypatch):
    fake = tmp_path / "sbatch"
    fake.write_text('#!/bin/sh\nif [ -s "$2" ]; then echo "17;cluster"; else echo "no\nway" >&2; exit 1; fi\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    script = tmp_path / "script"
    script.touch()
    with pytest.raises(InputError, match=r"^--slurm: no way$"):
        submit(script)
    script.write_text("x")
    assert submit(script) == "17"


def test_options_of_sbatch_stand_after_two_dashes():
    found = work.options().parse_args(["--slurm", "4", "-S", "scale=tiny", "--", "--partition=gpu", "--time=60"])
    assert (found.slurm, found.changes, found.sbatch) == (4, ["scale=tiny"], ["--partition=gpu", "--time=60"])
    assert options.parser("pipeline.plan", "").parse_args([]).changes == []
