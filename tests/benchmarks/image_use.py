"""`python -m tests.benchmarks.image_use FOLDER...`: how well each strategy tells each kind of phenotype, and what of it
hangs on the image.

FOLDER is a checkout in which train cells of the synthetic hospital were made (task phenotype, matched cohort). Its runs
are asked anew with their weights from its run store, by its own code: this file's source is run with FOLDER as the
working directory, so that two commits can be compared. Only what both have may be imported here.

The cost of permuted images is the mean AUROC over the image-only and the synergistic labels, less the same where each
stay has another's image, hour, view and count. Intervals are of a bootstrap over patients; all runs are pooled.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from pipeline.data.batches import Batches
from pipeline.estimation.bootstrap import Floats, SubjectDraws, average_labels, draw_subjects, interval
from pipeline.estimation.metrics import rank_metrics
from pipeline.modelling.interface import Batch, Strategy
from pipeline.presentation.text import markdown_table, number, with_interval
from pipeline.synthetic.model import PHENOTYPES
from pipeline.tasks import get_task
from pipeline.training.cell import read_runs
from pipeline.training.grid import RunSpec
from pipeline.training.loop import EVAL_BATCH
from pipeline.training.probe import ask, load, trained
from pipeline.training.run import prepare_torch
from pipeline.training.store import Store, data_fingerprint, work_folder

TASK, COHORT = "phenotype", "matched"
KINDS = {"ehr_only": "EHR-only", "cxr_only": "Image-only", "synergistic": "Synergistic"}
PERMUTATIONS, DRAWS, CONFIDENCE = 10, 500, 0.95
HEADER = ["Strategy", "Runs", *KINDS.values(), "Cost of permuted images"]
Bounds = tuple[float, float | None, float | None]  # a value, its low and its high
OF_IMAGE = ("images", "image_hours", "image_view", "image_count")


class Use(NamedTuple):
    """What a strategy's runs make of the image; `cost` is None of who looks at none."""

    strategy: str
    runs: int
    kinds: dict[str, Bounds]
    cost: Bounds | None


def aurocs(logits: torch.Tensor, truth: Floats, draws: SubjectDraws, rows: Floats) -> Floats:
    """[labels, 1 + D] of logits and truth [N, labels]; `rows` [N]: of each stay's patient in the draws."""
    scores = logits.double().cpu().numpy()
    return np.stack([rank_metrics(scores[:, k], truth[:, k] > 0.5, rows, draws)[0] for k in range(truth.shape[1])])


def answers(strategy: Strategy, spec: RunSpec, batches: Batches, stays: Floats, images: Floats) -> torch.Tensor:
    """Logits [N, labels] of the records of `stays` with the images of `images`, rows of stays that all have one."""

    def parts() -> Iterator[Batch]:
        pairs = [torch.from_numpy(each).to(batches.device).split(EVAL_BATCH) for each in (stays, images)]
        for own, other in zip(*pairs, strict=True):
            of_other = batches.gather(other)
            yield dataclasses.replace(batches.gather(own), **{name: getattr(of_other, name) for name in OF_IMAGE})

    return torch.cat([output.logits.float() for output in ask(strategy, spec, parts(), batches.device)])


def use(name: str, specs: list[RunSpec], store: Store, data: Path, part: str) -> Use:
    """Of a strategy's runs, asked about the stays of `part`."""
    labels = get_task(TASK).labels
    of = {kind: np.array([PHENOTYPES[label].kind == kind for label in labels]) for kind in KINDS}
    needing = of["cxr_only"] | of["synergistic"]
    subjects = pl.read_parquet(data / "cohort/stays.parquet", columns=["stay_id", "subject_id"])
    device = torch.device("cpu")
    own, cost = [], []
    for spec in specs:
        tensors, batches, _ = load(spec, data, device)
        stays = np.flatnonzero((tensors.part == part) & tensors.pictured)
        chosen = pl.DataFrame({"stay_id": tensors.stay_id[stays]}).join(subjects, on="stay_id", maintain_order="left")
        # One sample of patients, however the part is called; all strategies share its draws.
        draws = draw_subjects(chosen["subject_id"].to_numpy(), DRAWS, 0, "dev", spec.fold)
        rows, truth = draws.rows(chosen["subject_id"].to_numpy()), tensors.targets[stays]
        strategy, random = trained(spec, store, tensors, device), np.random.default_rng([spec.fold, spec.seed])
        own.append(aurocs(answers(strategy, spec, batches, stays, stays), truth, draws, rows))
        if {"cxr", "metadata"} & strategy.modalities:
            swapped = [
                aurocs(answers(strategy, spec, batches, stays, random.permutation(stays)), truth, draws, rows)
                for _ in range(PERMUTATIONS)
            ]
            lost = [average_labels(own[-1][needing]) - average_labels(each[needing]) for each in swapped]
            cost.append(np.mean(lost, axis=0))
    mean, lost_mean = np.mean(own, axis=0), np.mean(cost, axis=0) if cost else None
    kinds = {kind: _bounds(average_labels(mean[chosen])) for kind, chosen in of.items()}
    return Use(name, len(specs), kinds, None if lost_mean is None else _bounds(lost_mean))


def _bounds(found: Floats) -> Bounds:
    """Of [1 + D]: the value, and then its draws'."""
    return float(found[0]), *interval(found, CONFIDENCE)


def uses(data: Path, store: Store, part: str, cells: str = "*") -> Iterator[Use]:
    """Of every cell below `data` that has finished runs, or of those with such names."""
    for cell in sorted(path.parent for path in (data / "runs").glob(f"{cells}/runs.json")):
        of_task = [spec for spec in read_runs(cell, store) if spec.task == TASK and spec.train_cohort == COHORT]
        specs = [spec for spec in of_task if not spec.train_missing and store.finished(spec)]
        if specs:
            yield use(cell.name, specs, store, data, part)


def table(folder: Path, part: str) -> str:
    """The Markdown table of the checkout in `folder`, which is the working directory."""
    data = folder / "data"
    store = Store(work_folder(), data_fingerprint(data))
    rows = [
        (
            each.strategy,
            str(each.runs),
            *(number(each.kinds[kind][0]) for kind in KINDS),
            "–" if each.cost is None else with_interval(*each.cost),
        )
        for each in uses(data, store, part)
    ]
    return markdown_table(HEADER, rows)


def main() -> None:
    """Prints a table for each folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.image_use", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="checkouts with finished train cells")
    parser.add_argument("--part", choices=("dev", "val", "test"), default="dev", help="the stays that are asked about")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        prepare_torch()
        print(table(chosen.folders[0], chosen.part))
        return
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for folder in chosen.folders:
        print(f"{folder}, {chosen.part}:\n", flush=True)
        source = Path(__file__).read_text(encoding="utf-8")
        command = [sys.executable, "-c", source, "--here", "--part", chosen.part, "."]
        subprocess.run(command, cwd=folder, env=own, check=True)


if __name__ == "__main__":
    main()
