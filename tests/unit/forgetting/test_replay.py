"""Replays: which runs, which stays, how they descend; means over runs."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from pipeline.estimation.variance import estimate
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.scores import Sampler
from pipeline.forgetting.replay import replays
from pipeline.forgetting.tables import SCHEMAS, over_runs
from pipeline.modelling.optimiser import schedule
from pipeline.training.cell import write_runs
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.replays import made_up
from tests.support.runs import grid, silent


def test_the_runs_of_a_cell_with_the_least_removed_come_with_the_stays_of_their_cohort(data, tmp_path, training):
    for each in data.iterdir():
        (tmp_path / each.name).symlink_to(each)
    store = Store(tmp_path / "work", data_fingerprint(data))
    specs = [spec for task in ("mortality", "los") for spec in grid(training, "resnet", task, max_epochs=1)]
    for spec in specs:
        make_run(spec, store, data, silent)
    removed = dataclasses.replace(specs[0], train_missing=0.5, train_mechanism="mcar")
    write_runs([*specs, removed], store, tmp_path / "runs/resnet")
    sampler = Sampler(read_people(data, [], [0]), 5, 1)
    found = list(replays("resnet", store, tmp_path, ["los", "phenotype"], sampler))
    assert [(each.spec.task, each.spec.train_cohort) for each in found] == [("los", "base"), ("los", "matched")]
    splits = pl.read_parquet(data / "splits.parquet").filter(fold=0)
    stays = pl.read_parquet(data / "cohort/stays.parquet").join(splits, on="stay_id")
    for replay, of in zip(found, (pl.lit(True), pl.col("has_cxr")), strict=True):
        for part, rows, told in (("train", replay.train, replay.ready), ("test", replay.test, replay.asked)):
            assert len(rows) == stays.filter(of, part=part).height
            assert sum(batch.size for batch, _ in told()) == len(rows)
        assert not replay.strategy.training
        subjects = stays.filter(of, part="test")["subject_id"]
        assert replay.draws.subjects[replay.at].tolist() == subjects.to_list()
        assert replay.draws is sampler.subjects("test", 0)


def test_parts_take_turns_and_the_learning_rate_falls_over_all_of_them(training):
    weight, seen = nn.Parameter(torch.zeros(())), []
    replay = made_up(training, None, "resnet", "los", [], [], epochs=2)
    replay = dataclasses.replace(replay, spec=dataclasses.replace(replay.spec, batch_size=16))

    def part(number):
        def loss(chosen):
            seen.append((number, chosen.tolist(), float(weight.detach())))
            return weight

        return loss

    replay.descend([weight], [(40, part(0)), (10, part(1))], 2)
    assert [number for number, *_ in seen] == [0, 1, 0, 0] * 2
    for epoch in (seen[:4], seen[4:]):
        for number, size in ((0, 40), (1, 10)):
            assert sorted(i for which, chosen, _ in epoch if which == number for i in chosen) == list(range(size))
    assert seen[0][1] != seen[4][1]
    values = [*(value for *_, value in seen), float(weight.detach())]
    rates = [0.01 * schedule(step, 8, training.warmup_share) for step in range(8)]
    np.testing.assert_allclose(-np.diff(values), rates, rtol=1e-3)  # Adam's step on a gradient that is always 1


def test_numbers_are_means_over_the_runs_that_have_them():
    about = {"task": "los", "cohort": "base", "method": "kept", "group": 1, "outputs": "1-2", "metric": "accuracy"}
    draws = np.random.default_rng(0).normal(0.2, 0.1, (3, 50))
    rows = [
        {**about, "phase": phase, "fold": fold, "value": np.full(50, value), "value_lost": lost}
        for phase, fold, value, lost in ((2, 0, 0.2, draws[0]), (1, 0, 0.5, draws[1]), (2, 1, 0.4, draws[2]))
    ]
    rows.append({**about, "phase": 1, "fold": 1})
    found = over_runs(rows, "forgetting_pal", 0.25, 0.9)
    assert dict(found.schema) == SCHEMAS["forgetting_pal"]
    assert found.select("phase", "runs").rows() == [(2, 2), (1, 2)]
    assert found["value"].to_list() == pytest.approx([0.3, 0.5])
    lost = [[row[f"value_lost{bound}"] for bound in ("", "_low", "_high")] for row in found.iter_rows(named=True)]
    for told, of, folds in zip(lost, (draws[[0, 2]], draws[[1]]), ([0, 1], [0]), strict=True):
        assert told == pytest.approx([of[:, 0].mean(), *estimate(of, folds, 0.25).interval(0.9)])
    for name, schema in SCHEMAS.items():
        assert dict(over_runs([], name, 0.25, 0.9).schema) == schema
