"""The plan's arithmetic; batches are not timed here, and the GPU is made up."""

import pytest

from pipeline import plan
from pipeline.params import load
from pipeline.plan import Cohort, Cost, Gpu, estimate, render
from pipeline.training.packing import CONTEXT_MB, USABLE, Crew

PEAKS = {"transformer": 1_000.0, "resnet": 50_000.0}


@pytest.fixture
def params(root):
    names = ",".join([*PEAKS, "gbm"])
    changes = ["scale=tiny", f"grid.strategies=[{names}]", "grid.tasks=[mortality]"]
    return load(root / "params.yaml", changes)


@pytest.fixture
def timed(monkeypatch):
    """A batch of 0.1 s; with others on the GPU half as long again. Returns how many there were."""
    asked = []

    def together(spec, px, share, count):
        asked.append((spec.strategy, count))
        return 0.15

    monkeypatch.setattr(plan, "time_batch", lambda spec, px, share: Cost(0.1, 0.01, 5.0, PEAKS.get(spec.strategy, 0.0)))
    monkeypatch.setattr(plan, "time_together", together)
    return asked


def test_gpu_hours_with_several_runs_are_those_of_one_slowed_down_and_shared(params, timed):
    lines = {line.strategy: line for line in estimate(params, {}, Cohort(1000, 400, True), Gpu(40_000.0, 900.0, 8))}
    count = 8  # memory would hold 14 of 1,000 + 900 + 600 MB; a run has a core
    assert int(USABLE * 40_000 / (1_900 + CONTEXT_MB)) == 14
    assert timed == [("transformer", count)] * 2  # once a cohort
    assert lines["transformer"].per_gpu == count
    assert lines["transformer"].packed_hours == pytest.approx(lines["transformer"].hours * 1.5 / count)
    assert lines["resnet"].per_gpu == 1  # it does not fit twice
    assert lines["resnet"].packed_hours == pytest.approx(lines["resnet"].hours)
    assert lines["gbm"].per_gpu == 1  # fitted on the CPU


def test_without_a_gpu_none_is_spoken_of(params, timed):
    lines = estimate(params, {}, Cohort(1000, 400, True))
    assert timed == []
    text = render(params, Cohort(1000, 400, True), lines, Crew(2))
    assert "GPU" not in text
    hours = sum(line.hours for line in lines)
    assert f"{hours * 3600 / 2:.0f} s on 2; 30 MB of weights" in text or f"{hours * 30:.1f} min on 2; 30 MB" in text


def test_with_gpus_the_plan_tells_both(params, timed):
    cohort, gpu = Cohort(100_000, 40_000, True), Gpu(40_000.0, 900.0, 8)
    lines = estimate(params, {}, cohort, gpu)
    text = render(params, cohort, lines, Crew(16, ("0", "1")), gpu).splitlines()
    assert text[3].split()[-4:] == ["a", "GPU", "GPU", "hours"]
    row = next(line for line in text if line.startswith("transformer"))
    assert row.split()[-3:] == ["8", *plan._time(lines[0].packed_hours).split()]
    packed = sum(line.packed_hours for line in lines)
    assert f"{plan._time(packed / 2)} on 2 GPUs, several at a time" in text[-1]


def test_the_gpu_with_the_least_memory_decides(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/pixels.npy").write_bytes(bytes(2_000_000))
    monkeypatch.setattr(plan, "free_mb", lambda names: dict(zip(names, (900.0, 700.0), strict=False)))
    assert plan.machine_gpu(Crew(16, ("0", "1"), cores=16), tmp_path) == Gpu(700.0, 2.0, 8)
    assert plan.machine_gpu(Crew(16), tmp_path) is None
