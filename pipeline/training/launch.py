"""Starting workers elsewhere: what they are handed, and how Slurm and Ray start them.

Workers get copies of the params (queued ones are not to see later edits) and of what the launcher's runs are filed
under, both in launches/ of the run store; paths are absolute. A worker that would file runs elsewhere refuses.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.closure import ROOT
from pipeline.errors import InputError
from pipeline.params import Params, content
from pipeline.training.expected import expect
from pipeline.training.settings import all_runs
from pipeline.training.store import Store

LAUNCHED = "FUSION_LAUNCH"  # in the environment of workers that are to end with who started them
GRACE_SECONDS = 300  # before its end a Slurm job is told: longer than an epoch takes
GPU_CORES = 8  # asked for beside a GPU, where nobody says how many runs it takes


@dataclass(frozen=True)
class Launch:
    """What all workers of a launch share: its folder, the command of one, and its part of the environment."""

    folder: Path
    command: tuple[str, ...]
    environment: dict[str, str]
    device: str
    cores: int
    per_gpu: int | None


def prepare(
    source: str,
    changes: Sequence[str],
    params: Params,
    store: Store,
    data: Path,
    workers: int | None,
    per_gpu: int | None,
) -> Launch:
    """Files params and expectations of a launch. `source`, `changes`: params.yaml and what differs from it.

    Raises InputError where training.device is auto: on a machine whose GPU is not found it would train on the CPU.
    """
    device = params.training.device
    if device == "auto":
        raise InputError("training.device: auto may train on the CPU in silence; write cuda, or cpu, for a cluster")
    specs = [spec for each in all_runs(params).values() for spec in each]
    folder = store.work.absolute() / "launches" / expect(specs, store)
    copy = folder / "params.yaml"
    files.write_yaml(content(source, changes), copy)
    command = [sys.executable, "-m", "pipeline.work", "--params", str(copy), "--data", str(data.absolute())]
    command += ["--expect", folder.name]
    if device == "cpu":
        command += ["--workers", str(workers or 1)]
    else:
        command += ["--workers", str(workers)] if workers else []
        command += ["--per-gpu", str(per_gpu)] if per_gpu else []
    environment = {"FUSION_WORK": str(store.work.absolute())}
    environment |= {name: os.environ[name] for name in ("FUSION_LEASE",) if name in os.environ}
    cores = workers or per_gpu or (1 if device == "cpu" else GPU_CORES)
    return Launch(folder, tuple(command), environment, device, cores, per_gpu)


def slurm_script(launch: Launch, count: int, options: Sequence[str] = ()) -> str:
    """The job script of an array of workers. `options` of sbatch come last: they win over what stands here."""
    asked = [
        "--job-name=fusion",
        f"--array=1-{count}",
        f"--cpus-per-task={launch.cores}",
        *(["--gres=gpu:1"] if launch.device == "cuda" else []),
        "--requeue",
        f"--signal=B:TERM@{GRACE_SECONDS}",
        "--open-mode=append",
        f"--output={launch.folder}/slurm-%A_%a.log",
        *options,
    ]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {shlex.quote(option)}" for option in asked),
            f"cd {shlex.quote(str(ROOT))} || exit 1",
            *(f"export {name}={shlex.quote(value)}" for name, value in launch.environment.items()),
            f"exec {shlex.join(launch.command)}",
            "",
        ]
    )


def submit(script: Path) -> str:
    """Submits a job script; its number. Raises InputError where there is no Slurm, or it refuses."""
    if shutil.which("sbatch") is None:
        raise InputError("--slurm: there is no sbatch here; ask from a login node of the cluster")
    done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"--slurm: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]


def ray_resources(launch: Launch) -> dict[str, Any]:
    """What Ray keeps free for a worker: its cores; on GPUs the share of one that a run takes."""
    if launch.device == "cpu":
        return {"num_cpus": launch.cores}
    return {"num_cpus": 1, "num_gpus": 1 / (launch.per_gpu or 1)}


def ray_run(launch: Launch, count: int) -> list[tuple[int, str]]:
    """Starts workers as Ray tasks, each a process of its own, and waits for them: exit status and last words of each.

    Raises InputError where Ray is not installed, or there is no cluster (RAY_ADDRESS, else the one of this machine).
    """
    try:
        import ray
    except ImportError:
        raise InputError("--ray: Ray is not installed; uv sync --group ray") from None
    try:
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), logging_level="warning")
    except ConnectionError as error:
        raise InputError(f"--ray: {' '.join(str(error).split())}") from None
    command, root = list(launch.command), str(ROOT)
    if launch.device == "cuda":  # one run a task: its share of a GPU
        command += ["--workers", "1"]
    more = {**launch.environment, LAUNCHED: launch.folder.name}

    def work() -> tuple[int, str]:  # not of this module: the machine that runs it need not import the project
        import os
        import subprocess

        done = subprocess.run(
            command, cwd=root, env={**os.environ, **more}, stdout=subprocess.PIPE, text=True, check=False
        )
        return done.returncode, done.stdout

    task = ray.remote(max_calls=1, max_retries=3, scheduling_strategy="SPREAD", **ray_resources(launch))(work)
    try:
        found = []
        for each in [task.remote() for _ in range(count)]:
            try:
                found.append(ray.get(each))
            except ray.exceptions.RayError as error:
                found.append((1, f"a worker was lost: {type(error).__name__}"))
        return found
    finally:
        ray.shutdown()
