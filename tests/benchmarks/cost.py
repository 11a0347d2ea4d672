"""`python -m tests.benchmarks.cost`: seconds an epoch and peak memory of every strategy, to docs/cost.csv.

Run it after `dvc repro` at the scale `demo`, whose data/ it reads. Each strategy trains on the base cohort's phenotypes
in a process of its own, one after the other, on one core. An epoch is its steps, `between_epochs` and the validation;
the fastest of some is taken, in processor time, so that other processes disturb little. Memory is the largest that the
process held, and how much of it was there before the model was built.
"""

import argparse
import dataclasses
import itertools
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.closure import ROOT

OUT = ROOT / "docs" / "cost.csv"
EPOCHS = 4
TASK = "phenotype"
FIELDS = ("seconds_per_epoch", "peak_mb", "mb_before")
MACHINE = ("processor", "cores", "torch", "stays", "images")


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


def measure(strategy: str, data: Path, epochs: int = EPOCHS) -> dict[str, float]:
    """FIELDS of a strategy, how many stays trained, and how many of them with an image. In this process.

    `data`: the folder of the packed artefacts.
    """
    import torch

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
        scale=dataclasses.replace(scale.training, cohorts=("base",), max_epochs=epochs, patience=epochs),
    )
    fold = load_fold(data, spec.fold, task, variables, "mcar")
    before, px = peak_mb(), int(fold.pixels.shape[1])
    model = build(strategy, Shapes(task, HOURS, channel_variables(variables), px, scale.encoders), hyper)
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
    return {
        "seconds_per_epoch": min(after - start for start, after in itertools.pairwise(ends)),
        "peak_mb": peak_mb(),
        "mb_before": before,
        "stays": int(train.sum()),
        "images": int((train & (fold.image_row >= 0)).sum()),
    }


def table(measured: dict[str, dict[str, float]], kind: dict[str, object]) -> str:
    """CSV: a row a strategy, in the order of its name, the kind of machine in every row."""
    lines = [",".join(("strategy", *FIELDS, *MACHINE))]
    for name, found in sorted(measured.items()):
        every = {**found, **kind}
        numbers = [f"{every['seconds_per_epoch']:.3g}", f"{every['peak_mb']:.0f}", f"{every['mb_before']:.0f}"]
        lines.append(",".join([name, *numbers, *(str(every[key]).replace(",", " ") for key in MACHINE)]))
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--one", help="measure this strategy alone, and print it")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the folder of the packed data")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.data)))
        return
    measured = {}
    for each in networks():
        command = [sys.executable, "-m", "tests.benchmarks.cost", "--one", each, "--data", str(chosen.data.resolve())]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        measured[each] = json.loads(done.stdout.splitlines()[-1])
        print(f"{each}: {measured[each]['seconds_per_epoch']:.3g} s an epoch, {measured[each]['peak_mb']:.0f} MB")
    OUT.write_text(table(measured, machine()), encoding="utf-8")


if __name__ == "__main__":
    main()
