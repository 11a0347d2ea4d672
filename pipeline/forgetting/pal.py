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

from pipeline.disclosure import FEW
from pipeline.estimation.bootstrap import Floats, average_labels, quotient
from pipeline.estimation.metrics import rank_metrics, weighted_sums
from pipeline.evaluation.scores import Sampler
from pipeline.forgetting.replay import REPLAY, Replay, replays
from pipeline.forgetting.tables import JOINT, KEPT, MEAN, PLAIN, mean_row
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


def forgetting_pal(store: Store, data: Path, tasks: Sequence[str], sampler: Sampler) -> list[dict[str, Any]]:
    """Rows of each run of the train cell `pal` on the tasks. Raises InputError as `replays` does."""
    several = [name for name in TASKS if name in tasks]
    return [row for replay in replays(STRATEGY, store, data, several, sampler) for row in of_run(replay)]


def of_run(replay: Replay) -> Iterator[dict[str, Any]]:
    """Rows of a run: after each phase the groups so far; of what is learned jointly, all of them at the end."""
    model = cast(PAL, replay.strategy)
    last = len(model.groups)
    test, train = Vectors.of(model, replay.asked()), Vectors.of(model, replay.ready())
    learned: dict[int, Floats] = {}
    with torch.no_grad():
        found = model.statistics(replay.ready())
        for phase in range(1, last + 1):
            model.solve(found, phase)
            scores = model.features(test.pooled, test.heard) @ model.weights
            answers = (scores * model.slopes + model.offsets).float() + model.prior
            yield from _rows(replay, model, KEPT, phase, answers, test.targets, learned)
    learner, learned = Learner(replay, model, train), {}
    for phase in range(1, last + 1):
        learner.learn([phase - 1], replay.spec.max_epochs)
        yield from _rows(replay, model, PLAIN, phase, learner.answer(test), test.targets, learned)
    learner = Learner(replay, model, train)
    together = 1 if model.classes or model.parts else last  # phases that see every stay see it as often
    learner.learn(list(range(last)), replay.spec.max_epochs * together)
    yield from _rows(replay, model, JOINT, last, learner.answer(test), test.targets, None)


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
    replay: Replay,
    model: PAL,
    method: str,
    phase: int,
    answers: Tensor,
    targets: Tensor,
    learned: dict[int, Floats] | None,
) -> Iterator[dict[str, Any]]:
    """A row a group so far, and their mean; scores as draws [1 + D]. Classes are told among those so far.

    `learned`: of each group its score right after it was learned, which the group's own phase puts there.
    """
    seen = answers[:, : model.groups[phase - 1].stop].double().cpu().numpy()
    truth = targets.cpu().numpy()
    rows = []
    for number, group in enumerate(model.groups[:phase], 1):
        row = replay.key | {"method": method, "phase": phase, "group": number}
        row |= {"outputs": f"{group.start + 1}-{group.stop}", "metric": "accuracy" if model.classes else "auroc"}
        score = _accuracy if model.classes else _auroc
        value = score(replay, seen, truth, group)
        if not np.isnan(value[0]):
            row["value"] = value
            if learned is not None:
                row["value_lost"] = learned.setdefault(number, value) - value
        rows.append(row)
    yield from rows
    yield mean_row(rows, group=0, outputs=MEAN)


def _accuracy(replay: Replay, seen: Floats, truth: Floats, group: slice) -> Floats:
    """Among the stays of the group's classes, [1 + D]; NaN where they are FEW."""
    own = (truth[:, 0] >= group.start) & (truth[:, 0] < group.stop)
    right = own & (seen.argmax(axis=1) == truth[:, 0])
    sums = weighted_sums(np.stack([right, own], axis=1).astype(np.float64), replay.at, replay.draws)
    return quotient(*sums) if own.sum() >= FEW else np.full(sums.shape[1], np.nan)


def _auroc(replay: Replay, seen: Floats, truth: Floats, group: slice) -> Floats:
    """The mean over the group's labels, [1 + D], of those that are estimable."""
    labels = range(group.start, group.stop)
    each = [rank_metrics(seen[:, k], truth[:, k] > 0.5, replay.at, replay.draws)[0] for k in labels]
    return average_labels(np.array(each))
