"""Which run is next: needed ones first, what nobody is at, what has not failed."""

import dataclasses
import itertools
import json

import pytest

from pipeline.params import load
from pipeline.training.settings import all_runs
from pipeline.training.store import Store
from pipeline.training.worklist import FAILED, Worklist, jobs


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, "made up")


@pytest.fixture
def specs(root):
    """Runs of four strategies: late_fusion needs those of transformer and resnet, gbm_image those of resnet."""
    asked = ["late_fusion", "gbm_image", "lstm", "transformer"]
    changes = ["scale=tiny", f"grid.strategies=[{','.join(asked)}]", "grid.tasks=[mortality]", "training.device=cpu"]
    return [spec for each in all_runs(load(root / "params.yaml", changes)).values() for spec in each]


def finish(store, job, **more):
    folder = store.work / "runs" / job.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(more))


def names(worklist):
    return [job.spec.name for job in worklist.open.values()]


def test_needed_runs_come_first_each_once_then_the_others_as_they_were_asked_for(specs, store):
    found = [(job.spec.strategy, job.spec.train_cohort) for job in jobs(specs, store)]
    needed = list(itertools.product(("transformer", "resnet"), ("base", "matched")))
    assert sorted(found[:4]) == sorted(needed)
    assert found[4:] == list(itertools.product(("late_fusion", "gbm_image", "lstm"), ("base", "matched")))


def test_what_is_needed_comes_after_what_it_needs_itself(specs, store):
    late, gbm = specs[0], specs[2]
    nested = dataclasses.replace(gbm, seed=7, needs={"late_fusion": late})
    found = [job.spec.strategy for job in jobs([nested], store)]
    assert found == ["transformer", "resnet", "late_fusion", "gbm_image"]


def test_finished_runs_are_not_on_the_list(specs, store):
    every = jobs(specs, store)
    finish(store, every[0])
    finish(store, every[6])
    worklist = Worklist(specs, store)
    assert list(worklist.open) == [job.name for job in every if job not in (every[0], every[6])]
    assert worklist.before == {every[0].name, every[6].name}


def test_a_run_is_taken_once_when_what_it_needs_is_there_and_nobody_is_at_it(specs, store):
    worklist = Worklist(specs, store)
    first, second, *_ = worklist.open.values()
    assert worklist.take() == first
    with store.claimed(second.spec):  # somebody else
        taken = []
        while job := worklist.take():
            taken.append(job.spec.strategy)
        assert sorted(taken)[:2] == ["lstm", "lstm"]
        assert len(taken) == 4  # and those of the four needed ones that are not these two
    assert worklist.take() == second
    assert worklist.take() is None
    worklist.done(first)
    worklist.back(second)
    assert worklist.take() == second


def test_what_others_make_is_found(specs, store):
    worklist = Worklist(specs, store)
    for job in list(worklist.open.values())[:4]:
        finish(store, job)
    assert worklist.take().spec.strategy == "late_fusion"
    assert (len(worklist.made), len(worklist.elsewhere)) == (0, 4)


def test_what_needs_a_failed_run_fails_too_and_others_go_on(specs, store):
    worklist = Worklist(specs, store)
    bad = next(
        job for job in worklist.open.values() if job.spec.strategy == "resnet" and job.spec.train_cohort == "base"
    )
    worklist.fail(bad, "resnet: loss is nan")
    while job := worklist.take():
        worklist.done(job)
    assert not worklist.open
    assert len(worklist.failed) == 3
    for strategy in ("late_fusion", "gbm_image"):
        (why,) = [why for why in worklist.failed.values() if why.startswith(strategy)]
        assert why == (
            f"{strategy} mortality base fold 0 seed 0: not made; it needs a run that failed: resnet: loss is nan"
        )
    assert len(worklist.made) == len(jobs(specs, store)) - 3


def test_what_failed_before_is_tried_again_and_what_fails_elsewhere_meanwhile_is_not(specs, store):
    first, second, *_ = jobs(specs, store)
    for job in (first, second):
        (store.work / "runs" / job.name).mkdir(parents=True)
    (store.work / "runs" / first.name / FAILED).write_text("of yesterday\n")
    worklist = Worklist(specs, store)
    (store.work / "runs" / second.name / FAILED).write_text("it failed there\n")
    taken = []
    while job := worklist.take():
        taken.append(job.name)
    assert taken[0] == first.name
    assert second.name not in taken
    assert worklist.failed[second.name] == "it failed there"


def test_a_strategys_peak_is_that_of_its_finished_runs(specs, store):
    every = jobs(specs, store)
    finish(store, every[0], gpu_mb=120.5)
    worklist = Worklist(specs, store)
    strategy = every[0].spec.strategy
    assert worklist.peak(strategy) == 120.5
    assert worklist.peak("lstm") is None
    other = next(job for job in worklist.open.values() if job.spec.strategy == strategy)
    finish(store, other, gpu_mb=130)
    while worklist.take():
        pass
    assert worklist.peak(strategy) == 130
