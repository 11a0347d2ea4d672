"""The training loop against bare forward, backward and step over the same batches, ready in memory; 64 px, batch 64.

The time is that of the process (one intra-op thread), so that other processes disturb it little. The models are those
of the scale `study`.
"""

import dataclasses
import time

import numpy as np
import pytest
import torch

from pipeline.data.batches import Batches
from pipeline.data.inputs import channel_variables
from pipeline.data.tensors import load_fold
from pipeline.mimic.variables import load_variables
from pipeline.modelling.interface import Shapes
from pipeline.modelling.optimiser import optimiser_groups
from pipeline.modelling.registry import build
from pipeline.params import load
from pipeline.tasks import get_task
from pipeline.training.grid import runs
from pipeline.training.loop import fit
from pipeline.training.run import prepare_torch
from tests.support.made_up_data import fabricate

PX, BATCH, STAYS, EPOCHS = 64, 64, 1280, 2
CPU = torch.device("cpu")
PARAMS = load()
SCALE = PARAMS.scales["study"]
VARIABLES = load_variables("core")
TASK = get_task("mortality")


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    """All stays are in training: validation is not what is measured."""
    prepare_torch()
    found = load_fold(fabricate(tmp_path_factory.mktemp("data"), n=STAYS, px=PX), 0, TASK, VARIABLES, "mcar")
    return dataclasses.replace(found, part=np.full(len(found.stay_id), "train"))


def specs(strategy):
    return runs(
        strategy, "mortality", hyper={"lr": 1e-3}, tier="core",
        training=dataclasses.replace(PARAMS.training, device="cpu", checkpoint_seconds=1e9),
        encoders=SCALE.encoders,
        scale=dataclasses.replace(SCALE.training, folds=(0,), batch_size=BATCH, max_epochs=EPOCHS, patience=EPOCHS),
    )  # fmt: skip


def model(strategy):
    torch.manual_seed(0)
    shapes = Shapes(TASK, 48, channel_variables(VARIABLES), PX, SCALE.encoders)
    return build(strategy, shapes, {"lr": 1e-3})


def bare(strategy, ready):
    """Forward, backward, step."""
    optimiser = torch.optim.AdamW(optimiser_groups(strategy, 0.01), lr=1e-3, fused=True)
    strategy.train()
    for batch, targets in ready:
        losses = strategy.losses(strategy(batch), batch, targets)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()


def cpu_seconds(function, *arguments):
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


@pytest.mark.benchmark
@pytest.mark.parametrize("cohort", ["base", "matched"])
@pytest.mark.parametrize("strategy", ["late_fusion", "resnet"])
def test_the_loop_runs_at_nine_tenths_of_the_speed_of_bare_steps(tensors, tmp_path, strategy, cohort):
    (spec,) = [spec for spec in specs(strategy) if spec.train_cohort == cohort]
    batches = Batches(tensors, CPU)
    rows = torch.from_numpy(np.flatnonzero(tensors.pictured | (cohort == "base")))
    order = rows[torch.randperm(len(rows))]
    ready = [(batches.gather(part), batches.targets(part)) for part in order.split(BATCH)] * EPOCHS
    loop, steps = [], []
    for i in range(3):
        steps.append(cpu_seconds(bare, model(strategy), ready))
        loop.append(cpu_seconds(fit, model(strategy), tensors, batches, spec, TASK, tmp_path / str(i), lambda *_: None))
    ratio = min(steps) / min(loop)
    print(f"{strategy} {cohort}: {len(ready) * BATCH / min(loop):.0f} stays/s, {ratio:.2f} × the speed of bare steps")
    assert ratio > 0.9


@pytest.mark.benchmark
def test_images_that_are_not_there_cost_nothing(tensors):
    """A batch of 64 with 16 images against its two halves: 64 records without an image, and the 16 images alone."""
    batches = Batches(tensors, CPU)
    without, with_image = (np.flatnonzero(tensors.pictured == flag) for flag in (False, True))
    rows = [
        torch.from_numpy(np.concatenate([with_image[i * 16 : i * 16 + 16], without[i * 48 : i * 48 + 48]]))
        for i in range(10)
    ]
    nobody = torch.ones(STAYS, dtype=torch.bool)
    mixed, records, images = (
        [(batches.gather(part, removed), batches.targets(part)) for part in parts]
        for parts, removed in ((rows, None), (rows, nobody), ([part[:16] for part in rows], None))
    )
    assert {len(batch.images) for batch, _ in mixed} == {16}
    assert {len(batch.images) for batch, _ in records} == {0}
    together, apart = [], []
    for _ in range(4):
        together.append(cpu_seconds(bare, model("late_fusion"), mixed))
        apart.append(cpu_seconds(bare, model("late_fusion"), records) + cpu_seconds(bare, model("resnet"), images))
    ratio = min(together) / min(apart)
    print(f"a batch of 64 with 16 images costs {ratio:.2f} × 64 records and 16 images apart")
    assert ratio < 1.1
