"""Who works a list of runs off: this process, or a pool of processes. A matter of the environment, not of the results.

FUSION_EXECUTOR is `auto` (default), `inline`, `pool` or `pool:N`: for train cells, each with a list of its own runs. A
pool has a process a core (on GPUs: as their memory allows, pipeline.training.packing); `pool:N` has N. Each run is a
process of its own, forked from a server that has imported torch once. `python -m pipeline.work` works all cells' runs
off in the same way, here and on other machines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline import files
from pipeline.errors import InputError
from pipeline.processes import end_with_parent, interrupt_deferred
from pipeline.training.claim import LeaseLost, Stopped
from pipeline.training.grid import RunSpec
from pipeline.training.packing import Crew, crew
from pipeline.training.store import Store
from pipeline.training.worklist import FAILED, Job, Worklist

log = logging.getLogger("train")
# What the forkserver imports once for all runs: the run's code. Not Polars, which starts threads: they do not survive
# the fork.
PRELOAD = ["pipeline.training.run", "pipeline.modelling.encoders"]
POLL_SECONDS = 1.0  # between two looks at whether to stop, or whether others are still at a run, at first:
IDLE_SHARE, IDLE_SECONDS = 0.1, 20.0  # ... then after that share of the time without a run of ours, up to so long

MADE, THERE, BUSY, STOPPED = "made", "there", "busy", "stopped"  # how an attempt went; else why it failed
UNFIT = "unfit: "  # before why this machine can make no run

Report = Callable[[int, dict[str, Any]], None]
Stop = Callable[[], bool]


class _Bar:
    """One bar for a list: epochs done or not needed any more, runs made, the latest loss and metric, time left."""

    def __init__(self, worklist: Worklist) -> None:
        self.list = worklist
        self.most = {name: job.spec.max_epochs for name, job in worklist.open.items()}
        self.shown = dict.fromkeys(self.most, 0)
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(total=sum(self.most.values()), unit="epoch", mininterval=10 if quiet else 0.2)

    def epoch(self, job: Job, epoch: int, row: dict[str, Any]) -> None:
        """An epoch of a run was done."""
        score = row["monitor"] if row["monitor"] != "none" else "train_loss"
        runs = f"{len(self.most) - len(self.list.open)}/{len(self.most)} runs"
        self.bar.set_postfix_str(
            f"{runs}; {job.spec.name} epoch {epoch}/{job.spec.max_epochs} "
            f"loss {row['train_loss']:.3f} {score} {row[score]:.3f}",
            refresh=False,
        )
        self.list.reach(job, epoch)
        self._show(job.name, epoch)

    def follow(self) -> None:
        """The list as it is now: of what was made, here or elsewhere, or has failed, no epoch is to come."""
        for name in self.most.keys() - self.list.open.keys():
            self._show(name, self.most[name])

    def _show(self, name: str, epoch: int) -> None:
        self.bar.update(epoch - self.shown[name])  # a resumed run starts late
        self.shown[name] = epoch


def _attempt(spec: RunSpec, store: Store, data: Path, report: Report, stop: Stop) -> str:
    """Makes the run unless somebody else is at it; how it went. Why it failed is filed with the run, for all to see."""
    from pipeline.modelling.device import pick_device
    from pipeline.training.run import make_run

    try:
        pick_device(spec.training.device)
    except InputError as error:
        return f"{UNFIT}{error}"
    failed, outcome = store.folder(spec) / FAILED, THERE  # by now

    def reached(epoch: int, row: dict[str, Any]) -> None:
        nonlocal outcome
        outcome = MADE
        report(epoch, row)

    try:
        if not make_run(spec, store, data, reached, stop, wait=False):
            return BUSY
    except LeaseLost:
        return BUSY
    except Stopped:
        return STOPPED
    except InputError as error:
        with contextlib.suppress(InputError):  # a full disk
            files.write_text(f"{error}\n", failed)
        return str(error)
    failed.unlink(missing_ok=True)
    return outcome


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[Stop]:
    """Whether this process was told to end (a time limit is near, others need the machine): runs end between epochs."""
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _life(spec: RunSpec, store: Store, data: Path, gpu: str, sender: Connection) -> None:
    """A process of the pool: one run. Sends (epoch, row) for each epoch, and at the end how it went."""
    end_with_parent()
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    with stopped_by_sigterm() as stop:
        sender.send(_attempt(spec, store, data, lambda epoch, row: sender.send((epoch, row)), stop))


def _settle(worklist: Worklist, job: Job, outcome: str) -> None:
    if outcome.startswith(UNFIT):
        raise InputError(outcome.removeprefix(UNFIT))
    if outcome in (MADE, THERE):
        worklist.done(job, here=outcome == MADE)
    elif outcome in (BUSY, STOPPED):
        worklist.back(job)
    else:
        worklist.fail(job, outcome)


def _never() -> bool:
    return False


def work_off(worklist: Worklist, data: Path, crew: Crew, stop: Stop = _never, go_on: bool = False) -> None:
    """Makes the runs of the list, as many at a time as the crew may, until all are made, by anybody, or `stop` says so.

    Raises InputError where this machine can make none; and where a run failed, unless the others are to `go_on`.
    """
    bar = _Bar(worklist)
    steps = (_inline if crew.inline else _pool)(worklist, data, crew, stop, bar)
    try:
        for _ in steps:
            bar.follow()
            if worklist.failed and not go_on:
                raise InputError(next(iter(worklist.failed.values())))
    finally:
        steps.close()
        bar.bar.close()


def _inline(worklist: Worklist, data: Path, crew: Crew, stop: Stop, bar: _Bar) -> Generator[None]:
    """One run after the other in this process; stops after each to have it looked at."""
    looks = _Looks()
    while worklist.open and not stop():
        if not looks.due():
            time.sleep(POLL_SECONDS)
        elif job := worklist.take():
            report = functools.partial(bar.epoch, job)
            _settle(worklist, job, _attempt(job.spec, worklist.store, data, report, stop))
            looks.anew()
        else:
            looks.vain()
        yield


class _Looks:
    """When to look for a run again where there was none: ever more seldom, as a look asks a disk that many share."""

    def __init__(self) -> None:
        self.anew()

    def anew(self) -> None:
        """At once: a run has ended, and others may be ready."""
        self.since = self.next = time.monotonic()

    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self.next

    def vain(self) -> None:
        """There was none."""
        now = time.monotonic()
        self.next = now + min(IDLE_SECONDS, max(POLL_SECONDS, IDLE_SHARE * (now - self.since)))


@dataclass
class _Worker:
    job: Job
    process: BaseProcess
    receiver: Connection
    place: str


def _pool(worklist: Worklist, data: Path, crew: Crew, stop: Stop, bar: _Bar) -> Generator[None]:
    """At most `crew.count` runs at a time, each in a process of its own; stops now and then to have it looked at."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    active, looks, told = list[_Worker](), _Looks(), False

    def place(job: Job) -> str | None:
        there = [(worker.place, worklist.peak(worker.job.spec.strategy)) for worker in active]
        return crew.place(there, worklist.peak(job.spec.strategy))

    try:
        while active or (worklist.open and not stop()):
            if stop() and not told:
                told = True
                for worker in active:
                    worker.process.terminate()
            while not told and len(active) < crew.count and looks.due():
                job = worklist.take(lambda job: place(job) is not None)
                if job is None:
                    looks.vain()
                    break
                receiver, sender = context.Pipe(duplex=False)
                gpu = place(job) or ""
                process = context.Process(target=_life, args=(job.spec, worklist.store, data, gpu, sender), daemon=True)
                with interrupt_deferred():
                    process.start()
                sender.close()  # the worker holds the only end: its death closes the pipe
                active.append(_Worker(job, process, receiver, gpu))
            if not active:
                time.sleep(POLL_SECONDS)
            ready = wait([worker.receiver for worker in active], timeout=POLL_SECONDS) if active else []
            for worker in [worker for worker in active if worker.receiver in ready]:
                try:
                    message = worker.receiver.recv()
                except (EOFError, OSError):  # OSError: killed in the middle of a message
                    worker.process.join()
                    message = STOPPED if stop() else _died(worker, worklist.store)
                if isinstance(message, tuple):
                    bar.epoch(worker.job, *message)
                    continue
                active.remove(worker)
                worker.process.join()
                looks.anew()
                _settle(worklist, worker.job, message)
            yield  # once more when the last run has ended, which may have failed
    finally:
        for worker in active:
            worker.process.kill()
            worker.process.join()


def _died(worker: _Worker, store: Store) -> str:
    return (
        f"{worker.job.spec.name}: its process ended with status {worker.process.exitcode}; finished runs are kept in "
        f"{store.work}, the same command goes on"
    )


def choice(device: str, runs: int | None = None) -> Crew:
    """Who works by FUSION_EXECUTOR, for so many runs. Raises InputError where it asks for what there is not."""
    wanted = os.environ.get("FUSION_EXECUTOR", "auto")
    name, colon, count = wanted.partition(":")
    if name not in ("auto", "inline", "pool") or (colon and (name != "pool" or not count.isdigit() or not int(count))):
        raise InputError(f"FUSION_EXECUTOR: {wanted!r} is not auto, inline, pool or pool:N")
    found = crew(device, int(count) if colon else None)
    size = min(found.count, runs or found.count)
    alone = name == "inline" or (name == "auto" and size == 1)
    return dataclasses.replace(found, count=1 if alone else size, inline=alone)


def execute(specs: Sequence[RunSpec], store: Store, data: Path) -> None:
    """Makes the runs that are not finished, and first those that they need.

    Raises InputError where one fails; the finished ones are kept.
    """
    worklist = Worklist(specs, store)
    missing = sum(store.name(spec) in worklist.open for spec in specs)
    log.info("%d of %d runs are in the run store", len(specs) - missing, len(specs))
    if worklist.open:
        work_off(worklist, data, choice(specs[0].training.device, len(worklist.open)))
