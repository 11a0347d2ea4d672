"""How long a training batch of a run takes on this machine: timed, or by FLOPs from another one that was.

Where a batch takes seconds (a ResNet-50 on a CPU), one of it is timed, and what costs as much follows from its FLOPs.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.tasks import get_task
from pipeline.training.grid import RunSpec

if TYPE_CHECKING:
    from pipeline.modelling.interface import Shapes

SLOW = 1.0  # seconds of a batch from which on one is enough
FITTED_STAYS = 400  # to which a fit is timed; about linear in them
PX = 64  # of images that nobody sees

Seen = int | tuple[int, int]  # pixels of an image's side; or of its embedding the grid's side and the width


@dataclass(frozen=True)
class Cost:
    """Seconds of a training batch, seconds of a stay's prediction, megabytes of the weights, peak on a GPU in MB.

    `told`: by FLOPs, not timed.
    """

    batch: float
    stay: float
    megabytes: float
    gpu_mb: float = 0.0
    told: bool = False


def shapes_of(spec: RunSpec, seen: Seen) -> Shapes:
    """What the run's strategy is built for."""
    from pipeline.data.inputs import HOURS, channel_variables
    from pipeline.data.statics import model_variables
    from pipeline.modelling.interface import Shapes

    variables = channel_variables(model_variables(spec.tier, spec.training.statics))
    shapes = Shapes(get_task(spec.task), HOURS, variables, 0, spec.encoders, spec.training.pretrained)
    if isinstance(seen, int):
        return dataclasses.replace(shapes, px=seen)
    return dataclasses.replace(shapes, px=PX, embedding=seen)


def time_batch(spec: RunSpec, seen: Seen, image_share: float, batches: int = 5) -> Cost:
    """The cost of a strategy: the median of a few batches, after one to warm up; of a fit, its share in a batch.

    Where it takes longer than SLOW, one batch is enough.
    """
    import torch

    from pipeline.modelling.device import pick_device
    from pipeline.modelling.encoders import image_format
    from pipeline.modelling.examples import example_batch, example_targets
    from pipeline.modelling.fitted import Fitted
    from pipeline.modelling.optimiser import AdamW, optimiser_groups
    from pipeline.modelling.registry import build
    from pipeline.training.loop import autocast, train_step
    from pipeline.training.run import prepare_torch

    prepare_torch()
    device = pick_device(spec.training.device)
    shapes = shapes_of(spec, seen)
    strategy = build(spec.strategy, shapes, spec.hyper).to(device)
    strategy.to(memory_format=image_format(spec.encoders, device))
    if isinstance(strategy, Fitted):
        many = [example_batch(shapes, FITTED_STAYS, torch.zeros(FITTED_STAYS).bool(), seed) for seed in range(2)]
        told = [strategy.summary(batch).numpy() for batch in many]
        goal = [example_targets(shapes, FITTED_STAYS, seed).numpy() for seed in range(2)]
        start = time.perf_counter()
        strategy.fit(told[0], goal[0], told[1], goal[1])
        fitted = (time.perf_counter() - start) / FITTED_STAYS * spec.batch_size
    optimiser = AdamW(optimiser_groups(strategy, 0.01), lr=1e-6)
    generator = torch.Generator()
    there = torch.arange(spec.batch_size) < round(spec.batch_size * image_share)
    batch = example_batch(shapes, spec.batch_size, there)
    batch = type(batch)(**{key: value.to(device) for key, value in vars(batch).items()})
    targets = example_targets(shapes, spec.batch_size).to(device)

    def median(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(batches + 1):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            if len(seconds) > 1 and seconds[-1] > SLOW:
                return seconds[-1]
        return statistics.median(seconds[1:])

    def train() -> None:
        train_step(strategy, optimiser, batch, targets, spec.training, generator)

    def predict() -> None:
        with torch.inference_mode(), autocast(device, spec.training.precision):
            strategy(batch)

    seconds = fitted if isinstance(strategy, Fitted) else median(train)
    strategy.eval()
    size = sum(value.nbytes for value in strategy.state_dict().values()) / 1e6
    stay = median(predict) / spec.batch_size
    return Cost(seconds, stay, size, torch.cuda.max_memory_reserved() / 1e6 if device.type == "cuda" else 0.0)


def time_together(spec: RunSpec, seen: Seen, image_share: float, count: int) -> float:
    """Seconds of a training batch where so many processes train on one GPU at a time: their mean."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        found = [pool.submit(time_batch, spec, seen, image_share, 50) for _ in range(count)]
        return statistics.fmean(each.result().batch for each in found)


def batch_flops(spec: RunSpec, seen: Seen, image_share: float) -> tuple[float, int] | None:
    """FLOPs of a forward pass over a batch, and how many parameters there are; None for what is fitted: no network."""
    from pipeline.cost import FlopCounter, cost

    parameters, whole, without = cost(spec.strategy, shapes_of(spec, seen), spec.hyper, FlopCounter())
    if parameters is None or whole is None or without is None:
        return None
    return spec.batch_size * (image_share * whole + (1 - image_share) * without), parameters


@dataclass
class Stopwatch:
    """Times runs that see such images, until a batch is SLOW: from then on that one, the `reference`, tells.

    `reference`: the run, its cost and its FLOPs, to which the others' times are proportional. What would be quicker
    than SLOW by that is timed all the same: there FLOPs say little.
    """

    seen: Seen
    reference: tuple[RunSpec, Cost, float] | None = field(default=None, init=False)

    def cost(self, spec: RunSpec, image_share: float) -> Cost:
        """The cost of the run, so many of whose stays have an image."""
        flops = batch_flops(spec, self.seen, image_share) if self.reference else None
        if self.reference and flops:
            _, known, of = self.reference
            times = flops[0] / of
            if times * known.batch > SLOW:
                return Cost(times * known.batch, times * known.stay, 4 * flops[1] / 1e6, told=True)
        found = time_batch(spec, self.seen, image_share)
        if self.reference is None and found.batch > SLOW and (flops := batch_flops(spec, self.seen, image_share)):
            self.reference = spec, found, flops[0]
        return found
