"""`python -m pipeline.plan`: what the params ask for, before anything runs.

How many runs there are, which of them are in the run store already, and what the others take if none stops early:
time from timed batches of each strategy and cohort on this machine, disk from its weights. The start of a cell
(seconds) comes on top. On a GPU also what several runs at a time take there: as many as its memory holds, timed.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.options import parser
from pipeline.params import Params, load
from pipeline.power import told
from pipeline.tasks import get_task
from pipeline.training.executors import choice
from pipeline.training.grid import RunSpec
from pipeline.training.packing import Crew, free_mb, runs_per_gpu
from pipeline.training.settings import all_runs

# Where there are no data yet: a synthetic patient has about so many stays in the base cohort; so many of them an image.
STAYS_A_PATIENT, IMAGE_SHARE = 0.55, 0.4
FITTED_STAYS = 400  # to which a fit is timed; about linear in them
TEMPORAL_TEST_SHARE = 0.5  # of the stays that are not dev, with splits.scheme temporal: a guess


@dataclass(frozen=True)
class Cohort:
    """Sizes that decide what an epoch costs. `measured`: read from data/, not guessed."""

    stays: int
    images: int
    measured: bool


@dataclass(frozen=True)
class Gpu:
    """One of the GPUs: free memory, MB of data that each run takes there, and the cores that feed it."""

    free_mb: float
    data_mb: float
    cores: int


@dataclass(frozen=True)
class Line:
    """One strategy and task: its runs, and what the missing ones take with all their epochs.

    On a GPU also `per_gpu`, how many run there at a time, and what they take so.
    """

    strategy: str
    task: str
    runs: int
    missing: int
    hours: float
    megabytes: float
    per_gpu: int = 1
    packed_hours: float = 0.0


def cohort_size(params: Params, data: Path) -> Cohort:
    """From data/ where it is made; a guess from the synthetic hospital's size otherwise."""
    stays, images = data / "cohort/stays.parquet", data / "images/index.parquet"
    if stays.is_file() and images.is_file():
        import polars as pl

        counts = [pl.scan_parquet(path).select(pl.len()).collect().item() for path in (stays, images)]
        return Cohort(counts[0], counts[1], True)
    n = round(params.get("scales.synthetic").patients * STAYS_A_PATIENT)
    return Cohort(n, round(n * IMAGE_SHARE), False)


@dataclass(frozen=True)
class Cost:
    """Seconds of a training batch, seconds of a stay's prediction, megabytes of the weights, peak on a GPU in MB."""

    batch: float
    stay: float
    megabytes: float
    gpu_mb: float = 0.0


def time_batch(spec: RunSpec, px: int, image_share: float, batches: int = 5) -> Cost:
    """The cost of a strategy: the median of a few batches, after one to warm up; of a fit, its share in a batch."""
    import torch

    from pipeline.data.inputs import HOURS, channel_variables
    from pipeline.data.statics import model_variables
    from pipeline.modelling.encoders import image_format
    from pipeline.modelling.examples import example_batch, example_targets
    from pipeline.modelling.fitted import Fitted
    from pipeline.modelling.interface import Shapes
    from pipeline.modelling.optimiser import AdamW, optimiser_groups
    from pipeline.modelling.registry import build
    from pipeline.training.loop import autocast, train_step
    from pipeline.training.run import pick_device, prepare_torch

    prepare_torch()
    device = pick_device(spec.training.device)
    variables = model_variables(spec.tier, spec.training.statics)
    shapes = Shapes(
        get_task(spec.task),
        HOURS,
        channel_variables(variables),
        px,
        spec.encoders,
        spec.training.pretrained,
    )
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


def time_together(spec: RunSpec, px: int, image_share: float, count: int) -> float:
    """Seconds of a training batch where so many processes train on one GPU at a time: their mean."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        found = [pool.submit(time_batch, spec, px, image_share, 50) for _ in range(count)]
        return statistics.fmean(each.result().batch for each in found)


def machine_gpu(crew: Crew, data: Path) -> Gpu | None:
    """The GPU with the least free memory; None where there is none, or it does not tell."""
    free = free_mb(crew.gpus)
    if not free:
        return None
    packed = [data / "images/pixels.npy", data / "series/values.npy"]
    held = sum(path.stat().st_size for path in packed if path.is_file()) / 1e6
    return Gpu(min(free.values()), held, crew.cores // len(crew.gpus))


def estimate(
    params: Params, finished: dict[tuple[str, str], set[int]], cohort: Cohort, gpu: Gpu | None = None
) -> list[Line]:
    """A line a strategy and task. `finished`: the positions of its runs that are in the run store.

    A strategy is timed once a cohort, as tasks differ in the last layer alone; one that is fitted, for each task.
    """
    px = params.get("scales.images").px
    tested = TEMPORAL_TEST_SHARE if params.splits.scheme == "temporal" else 1 / params.splits.folds
    fitted = (1 - params.splits.dev_share) * (1 - tested)
    train, val = fitted * (1 - params.splits.val_share), fitted * params.splits.val_share
    timed: dict[tuple[str, ...], tuple[Cost, int, float]] = {}  # and how many at a time, and that much slower each
    lines = []
    for pair, specs in all_runs(params).items():
        missing = [spec for i, spec in enumerate(specs) if i not in finished.get(pair, set())]
        hours = packed = megabytes = 0.0
        most = 1
        for name in sorted({spec.train_cohort for spec in missing}):
            chosen = [spec for spec in missing if spec.train_cohort == name]
            stays = cohort.stays if name == "base" else cohort.images
            share = cohort.images / max(1, cohort.stays) if name == "base" else 1.0
            once = "lr" not in chosen[0].hyper
            key = (*pair, name) if once else (pair[0], name)
            if key not in timed:
                cost, together, slower = time_batch(chosen[0], px, share), 1, 1.0
                if gpu and not once:
                    together = runs_per_gpu(gpu.free_mb, cost.gpu_mb + gpu.data_mb, gpu.cores)
                    if together > 1:
                        slower = time_together(chosen[0], px, share, together) / cost.batch
                timed[key] = cost, together, slower
            cost, together, slower = timed[key]
            most = max(most, together)
            epoch = math.ceil(stays * train / chosen[0].batch_size) * cost.batch + stays * val * cost.stay
            seconds = (1 if once else chosen[0].max_epochs) * epoch + cohort.stays * (1 - train) * cost.stay
            hours += len(chosen) * seconds / 3600
            packed += len(chosen) * seconds / 3600 * slower / together
            megabytes += len(chosen) * cost.megabytes
        lines.append(Line(*pair, len(specs), len(missing), hours, megabytes, most, packed))
    return lines


def finished_runs(params: Params, data: Path) -> dict[tuple[str, str], set[int]]:
    """Positions of the runs that are in the run store; none where the data are not made yet."""
    from pipeline.data.tensors import FILES
    from pipeline.training.store import Store, data_fingerprint, work_folder

    if not all((data / name).is_file() for name in FILES):
        return {}
    store = Store(work_folder(), data_fingerprint(data))
    return {
        pair: {i for i, spec in enumerate(specs) if store.finished(spec)} for pair, specs in all_runs(params).items()
    }


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.0f} s"


def render(params: Params, cohort: Cohort, lines: list[Line], crew: Crew, gpu: Gpu | None = None) -> str:
    """The plan as text."""
    scale = params.get("scales.training")
    total, missing = sum(line.runs for line in lines), sum(line.missing for line in lines)
    known = "" if cohort.measured else " (guessed: there are no data yet)"
    text = [
        f"scale {params.scale}: {len(params.grid.strategies)} strategies × {len(params.grid.tasks)} tasks, "
        f"{total} runs (cohorts {', '.join(scale.cohorts)}; folds "
        f"{', '.join(map(str, scale.folds))}; seeds {', '.join(map(str, scale.seeds))})",
        f"cohort: {cohort.stays} stays, {cohort.images} with an image{known}",
        f"in the run store: {total - missing} runs; to be made: {missing}",
    ]
    if missing:
        head = f"{'strategy':<14}{'task':<11}{'runs':>5}{'to make':>9}{'all epochs':>12}{'MB':>9}"
        text.append(head + (f"{'a GPU':>7}{'GPU hours':>12}" if gpu else ""))
        text += [
            f"{line.strategy:<14}{line.task:<11}{line.runs:>5}{line.missing:>9}{_time(line.hours):>12}{line.megabytes:>9.1f}"
            + (f"{line.per_gpu:>7}{_time(line.packed_hours):>12}" if gpu else "")
            for line in lines
            if line.missing
        ]
        hours, disk = sum(line.hours for line in lines), sum(line.megabytes for line in lines)
        packed, gpus = sum(line.packed_hours for line in lines), len(crew.gpus)
        at_once = (
            f"{_time(packed / gpus)} on {gpus} GPUs, several at a time"
            if gpu
            else (f"{_time(hours / crew.count)} on {crew.count}")
        )
        text.append(
            f"with all {scale.max_epochs} epochs of each run about {_time(hours)} of one process, {at_once}; "
            f"{disk:.0f} MB of weights"
        )
    return "\n".join(text)


def main() -> None:
    """Prints the plan."""
    arguments = parser("pipeline.plan", "What the params ask for.").parse_args()
    try:
        params, data = load(arguments.params, arguments.changes), Path(arguments.data)
        crew = choice(params.training.device)
        cohort, gpu = cohort_size(params, data), machine_gpu(crew, data)
        lines = estimate(params, finished_runs(params, data), cohort, gpu)
    except InputError as error:
        sys.exit(f"plan: error: {error}")
    print(render(params, cohort, lines, crew, gpu))
    print(told(params, data))


if __name__ == "__main__":
    main()
