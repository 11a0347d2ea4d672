"""`python -m pipeline.plan`: what the params ask for, before anything runs.

How many runs there are, ablations and those that others need among them, is told at once; then which of them are in the
run store, and what the others take if none stops early: time from batches of each strategy and cohort on this machine
(pipeline.timing), disk from its weights; and what embedding the images takes. On a GPU also what several runs at a time
take there: as many as its memory holds, timed. What is not in it is told in a line (INCLUDED).
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.tensors import FILES, embedding_files, grid_side
from pipeline.embedding.card import read_card
from pipeline.errors import InputError
from pipeline.options import parser
from pipeline.params import END_TO_END, Params, load
from pipeline.power import told
from pipeline.timing import Cost, Seen, Stopwatch, time_together
from pipeline.training.executors import choice
from pipeline.training.grid import RunSpec
from pipeline.training.packing import Crew, free_mb, runs_per_gpu
from pipeline.training.settings import Chosen, Settings, all_runs
from pipeline.training.tuning import read_tuned

if TYPE_CHECKING:  # torch takes a second to import
    from pipeline.embedding.price import Price

# Where there are no data yet: a synthetic patient has about so many stays in the base cohort; so many of them an image.
STAYS_A_PATIENT, IMAGE_SHARE = 0.55, 0.4
TEMPORAL_TEST_SHARE = 0.5  # of the stays that are not dev, with splits.scheme temporal: a guess
INCLUDED = (
    "included: all epochs of every run and of those that it needs, and the predictions of its validation, dev and test "
    "stays; not: {trials}the start of a cell, probes, questions, the page"
)

Runs = Mapping[tuple[str, str], list[RunSpec]]  # by strategy (or ablation) and task


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
    """One strategy (or ablation) and task: its runs, and what the missing ones take with all their epochs.

    On a GPU also `per_gpu`, how many run there at a time, and what they take so. `told`: hours by FLOPs, not timed.
    """

    strategy: str
    task: str
    runs: int
    missing: int
    hours: float
    megabytes: float
    per_gpu: int = 1
    packed_hours: float = 0.0
    told: bool = False


def cohort_size(params: Params, data: Path) -> Cohort:
    """From data/ where it is made; a guess from the synthetic hospital's size otherwise."""
    stays, images = data / "cohort/stays.parquet", data / "images/index.parquet"
    if stays.is_file() and images.is_file():
        import polars as pl

        latest = pl.scan_parquet(images).filter(pl.col("rank") == 1)
        counts = [frame.select(pl.len()).collect().item() for frame in (pl.scan_parquet(stays), latest)]
        return Cohort(counts[0], counts[1], True)
    n = round(params.get("scales.synthetic").patients * STAYS_A_PATIENT)
    return Cohort(n, round(n * IMAGE_SHARE), False)


def machine_gpu(crew: Crew, data: Path, image: str = END_TO_END) -> Gpu | None:
    """The GPU with the least free memory; None where there is none, or it does not tell."""
    free = free_mb(crew.gpus)
    if not free:
        return None
    images = "images/pixels.npy" if image == END_TO_END else f"embeddings/{image}/packed.npy"
    packed = [data / images, data / "series/values.npy"]
    held = sum(path.stat().st_size for path in packed if path.is_file()) / 1e6
    return Gpu(min(free.values()), held, crew.cores // len(crew.gpus))


def embeddings(params: Params, data: Path, cohort: Cohort) -> Iterator[Price]:
    """What the embeddings of each encoder take. Raises InputError where one cannot be loaded."""
    for name in params.embedding.encoders:
        from pipeline.embedding.price import price

        yield price(read_card(name), params.embedding, data, cohort.images)


def told_price(price: Price) -> str:
    """A line."""
    head, room = f"embed {price.encoder}: {price.images} images", f"{price.megabytes:.1f} MB"
    if price.made:
        return f"{head} are made, {room}"
    jpeg = "its JPEG left out" if price.reading is None else f"{price.reading:.3f} s for its JPEG"
    where = f"a GPU fed by {price.workers}" if price.gpu else f"{price.workers}"
    return (
        f"{head} at {price.px} px, once for all runs, {price.seconds:.3f} s each and {jpeg}: {_time(price.hours)} on "
        f"{where}; {room}"
    )


def tuned(params: Params, data: Path) -> Chosen | None:
    """The settings that `tune` chose, where it has chosen among as many trials; None: those of params.yaml."""
    if not params.tuning.trials:
        return None
    found: dict[str, dict[str, Settings]] = {task: {} for task in params.grid.tasks}
    for strategy in params.grid.strategies:
        try:
            told = read_tuned(data / "tuned" / f"{strategy}.yaml")
        except InputError:
            return None
        if told.trials != params.tuning.trials or not found.keys() <= told.tasks.keys():
            return None
        for task, of_task in found.items():
            of_task.update(told.tasks[task])
    return found


def asked(params: Params, settings: Chosen | None = None) -> tuple[Runs, Counter[str]]:
    """All runs: the grid's, its ablations', and after them what these need and lack; of those the count by strategy.

    A run that several need is there once. `settings` as `all_runs`.
    """
    found = all_runs(params, settings)
    known = {repr(spec) for specs in found.values() for spec in specs}
    count, todo = Counter[str](), [spec for specs in found.values() for spec in specs]
    for spec in todo:  # grows meanwhile
        for need in spec.needs.values():
            if (key := repr(need)) not in known:
                known.add(key)
                todo.append(need)
                count[need.strategy] += 1
                found.setdefault((need.strategy, need.task), []).append(need)
    return found, count


def estimate(
    params: Params,
    runs: Runs,
    finished: Mapping[tuple[str, str], set[int]],
    cohort: Cohort,
    watch: Stopwatch,
    gpu: Gpu | None = None,
) -> Iterator[Line]:
    """A line a strategy and task, as soon as it is known. `finished`: positions of its runs that are in the run store.

    A strategy is timed once a cohort and size of its encoders, as tasks differ in the last layer alone; one that is
    fitted, for each task.
    """
    tested = TEMPORAL_TEST_SHARE if params.splits.scheme == "temporal" else 1 / params.splits.folds
    fitted = (1 - params.splits.dev_share) * (1 - tested)
    train, val = fitted * (1 - params.splits.val_share), fitted * params.splits.val_share
    timed: dict[tuple[object, ...], tuple[Cost, int, float]] = {}  # and how many at a time, and that much slower each
    for pair, specs in runs.items():
        missing = [spec for i, spec in enumerate(specs) if i not in finished.get(pair, set())]
        hours = packed = megabytes = 0.0
        most, told = 1, False
        kinds = dict.fromkeys((spec.train_cohort, spec.encoders) for spec in missing)
        for name, encoders in kinds:
            chosen = [spec for spec in missing if (spec.train_cohort, spec.encoders) == (name, encoders)]
            stays = cohort.stays if name == "base" else cohort.images
            share = cohort.images / max(1, cohort.stays) if name == "base" else 1.0
            once = "lr" not in chosen[0].hyper
            key = (*pair, name, encoders) if once else (pair[0], name, encoders)
            if key not in timed:
                cost, together, slower = watch.cost(chosen[0], share), 1, 1.0
                if gpu and not once and not cost.told:
                    together = runs_per_gpu(gpu.free_mb, cost.gpu_mb + gpu.data_mb, gpu.cores)
                    if together > 1:
                        slower = time_together(chosen[0], watch.seen, share, together) / cost.batch
                timed[key] = cost, together, slower
            cost, together, slower = timed[key]
            most, told = max(most, together), told or cost.told
            epoch = math.ceil(stays * train / chosen[0].batch_size) * cost.batch + stays * val * cost.stay
            seconds = (1 if once else chosen[0].max_epochs) * epoch + cohort.stays * (1 - train) * cost.stay
            hours += len(chosen) * seconds / 3600
            packed += len(chosen) * seconds / 3600 * slower / together
            megabytes += len(chosen) * cost.megabytes
        yield Line(*pair, len(specs), len(missing), hours, megabytes, most, packed, told)


def finished_runs(runs: Runs, data: Path) -> dict[tuple[str, str], set[int]]:
    """Positions of the runs that are in the run store; none where the data are not made yet."""
    from pipeline.training.store import Store

    images = {spec.training.image for specs in runs.values() for spec in specs}
    files = {*FILES, *(name for image in images for name in embedding_files(image))}
    if not all((data / name).is_file() for name in files):
        return {}
    store = Store.of(data)
    return {pair: {i for i, spec in enumerate(specs) if store.finished(spec)} for pair, specs in runs.items()}


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.0f} s"


def counts(params: Params, runs: Runs, earlier: Counter[str], cohort: Cohort) -> str:
    """What is known at once: how many runs, and of whom."""
    scale, total = params.get("scales.training"), sum(map(len, runs.values()))
    known = "" if cohort.measured else " (guessed: there are no data yet)"
    ablations = sum(len(specs) for (name, _), specs in runs.items() if name not in params.strategies)
    whose = ", ".join(f"{name} {count}" for name, count in sorted(earlier.items()))
    return "\n".join(
        [
            f"scale {params.scale}: {len(params.grid.strategies)} strategies × {len(params.grid.tasks)} tasks, "
            f"{total} runs (cohorts {', '.join(scale.cohorts)}; folds "
            f"{', '.join(map(str, scale.folds))}; seeds {', '.join(map(str, scale.seeds))})",
            *([f"{ablations} of them are of ablations, for strategies' own tables"] if ablations else []),
            *([f"{earlier.total()} of them are not in the grid, and needed by its runs: {whose}"] if earlier else []),
            f"cohort: {cohort.stays} stays, {cohort.images} with an image{known}",
        ]
    )


def head(gpu: Gpu | None = None) -> str:
    """The names of the columns of `row`."""
    text = f"{'strategy':<24}{'task':<11}{'runs':>5}{'to make':>9}{'all epochs':>12}{'MB':>9}"
    return text + (f"{'a GPU':>7}{'GPU hours':>12}" if gpu else "")


def row(line: Line, gpu: Gpu | None = None) -> str:
    """A line as text; ~ before hours by FLOPs."""
    hours = ("~" if line.told else "") + _time(line.hours)
    text = f"{line.strategy:<24}{line.task:<11}{line.runs:>5}{line.missing:>9}{hours:>12}{line.megabytes:>9.1f}"
    return text + (f"{line.per_gpu:>7}{_time(line.packed_hours):>12}" if gpu else "")


def summary(
    params: Params, lines: list[Line], crew: Crew, watch: Stopwatch, gpu: Gpu | None = None, *, tried: bool = False
) -> str:
    """What all that is to be made takes, and what is not in it; of the latter the trials, unless they are made."""
    hours, disk = sum(line.hours for line in lines), sum(line.megabytes for line in lines)
    packed, gpus = sum(line.packed_hours for line in lines), len(crew.gpus)
    at_once = (
        f"{_time(packed / gpus)} on {gpus} GPUs, several at a time"
        if gpu
        else (f"{_time(hours / crew.count)} on {crew.count}")
    )
    text = [
        f"with all {params.get('scales.training').max_epochs} epochs of each run about {_time(hours)} of one process, "
        f"{at_once}; {disk:.0f} MB of weights"
    ]
    if watch.reference and any(line.told for line in lines):
        spec, cost, _ = watch.reference
        text.append(f"~: not timed, but by FLOPs from a batch of {spec.strategy}, which took {cost.batch:.1f} s")
    trials = f"{params.tuning.trials} trials a strategy, " if params.tuning.trials and not tried else ""
    return "\n".join([*text, INCLUDED.format(trials=trials)])


def main() -> None:
    """Prints the plan, line by line as it is known."""
    arguments = parser("pipeline.plan", "What the params ask for.").parse_args()
    try:
        params, data = load(arguments.params, arguments.changes), Path(arguments.data)
        runs, earlier = asked(params, settings := tuned(params, data))
        cohort = cohort_size(params, data)
        print(counts(params, runs, earlier, cohort), flush=True)
        finished = finished_runs(runs, data)
        made = sum(map(len, finished.values()))
        missing = sum(map(len, runs.values())) - made
        print(f"in the run store: {made} runs; to be made: {missing}", flush=True)
        seen: Seen = params.get("scales.images").px
        for price in embeddings(params, data, cohort):
            print(told_price(price), flush=True)
            if price.encoder == params.training.image:
                seen = grid_side(price.shape[0]), price.shape[1]
        if missing:
            crew, watch = choice(params.training.device), Stopwatch(seen)
            gpu, lines = machine_gpu(crew, data, params.training.image), list[Line]()
            print(head(gpu), flush=True)
            for line in estimate(params, runs, finished, cohort, watch, gpu):
                lines.append(line)
                if line.missing:
                    print(row(line, gpu), flush=True)
            print(summary(params, lines, crew, watch, gpu, tried=settings is not None))
    except InputError as error:
        sys.exit(f"plan: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(told(params, data))


if __name__ == "__main__":
    main()
