"""Many workers on one run store, simulated: runs that sleep, claimed and filed by the store's own code.

`python -m tests.benchmarks.claims` prints docs/speed.md's table. Every worker is a process that takes itself for a
machine of its own: of a killed one nothing is known but that its lease is no longer touched. No run has a checkpoint:
all that a killed worker has done of its run is lost.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline import owners
from pipeline.params import load
from pipeline.plan import all_runs
from pipeline.training.claim import LeaseLost
from pipeline.training.grid import RunSpec
from pipeline.training.store import MADE, Store

PAUSE_SECONDS = 0.2  # of a worker that finds nothing to do
SLICE_SECONDS = 0.1  # of a run, between two looks at the lease: a batch


class Named(Store):
    """A store whose names cost nothing: 64 processors would compute them, not two."""

    def name(self, spec: RunSpec) -> str:
        return f"run{spec.seed}"


def specs(count: int) -> list[RunSpec]:
    (first, *_) = next(iter(all_runs(load()).values()))
    return [dataclasses.replace(first, seed=seed, needs={}) for seed in range(count)]


def seconds_of(spec: RunSpec, mean: float) -> float:
    """How long the run takes: from a half to twice the mean, mostly."""
    return mean * random.Random(spec.seed).lognormvariate(-0.125, 0.5)


def work(number: int, every: list[RunSpec], store: Store, mean: float, events: Path) -> None:
    """A worker's life: goes round until all runs are finished; writes each event and when it was."""
    owners._machine = lambda: f"{number:08x}"
    owners._name.cache_clear()
    start = number * len(every) // 64 % len(every)
    todo = every[start:] + every[:start]
    with events.open("a", buffering=1) as file:

        def tell(what: str, spec: RunSpec | None = None, took: float = 0.0) -> None:
            seed = -1 if spec is None else spec.seed
            file.write(f"{time.monotonic()} {number} {what} {seed} {took}\n")

        tell("starts")
        while todo:
            left, made = [], 0
            for spec in todo:
                if store.finished(spec):
                    continue
                before = time.monotonic()
                try:
                    with store.claimed(spec, wait=False) as claim:
                        took = time.monotonic() - before
                        if claim is None:
                            tell("misses", spec, took)
                            left.append(spec)
                            continue
                        if store.finished(spec):
                            continue
                        tell("claims", spec, took)
                        until = time.monotonic() + seconds_of(spec, mean)
                        while (rest := until - time.monotonic()) > 0:
                            claim.check()
                            time.sleep(min(SLICE_SECONDS, rest))
                        tell("worked", spec)
                        for name in MADE:
                            (claim.folder / name).write_bytes(b"made")
                        store.finish(claim, {"seconds": 0.0})
                        tell("files", spec)
                        made += 1
                except LeaseLost:
                    tell("loses", spec)
                    left.append(spec)
            todo = left
            if todo and not made:
                time.sleep(PAUSE_SECONDS)
        tell("ends")


@dataclass
class Found:
    """What came of it; seconds, but for counts and shares."""

    wall: float
    claims: int  # that were successful
    misses: int
    claim_median: float
    claim_worst: float
    filing_median: float
    idle: float  # share of the living workers' time until the last run was claimed
    wasted: float  # seconds of work that went into no result, over those that did
    twice: int  # runs that were filed by two
    lost: int  # leases
    again: list[float]  # from the kill to the next claim of each run that was killed


def simulate(runs: int, workers: int, mean: float, kill: int, folder: Path) -> Found:
    """`runs` sleeping runs by `workers` processes; when half of them are filed, `kill` workers are killed."""
    every, store, events = specs(runs), Named(folder / "work", "data"), folder / "events"
    events.mkdir(parents=True)
    store.identity(every[0])  # digests of the code: each worker's own start, which two processors would make for all
    children: dict[int, int] = {}
    for number in range(workers):
        child = os.fork()
        if not child:
            status = 1
            try:
                work(number, every, store, mean, events / str(number))
                status = 0
            finally:
                os._exit(status)
        children[child] = number
    killed, killed_at = set(list(children.values())[:: max(1, workers // kill)][:kill]) if kill else set(), 0.0
    if killed:
        while sum(1 for _ in (folder / "work/runs").glob("*/result.json")) < runs / 2:
            time.sleep(0.5)
        killed_at = time.monotonic()
        for child, number in children.items():
            if number in killed:
                os.kill(child, signal.SIGKILL)
    for child, number in children.items():
        status = os.waitpid(child, 0)[1]
        assert status == 0 or number in killed, f"worker {number} ended with {status}"
    made = len(list((folder / "work/runs").glob("*/result.json")))
    assert made == runs, f"{made} of {runs} runs were made"
    return measures(read(events), workers - len(killed), killed_at)


class Event(NamedTuple):
    """What a worker told: when, of which run, and how long it took (of an attempt at a claim)."""

    at: float
    worker: int
    what: str
    run: int
    took: float


class Attempt(NamedTuple):
    """A run, from its claim until it was filed, lost or killed."""

    run: int
    worker: int
    since: float
    until: float
    how: str


def read(events: Path) -> list[Event]:
    """All events, in the order of time."""
    lines = [line.split() for path in events.iterdir() for line in path.read_text().splitlines()]
    return sorted(Event(float(at), int(worker), what, int(run), float(took)) for at, worker, what, run, took in lines)


def measures(told: list[Event], living: int, killed_at: float) -> Found:
    """What `living` workers, and those that were killed at `killed_at`, came to."""
    begin, last_claim = told[0].at, max(event.at for event in told if event.what == "claims")
    open_: dict[tuple[int, int], float] = {}
    ended: dict[tuple[int, int], float] = {}
    filing, attempts = [], []
    for event in told:
        key = event.worker, event.run
        if event.what == "claims":
            open_[key] = event.at
        elif event.what == "worked":
            ended[key] = event.at
        elif event.what in ("files", "loses"):
            attempts.append(Attempt(event.run, event.worker, open_.pop(key), event.at, event.what))
            if event.what == "files":
                filing.append(event.at - ended[key])
    killed = [Attempt(run, worker, since, killed_at, "killed") for (worker, run), since in open_.items()]
    first = {each.run: each for each in reversed(attempts) if each.how == "files"}
    useful = sum(each.until - each.since for each in first.values())
    dead = {each.worker for each in killed}
    busy = sum(max(0.0, min(each.until, last_claim) - each.since) for each in attempts if each.worker not in dead)
    took = [event.took for event in told if event.what == "claims"]
    return Found(
        wall=told[-1].at - begin,
        claims=len(took),
        misses=sum(event.what == "misses" for event in told),
        claim_median=statistics.median(took),
        claim_worst=max(took),
        filing_median=statistics.median(filing),
        idle=1 - busy / (living * (last_claim - begin)),
        wasted=sum(each.until - each.since for each in [*attempts, *killed]) / useful - 1,
        twice=sum(each.how == "files" for each in attempts) - len(first),
        lost=sum(each.how == "loses" for each in attempts),
        again=[
            min(other.since for other in attempts if other.run == each.run and other.since > killed_at) - killed_at
            for each in killed
        ],
    )


def table(found: dict[str, Found]) -> str:
    """Markdown: a column a simulation."""
    rows = {
        "wall time, s": lambda f: f"{f.wall:.1f}",
        "claims a second": lambda f: f"{f.claims / f.wall:.0f}",
        "claims, and attempts at a run that another was at": lambda f: f"{f.claims:,}, {f.misses:,}",
        "a claim, median and worst, ms": lambda f: f"{1e3 * f.claim_median:.1f}, {1e3 * f.claim_worst:.0f}",
        "filing a run, flushed to the disk, median, ms": lambda f: f"{1e3 * f.filing_median:.0f}",
        "share of time idle until the last claim": lambda f: f"{100 * f.idle:.1f} %",
        "work that went into no result": lambda f: f"{100 * f.wasted:.2f} %",
        "runs filed twice, leases lost": lambda f: f"{f.twice}, {f.lost}",
        "from the kill to the next claim of a killed run, median and worst, s": lambda f: (
            f"{statistics.median(f.again):.1f}, {max(f.again):.1f}" if f.again else ""
        ),
    }
    lines = [f"| | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(map(row, found.values()))} |" for name, row in rows.items())])


def main(runs: int = 2000, workers: int = 64, mean: float = 2.0, lease: float = 6.0) -> None:
    os.environ["FUSION_LEASE"] = str(lease)
    found = {}
    for name, kill in {"nobody is killed": 0, "6 workers are killed": 6}.items():
        with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
            found[name] = simulate(runs, workers, mean, kill, Path(folder))
    print(f"{runs:,} runs of {mean:g} s (mean), {workers} workers, FUSION_LEASE={lease:g}\n\n{table(found)}")


if __name__ == "__main__":
    main()
