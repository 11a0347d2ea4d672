"""How many runs a GPU takes. No GPU is needed: memory is made up."""

import os

import pytest

from pipeline.training import packing
from pipeline.training.packing import CONTEXT_MB, USABLE, Crew, crew, runs_per_gpu


def test_runs_a_gpu_are_what_memory_and_cores_allow_and_at_least_one():
    assert runs_per_gpu(80_000, 3_400, cores=64) == 18  # 72,000 MB of 4,000
    assert runs_per_gpu(80_000, 3_400, cores=8) == 8
    assert runs_per_gpu(8_000, 30_000, cores=8) == 1


def test_on_the_cpu_there_is_always_room():
    assert Crew(4).place([("", None)] * 3, None) == ""


def test_an_unmeasured_run_has_a_gpu_to_itself():
    two = Crew(8, ("0", "1"), None, {"0": 80_000.0, "1": 80_000.0})
    assert two.place([], None) == "0"
    assert two.place([("0", None)], None) == "1"
    assert two.place([("0", None), ("1", 2_000.0)], None) is None
    assert two.place([("0", None), ("1", 2_000.0)], 2_000.0) == "1"
    assert two.place([("0", None), ("1", None)], 2_000.0) is None


def test_measured_runs_share_a_gpu_until_its_memory_is_used():
    one = Crew(99, ("0",), None, {"0": 10_000.0})
    peak, there = 2_000.0, list[tuple[str, float | None]]()
    while one.place(there, peak) == "0":
        there.append(("0", peak))
    assert len(there) == int(USABLE * 10_000 / (peak + CONTEXT_MB)) == 3
    assert one.place(there, 100.0) == "0"  # a small one still fits


def test_a_gpu_whose_memory_is_not_told_takes_one():
    assert Crew(4, ("MIG-1",), None, {}).place([("MIG-1", 10.0)], 10.0) is None


def test_as_many_a_gpu_as_are_asked_for_the_emptiest_first():
    two = Crew(6, ("0", "1"), 3)
    assert two.place([("0", None)], None) == "1"
    assert two.place([("0", None)] * 3 + [("1", None)] * 2, None) == "1"
    assert two.place([("0", None)] * 3 + [("1", None)] * 3, None) is None


def test_who_works_follows_from_gpus_and_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12))
    monkeypatch.setattr(packing, "free_mb", lambda names: dict.fromkeys(names, 1000.0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert crew("cpu") == Crew(12, cores=12)
    assert crew("cpu", 3) == Crew(3, cores=12)
    assert crew("cuda") == Crew(12, ("4", "6"), None, {"4": 1_000.0, "6": 1_000.0}, cores=12)
    assert crew("auto", per_gpu=2) == Crew(4, ("4", "6"), 2, cores=12)
    assert crew("auto", 5) == Crew(5, ("4", "6"), 3, cores=12)
    assert crew("auto", 3, 4) == Crew(3, ("4", "6"), 4, cores=12)


def test_free_memory_is_what_nvidia_smi_tells(tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"
    fake.write_text('#!/bin/sh\n[ "$2" = 0 ] && echo 1000 || { echo "No devices were found"; exit 6; }\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert packing.free_mb(["0", "MIG-1"]) == {"0": pytest.approx(1048.576)}
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert packing.free_mb(["0"]) == {}
