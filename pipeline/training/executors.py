"""Who works the grid off: in this process, or a pool of processes. A matter of the environment; never changes a result.

FUSION_EXECUTOR is `auto` (default), `inline`, `pool` or `pool:N`. A pool has a process a GPU, or a core where there is
no GPU; `pool:N` has N. Each run is a process of its own, forked from a server that has imported torch once. A cluster
executor is another entry of EXECUTORS: it takes the same arguments and makes the same runs.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.errors import InputError
from pipeline.processes import end_with_parent, interrupt_deferred
from pipeline.training.grid import RunSpec
from pipeline.training.machine import gpus
from pipeline.training.store import Store

log = logging.getLogger("train")
# What the forkserver imports once for all runs: the run's code. Not Polars, which starts threads: they do not survive
# the fork.
PRELOAD = ["pipeline.training.run", "pipeline.modelling.encoders"]


class _Bar:
    """One bar for all runs: epochs done of those that may come, the latest loss and metric, time left."""

    def __init__(self, specs: Sequence[RunSpec]) -> None:
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(total=sum(spec.max_epochs for spec in specs), unit="epoch", mininterval=10 if quiet else 0.2)
        self.done = {spec.name: 0 for spec in specs}

    def epoch(self, spec: RunSpec, epoch: int, row: dict[str, Any]) -> None:
        score = row["monitor"] if row["monitor"] != "none" else "train_loss"
        self.bar.set_postfix_str(
            f"{spec.task} {spec.train_cohort} fold {spec.fold} seed {spec.seed} epoch {epoch}/{spec.max_epochs} "
            f"loss {row['train_loss']:.3f} {score} {row[score]:.3f}",
            refresh=False,
        )
        self.bar.update(epoch - self.done[spec.name])  # a resumed run starts late
        self.done[spec.name] = epoch

    def finished(self, spec: RunSpec) -> None:
        """Early stopping: the epochs that do not come."""
        self.bar.total -= spec.max_epochs - self.done[spec.name]
        self.bar.refresh()


def _work(spec: RunSpec, store: Store, data: Path, gpu: str | None, sender: Connection) -> None:
    """A worker's life: one run. Sends (epoch, row) for each epoch, and a text where the input is at fault."""
    end_with_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    from pipeline.training.run import make_run

    try:
        make_run(spec, store, data, lambda epoch, row: sender.send((epoch, row)))
    except InputError as error:
        sender.send(str(error))
        sys.exit(1)


def inline(specs: Sequence[RunSpec], store: Store, data: Path, workers: int) -> None:
    """One run after the other in this process."""
    from pipeline.training.run import make_run

    bar = _Bar(specs)
    try:
        for spec in specs:
            make_run(spec, store, data, functools.partial(bar.epoch, spec))
            bar.finished(spec)
    finally:
        bar.bar.close()


@dataclass
class _Worker:
    spec: RunSpec
    process: BaseProcess
    receiver: Connection
    slot: int


def pool(specs: Sequence[RunSpec], store: Store, data: Path, workers: int) -> None:
    """At most `workers` runs at a time, each in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    devices = gpus(specs[0].training.device)
    todo, slots, active = list(specs), list(range(workers)), list[_Worker]()
    bar = _Bar(specs)
    try:
        while todo or active:
            while todo and slots:
                spec, slot = todo.pop(0), slots.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                gpu = devices[slot % len(devices)] if devices else None
                process = context.Process(target=_work, args=(spec, store, data, gpu, sender), daemon=True)
                with interrupt_deferred():
                    process.start()
                sender.close()  # the worker holds the only end: its death closes the pipe
                active.append(_Worker(spec, process, receiver, slot))
            ready = wait([worker.receiver for worker in active])
            for worker in [worker for worker in active if worker.receiver in ready]:
                try:
                    message = worker.receiver.recv()
                except (EOFError, OSError):  # OSError: killed in the middle of a message
                    worker.process.join()
                    if not store.finished(worker.spec):
                        raise InputError(
                            f"{worker.spec.name}: its process ended with status {worker.process.exitcode}; "
                            f"finished runs are kept in {store.work}, the same command goes on"
                        ) from None
                    bar.finished(worker.spec)
                    slots.append(worker.slot)
                    active.remove(worker)
                    continue
                if isinstance(message, str):
                    raise InputError(message)
                bar.epoch(worker.spec, *message)
    finally:
        bar.bar.close()
        for worker in active:
            worker.process.kill()
            worker.process.join()


EXECUTORS = {"inline": inline, "pool": pool}


def choice(device: str) -> tuple[str, int]:
    """The executor's name and how many processes it may use: of a pool, one a GPU, or a core where there is no GPU.

    Raises InputError where FUSION_EXECUTOR asks for what there is not.
    """
    wanted = os.environ.get("FUSION_EXECUTOR", "auto")
    name, colon, count = wanted.partition(":")
    if name not in ("auto", *EXECUTORS) or (colon and (name != "pool" or not count.isdigit() or not int(count))):
        raise InputError(f"FUSION_EXECUTOR: {wanted!r} is not auto, inline, pool or pool:N")
    if name == "inline":
        return name, 1
    return name, int(count) if colon else len(gpus(device)) or len(os.sched_getaffinity(0))


def execute(specs: Sequence[RunSpec], store: Store, data: Path) -> None:
    """Makes the runs that are not finished, and first those that they need.

    Raises InputError where one fails; the finished ones are kept.
    """
    todo = [spec for spec in specs if not store.finished(spec)]
    if before := {store.name(each): each for spec in todo for each in spec.needs.values()}:
        execute(list(before.values()), store, data)
    name, workers = choice(specs[0].training.device)
    log.info("%d of %d runs are in the run store", len(specs) - len(todo), len(specs))
    if not todo:
        return
    workers = min(workers, len(todo))
    if name == "auto":
        name = "pool" if workers > 1 else "inline"
    EXECUTORS[name](todo, store, data, workers)
