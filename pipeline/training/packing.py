"""How many runs at a time, and which GPU takes which: as many as cores, and as a GPU's memory is known to hold.

A run of a small model leaves most of a GPU idle. Several processes share one by turns, or at once where CUDA MPS runs.
What a run holds there is told by finished runs of its strategy (gpu_mb in result.json); one that is not known has a GPU
to itself.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.training.machine import gpus

CONTEXT_MB = 600.0  # what CUDA itself holds for a process, beside torch's memory: about; it grows with the kernels used
USABLE = 0.9  # of the memory: allocators do not fill it to the last block


def runs_per_gpu(free_mb: float, peak_mb: float, cores: int) -> int:
    """How many runs of that peak a GPU takes, at least one, of those that `cores` cores can feed: a run has one."""
    return max(1, min(cores, int(USABLE * free_mb / (peak_mb + CONTEXT_MB))))


@dataclass(frozen=True)
class Crew:
    """At most `count` runs at a time; `per_gpu` of them on each of `gpus`, or as `free_mb` allows where it is None.

    `inline`: one after the other in the process that asks. `cores`: those of this machine that are ours.
    """

    count: int
    gpus: tuple[str, ...] = ()
    per_gpu: int | None = None
    free_mb: Mapping[str, float] = field(default_factory=dict)
    inline: bool = False
    cores: int = 1

    def place(self, there: Sequence[tuple[str, float | None]], peak: float | None) -> str | None:
        """The GPU, "" for the CPU, on which another run with that peak [MB] fits, the emptiest; None where none does.

        `there`: the places and peaks of those at work.
        """
        if not self.gpus:
            return ""
        of = {gpu: [each for name, each in there if name == gpu] for gpu in self.gpus}
        return next((gpu for gpu in sorted(of, key=lambda gpu: len(of[gpu])) if self._room(gpu, of[gpu], peak)), None)

    def _room(self, gpu: str, there: Sequence[float | None], peak: float | None) -> bool:
        if not there:
            return True
        if self.per_gpu is not None:
            return len(there) < self.per_gpu
        known = [each for each in (*there, peak) if each is not None]
        held = sum(known) + CONTEXT_MB * len(known)
        return len(known) > len(there) and held <= USABLE * self.free_mb.get(gpu, 0.0)


def free_mb(names: Sequence[str]) -> dict[str, float]:
    """Free memory of GPUs as nvidia-smi tells it; of those that it does not tell of (parts of one) none."""
    found = {}
    for name in names:
        command = ["nvidia-smi", "-i", name, "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            found[name] = float(told) * 1.048576  # MiB
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
    return found


def crew(device: str, count: int | None = None, per_gpu: int | None = None) -> Crew:
    """Who works here: by default a run a core; on GPUs as many of them as memory is known to hold.

    `device`: training.device. A `count` alone is spread over the GPUs.
    """
    there, cores = tuple(gpus(device)), len(os.sched_getaffinity(0))
    if not there:
        return Crew(count or cores, cores=cores)
    if per_gpu is None and count:
        per_gpu = -(-count // len(there))
    count = count or (per_gpu * len(there) if per_gpu else max(cores, len(there)))
    return Crew(count, there, per_gpu, {} if per_gpu else free_mb(there), cores=cores)
