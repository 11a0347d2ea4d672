"""forgetting_cmcl.csv: pairs of modalities are aligned one after another; how well those aligned first still find
each other.

`kept` is CMCL: each pair's step moves the maps only where similarities of earlier pairs stay. `plain` is the same
without projection (explained: 0), `joint` aligns all pairs at once. All three start from the run's own encoders, frozen
as in the strategy, and from no alignment at all, and give each pair as many epochs as the run had in all: the run's own
maps have seen each pair in a fraction of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from pipeline.disclosure import FEW
from pipeline.estimation.bootstrap import Floats, quotient
from pipeline.estimation.metrics import weighted_sums
from pipeline.evaluation.scores import Sampler
from pipeline.forgetting.replay import Replay, replays
from pipeline.forgetting.tables import JOINT, KEPT, MEAN, PLAIN, mean_row
from pipeline.modelling.interface import Batch
from pipeline.presentation.tables import HEADLINE_ORDER
from pipeline.strategies.cmcl import CMCL, IMAGE, Alignment, Projected, contrast
from pipeline.training.store import Store

STRATEGY = "cmcl"
FOUND = (1, 5)  # recall among so many of the nearest
Rows = Iterator[dict[str, Any]]


class Vectors(NamedTuple):
    """Of n samples: vectors [n, U, D], centred and scaled, and whether each is told of [n, U]."""

    own: Tensor
    there: Tensor

    @classmethod
    def of(cls, model: CMCL, parts: Iterable[tuple[Batch, Tensor]]) -> Vectors:
        """Of all samples of the parts, by the model's encoders, centre and scale."""
        with torch.no_grad():
            found = [(model.encode(batch).float(), model.told(batch)) for batch, _ in parts]
        own, there = (torch.cat(each) for each in zip(*found, strict=True))
        return cls((own - model.centre) / model.scale[:, None], there)

    def both(self, pair: tuple[int, int]) -> Tensor:
        """The samples that have both sides, bool [n]."""
        return self.there[:, pair[0]] & self.there[:, pair[1]]

    def of_pair(self, pair: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[m, D] of either side, of the samples that have both."""
        both = self.both(pair)
        return self.own[both, pair[0]], self.own[both, pair[1]]


class Aligned(NamedTuple):
    """Of a pair after its own step: its test samples' similarities [m, m], and the share of directions taken."""

    similar: Tensor
    directions: float


def forgetting_cmcl(store: Store, data: Path, tasks: Sequence[str], sampler: Sampler) -> list[dict[str, Any]]:
    """Rows of each run of the train cell `cmcl` on one of the tasks, by which its encoders were trained.

    No label enters here: a second task would say the same. Raises InputError as `replays` does.
    """
    task = next(name for name in HEADLINE_ORDER if name in tasks)
    return [row for replay in replays(STRATEGY, store, data, [task], sampler) for row in of_run(replay)]


def of_run(replay: Replay) -> Rows:
    """Rows of a run: after each step the pairs so far; of what is aligned jointly, all of them at the end."""
    model = cast(CMCL, replay.strategy)
    with torch.no_grad():
        model.measure(replay.epoch)
    train, test = Vectors.of(model, replay.ready()), Vectors.of(model, replay.asked())
    moments, last = model.alignment.moments.clone(), len(model.pairs)
    for method, explained in ((KEPT, model.alignment.explained), (PLAIN, 0.0)):
        alignment = _fresh(model, explained, moments)
        aligned: list[Aligned] = []
        for step, pair in enumerate(model.pairs):
            _align(replay, model, alignment, train, [step])
            kept = _kept(alignment, pair)
            alignment.finish(step)
            aligned.append(Aligned(_similar(alignment, test, pair), kept))
            yield from _rows(replay, model, method, step, alignment, test, aligned)
    alignment = _fresh(model, 0.0, moments)
    _align(replay, model, alignment, train, list(range(last)))
    yield from _rows(replay, model, JOINT, last - 1, alignment, test, None)


def _fresh(model: CMCL, explained: float, moments: Tensor) -> Alignment:
    maps, width = len(model.alignment.maps), model.centre.shape[1]
    alignment = Alignment(maps, model.pairs, width, explained).to(moments.device)
    alignment.moments.copy_(moments)
    return alignment


def _align(replay: Replay, model: CMCL, alignment: Alignment, train: Vectors, steps: list[int]) -> None:
    """Epochs of contrast on the pairs of `steps`, in turn; pairs of fewer than two samples say nothing."""

    def loss(pair: tuple[int, int], of_a: Tensor, of_b: Tensor, chosen: Tensor) -> Tensor:
        a, b = (alignment.maps[side].weight() for side in pair)  # type: ignore[operator]
        return contrast(linear(of_a[chosen], a), linear(of_b[chosen], b), model.temperature, model.both_ways)

    parts: list[tuple[int, Callable[[Tensor], Tensor]]] = []
    for pair in (model.pairs[step] for step in steps):
        of_a, of_b = train.of_pair(pair)
        if len(of_a) > 1:
            parts.append((len(of_a), partial(loss, pair, of_a, of_b)))
    if parts:
        replay.descend(alignment.parameters(), parts, replay.spec.max_epochs)


@torch.no_grad()
def _similar(alignment: Alignment, test: Vectors, pair: tuple[int, int]) -> Tensor:
    """[m, m], of all test samples that have both, each with each."""
    (a, b), weights = test.of_pair(pair), alignment.weights()
    return linear(a, weights[pair[0]]) @ linear(b, weights[pair[1]]).T


def found(similar: Tensor, nearest: int) -> Tensor:
    """Whether each sample's own partner is among the `nearest` of all, [m]: 0 to 1, the mean of both directions."""
    own = similar.diagonal()
    ahead = torch.stack([(similar > own[:, None]).sum(dim=1), (similar > own[None, :]).sum(dim=0)])
    return ahead.lt(nearest).double().mean(dim=0)


def recall(replay: Replay, similar: Tensor, both: Tensor, nearest: int) -> Floats:
    """How often, [1 + D]. A draw is of the stays that look for their partner; they look among all stays in each."""
    hits = found(similar, nearest).cpu().numpy()
    sums = weighted_sums(np.stack([hits, np.ones_like(hits)], axis=1), replay.at[both.cpu().numpy()], replay.draws)
    return quotient(*sums)


def _kept(alignment: Alignment, pair: tuple[int, int]) -> float:
    """The share of directions that earlier pairs take from the pair's maps: P' times P, the mean of its two maps."""
    shares = []
    for each in (cast(Projected, alignment.maps[side]) for side in pair):
        width = len(each.own)
        shares.append(float(each.own.trace() * each.partner.trace()) / width**2)
    return sum(shares) / len(shares)


def _rows(
    replay: Replay,
    model: CMCL,
    method: str,
    step: int,
    alignment: Alignment,
    test: Vectors,
    aligned: list[Aligned] | None,
) -> Rows:
    """A row a pair so far, and their mean; recall as draws [1 + D].

    `aligned`: of each pair after its own step. `drift`: how far its similarities have moved since, the largest.
    """
    names = [*map(str, range(len(alignment.maps) - 1)), IMAGE]
    rows = []
    for place, pair in enumerate(model.pairs[: step + 1]):
        similar, both = _similar(alignment, test, pair), test.both(pair)
        row: dict[str, Any] = replay.key | {"method": method, "step": step + 1, "place": place + 1}
        row["pair"] = "-".join(names[side] for side in pair)
        then = aligned[place] if aligned else None
        if then:
            row["directions"] = then.directions
        if len(similar) >= FEW:
            row["chance_1"] = 1 / len(similar)
            for nearest in FOUND:
                row[f"recall_{nearest}"] = now = recall(replay, similar, both, nearest)
                if then:
                    row[f"recall_{nearest}_lost"] = recall(replay, then.similar, both, nearest) - now
            if then:
                row["drift"] = float((similar - then.similar).abs().max() / then.similar.abs().max())
        rows.append(row)
    yield from rows
    yield mean_row(rows, place=0, pair=MEAN)
