"""forgetting_pal.csv: groups of labels or classes arrive one after another; what is left of those that came first.

`kept` is PAL: its recursion on its own frozen features, solved through phase after phase, which is what the strategy
itself would have answered then. `plain` goes on by descent, phase after phase, in that part of the same network which
stands behind the encoders (attention layer, prompts, a head), on what the phase brings alone; `joint` does so on all at
once, for as many steps. In all three the encoders are the run's: they know the first group.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.estimation.bootstrap import SubjectDraws
from pipeline.estimation.metrics import rank_metrics
from pipeline.forgetting.replay import REPLAY, Replay, replays
from pipeline.forgetting.tables import JOINT, KEPT, PLAIN
from pipeline.modelling.interface import Batch
from pipeline.modelling.losses import sample_losses
from pipeline.strategies.pal import PAL
from pipeline.training.loop import stream
from pipeline.training.store import Store

STRATEGY = "pal"
TASKS = ("phenotype", "los")  # of a single label there is nothing that comes later


class Vectors(NamedTuple):
    """Of n stays: what the encoders say [n, 2, D], which modalities are there [n, 2], places [n], targets."""

    pooled: Tensor
    heard: Tensor
    place: Tensor
    targets: Tensor

    @classmethod
    def of(cls, model: PAL, parts: Iterable[tuple[Batch, Tensor]]) -> Vectors:
        """Of all samples of the parts."""
        with torch.no_grad():
            found = [(model.pooled(batch).float(), batch.heard, batch.index, targets) for batch, targets in parts]
        return cls(*(torch.cat(each) for each in zip(*found, strict=True)))


def forgetting_pal(store: Store, data: Path, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of each run of the train cell `pal` on the tasks. Raises InputError as `replays` does."""
    several = [name for name in TASKS if name in tasks]
    return [row for replay in replays(STRATEGY, store, data, several) for row in of_run(replay)]


def of_run(replay: Replay) -> Iterator[dict[str, Any]]:
    """Rows of a run: after each phase the groups so far; of what is learned jointly, all of them at the end."""
    model = cast(PAL, replay.strategy)
    last = len(model.groups)
    test, train = Vectors.of(model, replay.asked()), Vectors.of(model, replay.ready())
    with torch.no_grad():
        found = model.statistics(replay.ready())
        for phase in range(1, last + 1):
            model.solve(found, phase)
            scores = model.features(test.pooled, test.heard) @ model.weights
            answers = (scores * model.slopes + model.offsets).float() + model.prior
            yield from _rows(replay, model, KEPT, phase, answers, test.targets)
    learner = Learner(replay, model, train)
    for phase in range(1, last + 1):
        learner.learn([phase - 1], replay.spec.max_epochs)
        yield from _rows(replay, model, PLAIN, phase, learner.answer(test), test.targets)
    learner = Learner(replay, model, train)
    together = 1 if model.classes or model.parts else last  # phases that see every stay see it as often
    learner.learn(list(range(last)), replay.spec.max_epochs * together)
    yield from _rows(replay, model, JOINT, last, learner.answer(test), test.targets)


class Learner:
    """A copy of what stands behind PAL's encoders, with a head for all labels, that learns by descent."""

    def __init__(self, replay: Replay, model: PAL, train: Vectors) -> None:
        self.replay, self.model, self.train = replay, copy.deepcopy(model), train
        torch.manual_seed(stream(*replay.spec.luck, REPLAY))
        self.head = nn.Linear(model.head.in_features, model.shapes.outputs).to(train.pooled.device)

    def _logits(self, pooled: Tensor, heard: Tensor) -> Tensor:
        found: Tensor = self.head(self.model.read(pooled, heard)) + self.model.prior
        return found

    @torch.no_grad()
    def answer(self, test: Vectors) -> Tensor:
        """Logits [n, K]."""
        return self._logits(test.pooled, test.heard)

    def learn(self, phases: list[int], epochs: int) -> None:
        """Epochs on the stays that come with the phases (of classes: theirs), and on the phases' labels."""
        model, train, task = self.model, self.train, self.model.shapes.task
        known = torch.cat([torch.arange(model.shapes.outputs)[model.groups[phase]] for phase in phases]).unique()
        known = torch.arange(model.shapes.outputs) if model.classes else known
        brought = [model.brought(train.place, train.targets, phase) for phase in phases]
        rows = torch.nonzero(torch.stack(brought).any(dim=0)).squeeze(1)
        behind = [model.enter, model.layer, model.norm, self.head]
        own = [parameter for module in behind for parameter in module.parameters()]
        own += [each for each in (model.asks, model.prompts) if each is not None]

        def loss(chosen: Tensor) -> Tensor:
            at = rows[chosen]
            logits, targets = self._logits(train.pooled[at], train.heard[at])[:, known], train.targets[at]
            return sample_losses(logits, targets if model.classes else targets[:, known], task).mean()

        if len(rows):
            self.replay.descend(own, [(len(rows), loss)], epochs)


def _rows(
    replay: Replay, model: PAL, method: str, phase: int, answers: Tensor, targets: Tensor
) -> Iterator[dict[str, Any]]:
    """A row a group so far. Classes are told among those so far."""
    seen = answers[:, : model.groups[phase - 1].stop].double().cpu().numpy()
    truth = targets.cpu().numpy()
    for number, group in enumerate(model.groups[:phase], 1):
        about = replay.key | {"method": method, "phase": phase, "group": number}
        about |= {"outputs": f"{group.start + 1}-{group.stop}"}
        if model.classes:
            own = (truth[:, 0] >= group.start) & (truth[:, 0] < group.stop)
            right = seen[own].argmax(axis=1) == truth[own, 0]
            yield about | {"metric": "accuracy", "value": float(right.mean()) if own.any() else None}
        else:
            each = [auroc(seen[:, k], truth[:, k] > 0.5) for k in range(group.start, group.stop)]
            known = [value for value in each if value is not None]
            yield about | {"metric": "auroc", "value": float(np.mean(known)) if known else None}


def auroc(scores: Any, truth: Any) -> float | None:
    """Of the sample itself; None with one class alone."""
    rows = np.arange(len(scores))
    value = float(rank_metrics(scores, truth, rows, SubjectDraws(rows, (np.ones((len(rows), 1)),)))[0][0])
    return None if np.isnan(value) else value
