"""`python -m pipeline.work`: it fills the run store, beside others, and cells then have nothing to train."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import work
from pipeline.params import load
from pipeline.training import executors
from pipeline.training.ablations import ablate
from pipeline.training.cell import read_runs, train_cell
from pipeline.training.settings import Common, all_runs
from pipeline.training.store import Store, data_fingerprint
from pipeline.training.tuning import read_tuned, tune
from tests.support.made_up_data import fabricate
from tests.support.processes import wait_until

SMALL = (
    "scale=tiny",
    "grid.strategies=[late_fusion,lstm]",
    "grid.tasks=[mortality]",
    "ablations={lstm: {slow: {lr: 0.0001}}}",
    "training.device=cpu",
)
RUNS = 9  # of lstm, late_fusion, and of transformer and resnet, which that needs; base and matched; the ablation's


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = fabricate(tmp_path_factory.mktemp("work"), n=120)
    (folder / "audit.ok").touch()
    return folder


def command(data, *options, changes=SMALL):
    each = [part for change in changes for part in ("-S", change)]
    return [sys.executable, "-m", "pipeline.work", "--data", str(data), *each, *options]


def start(root, data, store, *options, changes=SMALL):
    environment = {**os.environ, "FUSION_WORK": str(store)}
    return subprocess.Popen(
        command(data, *options, changes=changes), cwd=root, env=environment, stdout=-1, stderr=-1, text=True
    )


def called(monkeypatch, capsys, data, store, *options, changes=SMALL):
    """(exit status, stdout) of the command in this process."""
    monkeypatch.setenv("FUSION_WORK", str(store))
    monkeypatch.setenv("FUSION_EXECUTOR", "inline")
    monkeypatch.setattr(sys, "argv", command(data, *options, changes=changes)[2:])
    with pytest.raises(SystemExit) as end:
        work.main()
    return end.value.code, capsys.readouterr().out


def contents(store):
    """All files of the runs, their timings apart."""
    return {
        path.relative_to(store): path.read_bytes()
        for path in (store / "runs").rglob("*")
        if path.is_file() and path.name != "result.json"
    }


@pytest.fixture(scope="module")
def filled(data, tmp_path_factory):
    """A store that one process has filled, and the command's last words."""
    store = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_WORK", str(store))
        patch.setenv("FUSION_EXECUTOR", "inline")
        tally = work.Tally()
        of = Store(store, data_fingerprint(data))
        crew = executors.choice("cpu")
        work.make_all(load(changes=SMALL), of, data, crew, lambda: False, tally)
    return store, tally.text()


def test_every_cell_then_finds_its_runs(filled, data, tmp_path, monkeypatch):
    store, words = filled
    assert words.startswith(f"{RUNS} runs made here (0 from a checkpoint), 0 by others, 0 were there, 0 failed; ")
    monkeypatch.setattr(executors, "work_off", None)
    for (strategy, _), specs in all_runs(load(changes=SMALL)).items():
        train_cell(specs, Store(store, data_fingerprint(data)), data, tmp_path / strategy)
        assert (tmp_path / strategy / "mortality/predictions.parquet").is_file()


def test_the_stage_ablate_then_finds_its_runs(filled, data, tmp_path, monkeypatch):
    for each in data.iterdir():
        (tmp_path / each.name).symlink_to(each)
    params, store = load(changes=SMALL), Store(filled[0], data_fingerprint(data))
    monkeypatch.setattr(executors, "work_off", None)
    common, judged = Common.of(params), params.get("scales.tuning")
    tune(common, params.grid, params.strategies, params.tuning, judged, store, data, tmp_path / "tuned")
    ablate(common, params.grid, params.ablations, store, tmp_path, tmp_path / "ablations")
    (spec,) = read_runs(tmp_path / "ablations/lstm.slow", store)
    assert (spec.hyper, spec.train_cohort) == (params.strategies["lstm"] | {"lr": 0.0001}, "matched")


@pytest.mark.parametrize("copied", [False, True])
def test_nothing_is_made_again_whether_the_data_are_those_or_a_copy(
    filled, data, tmp_path, monkeypatch, capsys, copied
):
    there = shutil.copytree(data, tmp_path / "copy") if copied else data
    status, text = called(monkeypatch, capsys, there, filled[0])
    assert status == 0
    assert text.startswith(f"0 runs made here (0 from a checkpoint), 0 by others, {RUNS} were there, 0 failed; ")


def test_two_commands_share_the_work_and_leave_the_same_bytes(filled, root, data, tmp_path):
    both = [start(root, data, tmp_path, "--workers", "1") for _ in range(2)]
    words = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], words
    made = [int(text.split()[0]) for text in words]
    assert sum(made) == RUNS
    assert contents(tmp_path) == contents(filled[0])


def test_told_to_end_it_stops_between_epochs_and_goes_on_from_there(filled, root, data, tmp_path):
    changes = (
        *SMALL,
        "scales.tiny.training.max_epochs=60",
        "scales.tiny.training.patience=60",
        "training.checkpoint_seconds=0",
    )
    process = start(root, data, tmp_path, "--workers", "2", changes=changes)
    assert wait_until(lambda: list(tmp_path.glob("runs/*/checkpoint.safetensors")), 60)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == work.TOLD
    assert out.splitlines()[-1] == "work: ended before all runs were made; the same command goes on from them"
    assert "left; " in out
    stopped = list(tmp_path.glob("runs/*/checkpoint.safetensors"))
    assert stopped
    assert not list(tmp_path.glob("runs/*/lease"))
    again = start(root, data, tmp_path, "--workers", "2", changes=changes)
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert f"({len(stopped)} from a checkpoint)" in out


def test_what_fails_is_told_in_a_line_each_and_the_others_go_on(data, tmp_path, monkeypatch, capsys):
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["strategies"]["resnet"]["nothing"] = 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    status, text = called(monkeypatch, capsys, data, tmp_path, "--params", str(tmp_path / "params.yaml"))
    assert status == 1
    lines = text.splitlines()
    fault = "strategies.resnet.nothing: unknown; it knows lr"
    assert lines[:2] == [fault, fault]
    needs = "late_fusion mortality {} fold 0 seed 0: not made; it needs a run that failed: " + fault
    assert lines[2:4] == [needs.format("base"), needs.format("matched")]
    assert lines[4].startswith("5 runs made here (0 from a checkpoint), 0 by others, 0 were there, 4 failed; ")
    assert [path.read_text() for path in tmp_path.glob("runs/*/failed.txt")] == [f"{fault}\n"] * 2
    # mended, nothing is left of it
    status, text = called(monkeypatch, capsys, data, tmp_path)
    assert status == 0, text


def test_trials_come_first_and_choose_what_the_stage_chooses(data, tmp_path, monkeypatch, capsys):
    changes = (*SMALL, "grid.strategies=[late_fusion]", "tuning.trials=3")
    status, text = called(monkeypatch, capsys, data, tmp_path / "work", changes=changes)
    assert status == 0, text
    params, store = load(changes=changes), Store(tmp_path / "work", data_fingerprint(data))
    common = Common.of(params)
    monkeypatch.setattr(executors, "work_off", None)  # no trial is left to be made
    judged = params.get("scales.tuning")
    tune(common, params.grid, params.strategies, params.tuning, judged, store, data, tmp_path / "tuned")
    settings = read_tuned(tmp_path / "tuned/late_fusion.yaml").tasks["mortality"]
    specs = common.runs("late_fusion", "mortality", settings)
    assert all(store.finished(spec) for spec in specs)
    made = len(list((tmp_path / "work/runs").glob("*/result.json")))
    assert text.splitlines()[-1].startswith(f"{made} runs made here")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "nowhere/cohort/stays.parquet: not found; make the data first: dvc repro audit"),
        (
            ["--slurm", "2", "-S", "training.device=auto"],
            "training.device: auto may train on the CPU in silence",
        ),
        (["--", "--time=1"], "--time=1: options of sbatch go with --slurm"),
        (["--dry-run"], "--dry-run: goes with --slurm or --ray"),
        (["-S", "scale=huge"], "params.yaml: scale: 'huge' is not one of"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(data, tmp_path, monkeypatch, capsys, options, message):
    status, _ = called(monkeypatch, capsys, data, tmp_path, *options)
    assert status.startswith(f"work: error: {message}")
    assert "\n" not in status


@pytest.mark.parametrize("options", [["--workers", "0"], ["--slurm", "x"], ["--slurm", "1", "--ray", "1"]])
def test_options_that_make_no_sense_are_refused(data, tmp_path, monkeypatch, capsys, options):
    assert called(monkeypatch, capsys, data, tmp_path, *options)[0] == 2


def test_without_the_audit_nothing_is_made(data, tmp_path, monkeypatch, capsys):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/audit.ok").unlink()
    status, _ = called(monkeypatch, capsys, tmp_path / "data", tmp_path / "work")
    assert status == f"work: error: {tmp_path}/data/audit.ok: not found; make the data first: dvc repro audit"
