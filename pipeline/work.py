"""`python -m pipeline.work`: makes all runs that the params ask for, here and beside others that do the same elsewhere.

A worker takes what nobody is at, needed runs first, until every run is made: trials of tuning, then training, ablations
among it. Probes need no others. `dvc repro` finds them all in the run store (FUSION_WORK). `--slurm N` and `--ray N`
start N workers on a cluster (docs/cluster.md).
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files
from pipeline.data.tensors import FILES
from pipeline.errors import InputError
from pipeline.options import parser
from pipeline.params import Params, load
from pipeline.processes import end_with_giver_of
from pipeline.training.claim import Stopped
from pipeline.training.executors import Stop, choice, stopped_by_sigterm, work_off
from pipeline.training.expected import agree
from pipeline.training.grid import RunSpec
from pipeline.training.launch import LAUNCHED, Launch, prepare, ray_resources, ray_run, slurm_script, submit
from pipeline.training.packing import Crew, crew
from pipeline.training.settings import Common, all_runs
from pipeline.training.store import Store
from pipeline.training.tuning import choose
from pipeline.training.worklist import Worklist

TOLD = 143  # exit status of who was told to end, as the shell has it


@dataclass
class Tally:
    """What became of all lists that a worker worked off."""

    lists: list[Worklist] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> list[str]:
        """Why not, a line a run."""
        return [why for each in self.lists for why in each.failed.values()]

    def text(self) -> str:
        """A line a failure, and one that counts."""
        made, resumed, elsewhere, before = (
            set[str]().union(*(getattr(each, name) for each in self.lists))
            for name in ("made", "resumed", "elsewhere", "before")
        )
        counts = [f"{len(made)} runs made here ({len(resumed)} from a checkpoint)", f"{len(elsewhere)} by others"]
        counts += [f"{len(before - made - elsewhere)} were there", f"{len(self.failed)} failed"]
        if left := sum(len(each.open) for each in self.lists):
            counts.append(f"{left} left")
        return "\n".join([*self.failed, f"{', '.join(counts)}; {(time.monotonic() - self.start) / 60:.1f} min"])


def make_all(params: Params, store: Store, data: Path, workers: Crew, stop: Stop, tally: Tally) -> None:
    """Makes the trials of tuning, chooses by them as the stage `tune` does, and makes the runs of cells and ablations.

    Raises Stopped where `stop` said so, and InputError where no run can be made here or trials failed.
    """

    def make(specs: Sequence[RunSpec], store: Store, data: Path) -> None:
        worklist = Worklist(specs, store)
        tally.lists.append(worklist)
        if worklist.open:
            work_off(worklist, data, workers, stop, go_on=True)
        if worklist.open:
            raise Stopped

    def trials(specs: Sequence[RunSpec], store: Store, data: Path) -> None:
        make(specs, store, data)
        if tally.failed:
            raise InputError("trials failed, so that nothing can be chosen:\n" + tally.text())

    judged = params.get("scales.tuning")
    found = choose(Common.of(params), params.grid, params.strategies, params.tuning, judged, store, data, trials)
    make([spec for specs in all_runs(params, found.settings).values() for spec in specs], store, data)


def require_data(data: Path) -> None:
    """Raises InputError where a data stage has not been run, or the audit has not passed."""
    for name in (*FILES, "audit.ok"):
        if not (data / name).is_file():
            raise InputError(f"{data / name}: not found; make the data first: dvc repro audit")


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a number from 1, is {text!r}")
    return int(text)


def options() -> argparse.ArgumentParser:
    """The command's options."""
    found = parser("pipeline.work", "Makes all runs that the params ask for, beside others that do the same.")
    found.add_argument("--workers", type=_count, metavar="N", help="runs at a time (default: FUSION_EXECUTOR's)")
    found.add_argument("--per-gpu", type=_count, metavar="K", help="runs a GPU (default: as its memory allows)")
    where = found.add_mutually_exclusive_group()
    where.add_argument(
        "--slurm", type=_count, metavar="N", help="submit an array of N workers; options of sbatch after --"
    )
    where.add_argument("--ray", type=_count, metavar="N", help="start N workers as Ray tasks, and wait for them")
    found.add_argument("--dry-run", action="store_true", help="show what would be started, and start nothing")
    found.add_argument(
        "--expect", metavar="DIGEST", help=argparse.SUPPRESS
    )  # of a launcher: what its runs are filed under
    found.add_argument("sbatch", nargs="*", metavar="-- SBATCH_OPTION", help="such as --partition=gpu --time=1-0")
    return found


def _launch(launch: Launch, arguments: argparse.Namespace) -> int:
    """Starts workers on a cluster; the exit status: of Ray's workers, for which it waits, the highest."""
    if arguments.slurm:
        script = launch.folder / "slurm.sh"
        files.write_text(slurm_script(launch, arguments.slurm, arguments.sbatch), script)
        print(script.read_text(encoding="utf-8"))
        if not arguments.dry_run:
            print(f"job {submit(script)}; its workers write to {launch.folder}")
        return 0
    print(f"{arguments.ray} tasks with {ray_resources(launch)}: {shlex.join(launch.command)}")
    told = [] if arguments.dry_run else ray_run(launch, arguments.ray)
    for number, (status, words) in enumerate(told, 1):
        lines = words.splitlines() or [f"ended with status {status}; why stands above"]
        print("\n".join(f"worker {number}: {line}" for line in lines))
    return max((status for status, _ in told), default=0)


def main() -> None:
    """Works, or starts workers. Exit status 1 where runs failed, 143 where it was told to end before all were made."""
    logging.basicConfig(level=logging.WARNING, format="work: %(message)s", stream=sys.stderr)
    arguments = options().parse_args()
    if LAUNCHED in os.environ:
        end_with_giver_of(LAUNCHED)
    tally = Tally()
    try:
        if arguments.sbatch and not arguments.slurm:
            raise InputError(f"{' '.join(arguments.sbatch)}: options of sbatch go with --slurm")
        if arguments.dry_run and not (arguments.slurm or arguments.ray):
            raise InputError("--dry-run: goes with --slurm or --ray; python -m pipeline.plan tells what is to be made")
        params, data = load(arguments.params, arguments.changes), Path(arguments.data)
        require_data(data)
        store = Store.of(data)
        if arguments.slurm or arguments.ray:
            own = arguments.workers, arguments.per_gpu
            started = prepare(arguments.params, arguments.changes, params, store, data, *own)
            sys.exit(_launch(started, arguments))
        if arguments.expect:
            agree([spec for each in all_runs(params).values() for spec in each], store, arguments.expect)
        own = arguments.workers or arguments.per_gpu
        device = params.training.device
        workers = crew(device, arguments.workers, arguments.per_gpu) if own else choice(device)
        with stopped_by_sigterm() as stop:
            make_all(params, store, data, workers, stop, tally)
    except InputError as error:
        sys.exit(f"work: error: {error}")
    except (Stopped, KeyboardInterrupt) as end:
        print(f"{tally.text()}\nwork: ended before all runs were made; the same command goes on from them")
        sys.exit(TOLD if isinstance(end, Stopped) else 130)
    print(tally.text())
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
