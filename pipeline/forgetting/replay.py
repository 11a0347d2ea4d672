"""Finished runs, their encoders frozen, and the stays on which a sequence is replayed; descent on what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from pipeline.data.batches import Batches
from pipeline.data.statics import model_variables
from pipeline.data.tensors import FoldTensors, load_fold
from pipeline.estimation.bootstrap import SubjectDraws
from pipeline.estimation.metrics import Ints
from pipeline.evaluation.reading import read_columns
from pipeline.evaluation.scores import Sampler
from pipeline.modelling.device import pick_device
from pipeline.modelling.interface import Batch, Epoch, Strategy
from pipeline.modelling.optimiser import AdamW, schedule
from pipeline.tasks import get_task
from pipeline.training.cell import read_runs
from pipeline.training.grid import RunSpec
from pipeline.training.loop import EVAL_BATCH, rows_of, stream
from pipeline.training.run import prepare_torch, trained
from pipeline.training.store import Store

REPLAY = 4  # of the random streams of a run's seed and fold, its own (training.loop)


@dataclass(frozen=True)
class Replay:
    """A finished run: its strategy in eval mode, and its training and test stays, of its own cohort.

    `at` [n] is the row of each test stay's subject in `draws`.
    """

    spec: RunSpec
    strategy: Strategy
    batches: Batches
    train: Tensor
    test: Tensor
    removed: Tensor
    at: Ints
    draws: SubjectDraws

    @classmethod
    def of(
        cls, spec: RunSpec, store: Store, tensors: FoldTensors, batches: Batches, subjects: Ints, sampler: Sampler
    ) -> Replay:
        """From the run store; `subjects` are those of the stays of `tensors`."""
        train, _ = rows_of(tensors, spec, batches.device)
        test = (tensors.part == "test") & (tensors.pictured | (spec.train_cohort == "base"))
        removed = torch.from_numpy(tensors.removed_at < spec.train_missing).to(batches.device)
        rows = torch.from_numpy(np.flatnonzero(test)).to(batches.device)
        draws = sampler.subjects("test", spec.fold)
        strategy, at = trained(spec, store, tensors, batches.device), draws.rows(subjects[test])
        return cls(spec, strategy, batches, train, rows, removed, at, draws)

    @property
    def key(self) -> dict[str, Any]:
        """Task and cohort, as the tables name them, and the fold."""
        return {"task": self.spec.task, "cohort": self.spec.train_cohort, "fold": self.spec.fold}

    def ready(self) -> Iterator[tuple[Batch, Tensor]]:
        """The training stays with their targets, as a strategy is given them between epochs."""
        for part in self.train.split(EVAL_BATCH):
            yield self.batches.gather(part, self.removed), self.batches.targets(part)

    def asked(self) -> Iterator[tuple[Batch, Tensor]]:
        """The test stays with their targets."""
        for part in self.test.split(EVAL_BATCH):
            yield self.batches.gather(part), self.batches.targets(part)

    @property
    def epoch(self) -> Epoch:
        """The end of training."""
        return Epoch(self.spec.max_epochs, self.spec.max_epochs, self.ready)

    def descend(
        self, parameters: Iterable[nn.Parameter], parts: list[tuple[int, Callable[[Tensor], Tensor]]], epochs: int
    ) -> None:
        """Epochs of AdamW with the run's settings, its schedule over all of them, and draws of the run's seed.

        `parts`: of each how many samples it has, and the loss of a batch of their numbers; an epoch takes the parts'
        batches in turn.
        """
        spec, device = self.spec, self.train.device
        own = list(parameters)
        decayed = [each for each in own if each.ndim > 1]
        kept = [each for each in own if each.ndim <= 1]
        settings = [(decayed, spec.training.weight_decay), (kept, 0.0)]
        groups = [{"params": group, "weight_decay": decay} for group, decay in settings if group]
        optimiser = AdamW(groups, lr=spec.hyper["lr"])
        rng = np.random.default_rng([*spec.luck, REPLAY])
        torch.manual_seed(stream(*spec.luck, REPLAY))
        count = sum(-(-size // spec.batch_size) for size, _ in parts) * epochs
        step = 0
        for _ in range(epochs):
            drawn = [torch.from_numpy(rng.permutation(size)).to(device).split(spec.batch_size) for size, _ in parts]
            turns = [(place, i) for i, batches in enumerate(drawn) for place in range(len(batches))]
            for place, i in sorted(turns):
                for group in optimiser.param_groups:
                    group["lr"] = spec.hyper["lr"] * schedule(step, count, spec.training.warmup_share)
                optimiser.zero_grad(set_to_none=True)
                parts[i][1](drawn[i][place]).backward()
                optimiser.descend(spec.training.gradient_clip)
                step += 1


def replays(strategy: str, store: Store, data: Path, tasks: Iterable[str], sampler: Sampler) -> Iterator[Replay]:
    """The runs of a train cell with the least removed, of these tasks, fold by fold.

    Raises InputError as `cell.read_runs` does.
    """
    specs = read_runs(data / "runs" / strategy, store)
    least = min(spec.train_missing for spec in specs)
    prepare_torch()
    device = pick_device(specs[0].training.device)
    subjects = read_columns(data / "cohort/stays.parquet", ["subject_id"])["subject_id"].cast(pl.Int64).to_numpy()
    wanted = [spec for spec in specs if spec.train_missing == least and spec.task in tasks]
    for task, fold in dict.fromkeys((spec.task, spec.fold) for spec in wanted):
        variables = model_variables(specs[0].tier, specs[0].training.statics)
        tensors = load_fold(data, fold, get_task(task), variables, "mcar", image=specs[0].training.image)
        batches = Batches(tensors, device)
        for spec in wanted:
            if (spec.task, spec.fold) == (task, fold):
                yield Replay.of(spec, store, tensors, batches, subjects, sampler)
