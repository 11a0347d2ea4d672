"""`python -m tests.benchmarks.cost`: seconds an epoch and peak memory of every strategy, to docs/cost.csv.

Run it after `dvc repro` at the scale `demo`, whose data/ it reads. Each strategy trains on the base cohort's phenotypes
in a process of its own, one after the other, on one core. An epoch is its steps, `between_epochs` and the validation;
the fastest of some is taken, in processor time, and of `--times` such processes, so that others disturb little. Beside
it stands the arithmetic limit: the FLOPs of an epoch's steps, forward and backward (2 a multiply-add, pipeline.cost),
over the rate at which this machine multiplies matrices of 1024 × 1024. Memory is the largest that the process held, and
how much of it was there before the model was built. Given names, those alone are measured, and other rows stay.

`--against REV` writes nothing: it measures every strategy at REV, checked out beside, and here, one after the other,
and prints milliseconds of processor a stay and epoch, their ratio, and the arithmetic limit.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.closure import ROOT

OUT = ROOT / "docs" / "cost.csv"
EPOCHS = 4
TASK = "phenotype"
TIMES = 3
FIELDS = ("seconds_per_epoch", "arithmetic_seconds", "peak_mb", "mb_before")
MACHINE = ("processor", "cores", "torch", "stays", "images")
Found = dict[str, float]  # what `measure` tells of a strategy


def machine() -> dict[str, object]:
    """The kind of machine, without its name."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    name = f"{model[1].strip() if model else 'unknown'} ({platform.machine()})"
    return {"processor": name, "cores": len(os.sched_getaffinity(0)), "torch": torch.__version__}


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (1e6 if sys.platform == "darwin" else 1e3)


def measure(strategy: str, data: Path, epochs: int = EPOCHS) -> Found:
    """FIELDS of a strategy, how many stays trained, how many with an image, and FLOPs a stay. In this process.

    `data`: the folder of the packed artefacts. What needs earlier runs is given none: they cost what they cost.
    """
    import torch

    from pipeline.cost import FlopCounter
    from pipeline.data.batches import Batches
    from pipeline.data.inputs import HOURS, channel_variables
    from pipeline.data.tensors import load_fold
    from pipeline.mimic.variables import load_variables
    from pipeline.modelling.interface import Shapes
    from pipeline.modelling.registry import build
    from pipeline.params import load
    from pipeline.tasks import get_task
    from pipeline.training.grid import runs
    from pipeline.training.loop import fit
    from pipeline.training.run import prepare_torch

    prepare_torch()
    torch.manual_seed(0)
    params, task, variables = load(ROOT / "params.yaml"), get_task(TASK), load_variables("core")
    scale, hyper = params.scales["demo"], params.strategies[strategy]
    (spec,) = runs(
        strategy,
        TASK,
        hyper=hyper,
        tier="core",
        training=dataclasses.replace(params.training, device="cpu", checkpoint_seconds=1e9),
        encoders=scale.encoders,
        scale=dataclasses.replace(
            scale.training,
            cohorts=("base",),
            folds=(0,),
            seeds=(0,),
            train_missing=(0.0,),
            max_epochs=epochs,
            patience=epochs,
        ),
    )
    fold = load_fold(data, spec.fold, task, variables, "mcar")
    before, px = peak_mb(), int(fold.pixels.shape[1])
    shapes = Shapes(task, HOURS, channel_variables(variables), px, scale.encoders, stays=len(fold.stay_id))
    model = build(strategy, shapes, hyper)
    ends = [time.process_time()]
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            fold,
            Batches(fold, torch.device("cpu")),
            spec,
            task,
            Path(folder) / "checkpoint.safetensors",
            lambda *_: ends.append(time.process_time()),
        )
    train = fold.part == "train"
    batches = Batches(fold, torch.device("cpu"))
    rows = torch.from_numpy(train.nonzero()[0][:256])
    with FlopCounter() as counter:
        batch = batches.gather(rows)
        torch.stack(list(model.losses(model(batch), batch, batches.targets(rows)).values())).sum().backward()
    peak, flops, stays = peak_mb(), counter.flops / len(rows), int(train.sum())
    return {
        "flops_a_stay": flops,
        "seconds_per_epoch": min(after - start for start, after in itertools.pairwise(ends)),
        "arithmetic_seconds": flops * stays / matmul_rate(),
        "peak_mb": peak,
        "mb_before": before,
        "stays": stays,
        "images": int((train & fold.pictured).sum()),
    }


def table(measured: Mapping[str, Found], kind: Mapping[str, object], written: str = "") -> str:
    """CSV: a row a strategy, in the order of its name, the kind of machine in every row.

    Of `written`, such a table, the rows stay whose strategies are not measured.
    """
    rows = {row["strategy"]: row for row in csv.DictReader(written.splitlines())}
    for name, found in measured.items():
        digits = {field: f"{found[field]:.3g}" if "seconds" in field else f"{found[field]:.0f}" for field in FIELDS}
        told = {key: str({**found, **kind}[key]).replace(",", " ") for key in MACHINE}
        rows[name] = {"strategy": name, **digits, **told}
    columns = ("strategy", *FIELDS, *MACHINE)
    lines = [",".join(rows[name].get(column) or "" for column in columns) for name in sorted(rows)]
    return "\n".join([",".join(columns), *lines]) + "\n"


def comparison(measured: Mapping[str, Sequence[Found]], flops_a_second: float) -> str:
    """A Markdown table of (before, after) by strategy: ms a stay and epoch, ratio, arithmetic limit; and the ratios'
    median and largest."""
    lines = ["| strategy | before, ms a stay | after | ratio | arithmetic limit, ms |", "|---|---|---|---|---|"]
    ratios = []
    for name, pair in sorted(measured.items()):
        before, after = (found["seconds_per_epoch"] / found["stays"] * 1e3 for found in pair)
        ratios.append(after / before)
        limit = pair[1]["flops_a_stay"] / flops_a_second * 1e3
        lines.append(f"| {name} | {before:.3f} | {after:.3f} | {ratios[-1]:.2f} | {limit:.3f} |")
    return "\n".join([*lines, "", f"median ratio {statistics.median(ratios):.2f}, largest {max(ratios):.2f}"])


def matmul_rate(size: int = 1024, times: int = 9) -> float:
    """FLOPs a second of processor time of a product of two square fp32 matrices, one thread: the best of some."""
    import torch

    torch.set_num_threads(1)
    a, seconds = torch.randn(size, size), []
    for _ in range(times):
        start = time.process_time()
        a @ a
        seconds.append(time.process_time() - start)
    return 2 * size**3 / min(seconds)


def one(strategy: str, data: Path, root: Path) -> Found:
    """What the code below `root` measures of a strategy, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.cost", "--one", strategy, "--data", str(data.resolve())]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def fastest(strategy: str, data: Path, roots: Sequence[Path], times: int) -> list[Found]:
    """What the code below each root measures, the fastest of some; they alternate."""
    rounds = [[one(strategy, data, root) for root in roots] for _ in range(times)]
    return [min(found, key=lambda each: each["seconds_per_epoch"]) for found in zip(*rounds, strict=True)]


def against(revision: str, data: Path, names: Sequence[str], times: int) -> str:
    """comparison() of those strategies that both `revision` and this code have."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        git = ("git", "-C", str(ROOT), "worktree")
        subprocess.run([*git, "add", "--quiet", "--detach", str(before), revision], check=True)
        try:
            for name in names:
                if (before / f"pipeline/strategies/{name}.py").is_file():
                    measured[name] = fastest(name, data, (before, ROOT), times)
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)
    return comparison(measured, matmul_rate())


def networks() -> list[str]:
    """Strategies that the loop trains."""
    from pipeline.modelling.fitted import Fitted
    from pipeline.modelling.registry import names, strategy_class

    return [name for name in names() if not issubclass(strategy_class(name), Fitted)]


def main() -> None:
    """Measures the strategies, or one of them (`--one NAME`: to stdout, as JSON)."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.cost", description="Seconds an epoch and peak memory."
    )
    parser.add_argument("strategies", nargs="*", help="measure these alone; without, all of them")
    parser.add_argument("--one", help="measure this strategy once, and print it")
    parser.add_argument("--times", type=int, default=TIMES, help="processes a strategy, of which the fastest counts")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the folder of the packed data")
    parser.add_argument("--against", metavar="REV", help="compare with this commit, and print a table")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.data)))
        return
    names = chosen.strategies or networks()
    if chosen.against:
        print(against(chosen.against, chosen.data, names, chosen.times))
        return
    for name in names:  # each is written when it is measured: who ends this loses nothing
        (found,) = fastest(name, chosen.data, [ROOT], chosen.times)
        print(f"{name}: {found['seconds_per_epoch']:.3g} s an epoch, {found['peak_mb']:.0f} MB", flush=True)
        OUT.write_text(table({name: found}, machine(), OUT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
