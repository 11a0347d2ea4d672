"""Which run is to be made next: of all that are asked for and needed, in order, those that nobody is at.

Whoever works a list off, on whatever machine, holds a list of its own; what they share is the run store. There a run is
claimed, finished (result.json) or failed (FAILED holds why).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.training.grid import RunSpec
from pipeline.training.store import Store

FAILED = "failed.txt"
ASKED = 8  # finished runs of a strategy, at most, whose peaks are looked up at the start


@dataclass(frozen=True)
class Job:
    """A run, what the store files it under, and the names of the runs that it needs."""

    spec: RunSpec
    name: str
    needs: tuple[str, ...]


def jobs(specs: Iterable[RunSpec], store: Store) -> list[Job]:
    """The runs and all that they need, each once: needed ones first, after what they need themselves."""
    found: dict[str, Job] = {}
    depth: dict[str, int] = {}  # of those that are needed: how many stand below

    def add(spec: RunSpec) -> Job:
        needs = tuple(add(needed).name for needed in spec.needs.values())
        job = Job(spec, store.name(spec), needs)
        for name in needs:
            depth[name] = max((depth[each] + 1 for each in found[name].needs), default=0)
        return found.setdefault(job.name, job)

    for spec in specs:
        add(spec)
    return sorted(found.values(), key=lambda job: (job.name not in depth, depth.get(job.name, 0)))


class Worklist:
    """Runs to be made. `open`: by name, in order; `here`: those at work here; `failed`: why not, by name.

    Names of those that were there `before`, were `made` here (`resumed`: from a checkpoint) or `elsewhere` since.
    `epochs`: done here, by name. Of what failed before, another try is made, one a list; what fails elsewhere meanwhile
    is not tried again.
    """

    def __init__(self, specs: Sequence[RunSpec], store: Store) -> None:
        self.store = store
        every = jobs(specs, store)
        self.open = {job.name: job for job in every if not self._finished(job.name)}
        self.here: set[str] = set()
        self.failed: dict[str, str] = {}
        self.before = {job.name for job in every} - self.open.keys()
        self.made, self.resumed, self.elsewhere = set[str](), set[str](), set[str]()
        self.epochs: dict[str, int] = {}
        self._old = {name: self._stamp(name) for name in self.open}
        self._peaks: dict[str, list[float]] = {}
        for job in every:
            if job.name not in self.open and len(self._peaks.get(job.spec.strategy, [])) < ASKED:
                self._look_up(job)

    def take(self, fits: Callable[[Job], bool] = lambda job: True) -> Job | None:
        """The first run that is ready, fits, and that nobody is at: it is ours. None where there is none just now."""
        for name, job in list(self.open.items()):
            if name in self.here:
                continue
            if failed := next((need for need in job.needs if need in self.failed), None):
                self.fail(job, f"{job.spec.name}: not made; it needs a run that failed: {self.failed[failed]}")
            elif any(need in self.open for need in job.needs) or not fits(job):
                continue  # and nobody asks the disk, which may be far away
            elif self._finished(name):
                self.done(job, here=False)
            elif (stamp := self._stamp(name)) != self._old[name] and stamp is not None:
                self.fail(job, (self._folder(name) / FAILED).read_text(encoding="utf-8").strip())
            elif self._free(job.spec):
                self.here.add(name)
                return job
        return None

    def reach(self, job: Job, epoch: int) -> None:
        """It has done so many epochs."""
        if job.name not in self.epochs and epoch > 1:
            self.resumed.add(job.name)
        self.epochs[job.name] = epoch

    def done(self, job: Job, here: bool = True) -> None:
        """It is made."""
        (self.made if here else self.elsewhere).add(job.name)
        self._close(job)

    def back(self, job: Job) -> None:
        """Somebody else was quicker, or it was stopped."""
        self.here.discard(job.name)

    def fail(self, job: Job, why: str) -> None:
        """It cannot be made."""
        self.failed[job.name] = why
        self.here.discard(job.name)
        del self.open[job.name]

    def peak(self, strategy: str) -> float | None:
        """MB that a run of the strategy held on a GPU at most; None where none was measured."""
        return max(self._peaks.get(strategy, ()), default=None)

    def _folder(self, name: str) -> Path:
        return self.store.work / "runs" / name

    def _finished(self, name: str) -> bool:
        return (self._folder(name) / "result.json").is_file()

    def _stamp(self, name: str) -> int | None:
        with contextlib.suppress(OSError):
            return (self._folder(name) / FAILED).stat().st_mtime_ns
        return None

    def _free(self, spec: RunSpec) -> bool:
        """Whether it can be claimed. Asked by a process that goes on asking: that a holder is dead shows with time."""
        with self.store.claimed(spec, wait=False) as claim:
            return claim is not None

    def _close(self, job: Job) -> None:
        self.here.discard(job.name)
        del self.open[job.name]
        self._look_up(job)

    def _look_up(self, job: Job) -> None:
        with contextlib.suppress(OSError, ValueError):
            told = json.loads((self._folder(job.name) / "result.json").read_text(encoding="utf-8"))
            if "gpu_mb" in told:
                self._peaks.setdefault(job.spec.strategy, []).append(float(told["gpu_mb"]))
