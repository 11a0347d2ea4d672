"""cmcl: pairs of modalities are aligned one after another, and what was aligned before stays where it is.

Paper: Liu et al., NeurIPS 2025 (arXiv 2503.14963).
Idea: frozen encoders, a linear map a modality. Each step pulls the mapped vectors of one pair together by contrast, and
moves its maps only in directions that leave the similarities of all earlier pairs unchanged: W = A + D - P' D P, where
P spans the modality's own vectors in earlier pairs and P' those of its partners. A linear head on all mapped vectors,
which trains no map, answers.
Missing image: native. Its vector is zero and a bit says so, in training and at inference; contrast sees pairs alone.
Whose record is absent has zeros there; where nothing at all is there, the medians speak.
Changed: the paper's body could not be read; the source is its official code. That projects gradients, and AdamW, decay
and a bias without projection leak: here D is the parameter, the maps have no bias, and every optimiser's step keeps old
similarities; P' is made anew from the maps as they are. P and P' span the directions that hold a share of the trace
(`explained`), where the code keeps eigenvalues above a threshold, and for P' above 0: of vectors of full rank that is
everything. The code takes the covariance of the first two modalities whatever the pair, and contrasts one way.
Of our own choice: the modalities are groups of variables of the record and the image; one encoder, trained by plain
supervision in a first share of the epochs, reads each group as if the others had never been charted; vectors are
centred and scaled for the contrast; the read-out. One learning rate falls over all steps, and validation chooses the
epoch: expect less than of supervised fusion. Reproduced by test: a later step leaves an earlier pair's retrieval as it
was, plain training does not. Not reproduced: gains over other continual learners on seven data sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy, stretch
from pipeline.modelling.layers import Dropout
from pipeline.modelling.losses import mean_where, sample_losses

IMAGE = "cxr"  # in the name of a pair
NOTHING = 1e-12  # an eigenvalue this much smaller than the largest is what rounding leaves of zero


def contrast(a: Tensor, b: Tensor, temperature: float, both_ways: bool) -> Tensor:
    """InfoNCE of vectors a and b [N, D] that belong together row by row."""
    similar, own = (a @ b.T).float() / temperature, torch.arange(len(a), device=a.device)
    one_way = cross_entropy(similar, own)
    return (one_way + cross_entropy(similar.T, own)) / 2 if both_ways else one_way


def projector(moment: Tensor, explained: float) -> Tensor:
    """[D, D]: onto the fewest eigenvectors of the moment [D, D] that hold a share `explained` of its trace."""
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=0)
    held = values.flip(0).cumsum(0).flip(0) - values  # by all that are larger
    kept = (held < explained * values.sum()) & (values > NOTHING * values.max())
    onto: Tensor = (vectors * kept) @ vectors.T
    return onto


class Projected(nn.Module):
    """A linear map W = A + D - P' D P [D, D] whose parameter D leaves y'Wx as A has it, for x in P and y in P'."""

    base: Tensor
    own: Tensor
    partner: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(width, width))
        self.register_buffer("base", torch.eye(width))
        self.register_buffer("own", torch.zeros(width, width))
        self.register_buffer("partner", torch.zeros(width, width))

    def weight(self) -> Tensor:
        """W, made in float64, which autocast leaves alone: in bfloat16 old similarities would move."""
        base, change, own, partner = (each.double() for each in (self.base, self.change, self.own, self.partner))
        return (base + change - partner @ change @ own).to(self.base.dtype)

    @torch.no_grad()
    def settle(self, own: Tensor, partner: Tensor) -> None:
        """What was learned stays; from now on what the projectors P and P' span is kept."""
        self.base.copy_(self.weight())
        self.change.zero_()
        self.own.copy_(own)
        self.partner.copy_(partner)


class Alignment(nn.Module):
    """Maps of U modalities, aligned pair after pair; what was aligned is known by the second moments of its vectors."""

    moments: Tensor
    aligned: Tensor
    finished: Tensor

    def __init__(self, modalities: int, pairs: Sequence[tuple[int, int]], width: int, explained: float) -> None:
        super().__init__()
        self.pairs, self.explained = tuple(pairs), explained
        self.maps = nn.ModuleList(Projected(width) for _ in range(modalities))
        square = (len(self.pairs), width, width)
        self.register_buffer("moments", torch.zeros(len(self.pairs), 2, width, width, dtype=torch.double))
        self.register_buffer("aligned", torch.zeros(square))  # W_a' W_b at the end of the pair's step
        self.register_buffer("finished", torch.zeros(len(self.pairs), dtype=torch.bool))

    def weights(self) -> list[Tensor]:
        """W of each modality."""
        return [each.weight() for each in cast(Iterable[Projected], self.maps)]

    @torch.no_grad()
    def finish(self, step: int) -> None:
        """From now on the similarities of the step's pair are kept, and those of the pairs before, as they are now.

        A partner's vectors are mapped as the maps are now: in P' they are those that a change would meet.
        """
        self.finished[step] = True
        weights = [each.double() for each in self.weights()]
        own = torch.zeros_like(torch.stack(weights))
        partner = torch.zeros_like(own)
        for (a, b), (of_a, of_b), done in zip(self.pairs, self.moments, self.finished, strict=True):
            for me, mine, other, others in ((a, of_a, b, of_b), (b, of_b, a, of_a)):
                mapped = weights[other] @ others @ weights[other].T
                for total, moment in ((own, mine), (partner, mapped)):  # each pair counts alike
                    total[me] += done * moment / moment.trace().clamp(min=NOTHING)
        for each, *moments in zip(cast(Iterable[Projected], self.maps), own, partner, strict=True):
            each.settle(*(projector(moment, self.explained) for moment in moments))
        a, b = self.pairs[step]
        self.aligned[step] = weights[a].T @ weights[b]

    @torch.no_grad()
    def drift(self) -> float:
        """How far similarities of a finished pair have moved since its step, the largest over the pairs.

        The root mean square of the change over that of the similarities, over all two samples' vectors.
        """
        weights, found = [each.double() for each in self.weights()], [0.0]
        for s in torch.nonzero(self.finished).flatten().tolist():
            (a, b), (of_a, of_b), then = self.pairs[s], self.moments[s], self.aligned[s].double()
            square = [(m.T @ of_a @ m @ of_b).trace() for m in (weights[a].T @ weights[b] - then, then)]
            found.append(float((square[0] / square[1].clamp(min=NOTHING)).clamp(min=0).sqrt()))
        return max(found)


class CMCL(Strategy):
    """Continual alignment of groups of variables and the image, and a linear head."""

    missing = "native"
    interaction = "additive"
    step: Tensor
    centre: Tensor
    scale: Tensor
    variables: Tensor
    channels: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        groups: Sequence[int] = (0, 8, 12),
        pairs: Sequence[str] = ("0-1", "0-cxr", "2-cxr", "1-cxr"),
        explained: float = 0.95,
        supervised: float = 0.4,
        temperature: float = 1.0,
        both_ways: bool = True,
    ) -> None:
        super().__init__(shapes)
        if not groups or groups[0] != 0 or any(b <= a for a, b in pairwise(groups)):
            raise ValueError(f"groups: must rise from 0, are {list(groups)}")
        if not 0 <= explained <= 1:
            raise ValueError(f"explained: must be in [0, 1], is {explained}")
        if not 0 < supervised < 1:
            raise ValueError(f"supervised: must lie between 0 and 1, is {supervised}")
        if temperature <= 0:
            raise ValueError(f"temperature: must be above 0, is {temperature}")
        self.supervised, self.temperature, self.both_ways = supervised, temperature, both_ways
        self.pairs = parse_pairs(pairs, len(groups))
        width, modalities = shapes.encoders.width, len(groups) + 1
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.heads = nn.ModuleList(nn.Linear(width, shapes.outputs) for _ in range(modalities))
        self.alignment = Alignment(modalities, self.pairs, width, explained)
        self.dropout = Dropout(shapes.encoders.dropout)
        self.head = nn.Linear(modalities * width + 1, shapes.outputs)
        place = torch.arange(shapes.variables)
        ends = [*groups[1:], max(shapes.variables, groups[-1])]
        variables = torch.stack([(place >= a) & (place < b) for a, b in zip(groups, ends, strict=True)])
        self.register_buffer("variables", variables, persistent=False)  # [G, V]: of each group
        self.register_buffer("channels", variables[:, list(shapes.channel_variable)], persistent=False)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))  # 0: supervised; then the pair, from 1
        self.register_buffer("centre", torch.zeros(modalities, width))
        self.register_buffer("scale", torch.ones(modalities))

    def groups(self, batch: Batch) -> Batch:
        """G batches behind one another, in each what one group of variables tells, as if no other had been charted."""
        variables, channels = self.variables[:, None, None], self.channels[:, None, None]  # [G, 1, 1, V or C]
        return dataclasses.replace(
            batch,
            ehr=(batch.ehr * channels).flatten(0, 1),
            observed=(batch.observed & variables).flatten(0, 1),
            since=batch.since.where(variables, 1.0).flatten(0, 1),
        )

    def encode(self, batch: Batch) -> Tensor:
        """[B, U, D]: a vector of each group and of the image, zeros where there is no image."""
        series = self.series(self.groups(batch)).pooled.unflatten(0, (-1, batch.size))
        image = self.image(batch.images).pooled
        image = fill_absent(image, batch, image.new_zeros(image.shape[1]))
        return torch.cat([series, image[None].to(series.dtype)]).transpose(0, 1)

    def heard(self, batch: Batch) -> Tensor:
        """[B, U] bool: what the answer is made of."""
        record, image = batch.heard.split(1, dim=1)
        return torch.cat([record.expand(-1, len(self.variables)), image], dim=1)

    def told(self, batch: Batch) -> Tensor:
        """[B, U] bool: what contrast sees: images, and groups of which something was charted."""
        charted = (batch.observed.any(dim=1)[:, None] & self.variables).any(dim=2) & batch.present[:, EHR, None]
        return torch.cat([charted, batch.present[:, CXR, None]], dim=1)

    def forward(self, batch: Batch) -> Output:
        """Logits from all mapped vectors, without a gradient to them; `alone` [B, U, K] of each vector by itself."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and int(self.step) == 0):
            own = self.encode(batch)
            alone = torch.stack([head(self.dropout(own[:, u])) for u, head in enumerate(self.heads)], dim=1)
        mapped = torch.stack([linear(own[:, u], w) for u, w in enumerate(self.alignment.weights())], dim=1).detach()
        seen = (mapped * self.heard(batch)[:, :, None]).flatten(1)
        joint = torch.cat([self.dropout(seen), batch.present[:, CXR, None].to(seen.dtype)], dim=1)
        return Output(
            self.head(joint) + self.prior,
            unimodal={"ehr": alone[:, :-1].mean(dim=1) + self.prior, "cxr": alone[:, -1] + self.prior},
            features={"own": own, "alone": alone + self.prior},
        )

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss of the head; in the first share each vector's own, the mean over those there; then contrast."""
        found, step = super().losses(output, batch, targets), int(self.step)
        none = torch.zeros_like(found["task"])
        if step == 0:
            each = [sample_losses(alone, targets, self.shapes.task) for alone in output.features["alone"].unbind(1)]
            own = [mean_where(loss, there) for loss, there in zip(each, self.heard(batch).unbind(1), strict=True)]
            return {**found, "supervised": torch.stack(own).mean(), "contrast": none}
        there = self.told(batch)
        a, b = self.pairs[step - 1]
        both = there[:, a] & there[:, b]
        vectors = (output.features["own"][both] - self.centre) / self.scale[:, None]
        if len(vectors) < 2:
            return {**found, "supervised": none, "contrast": none}
        weights = self.alignment.weights()
        of_a, of_b = (linear(vectors[:, u], weights[u]) for u in (a, b))
        return {**found, "supervised": none, "contrast": contrast(of_a, of_b, self.temperature, self.both_ways)}

    def waiting(self) -> Iterable[nn.Parameter]:
        """Maps of groups that hold no variable of the data: no pair of theirs is ever told."""
        empty = ~self.variables.any(dim=1)
        maps = cast(Iterable[Projected], self.alignment.maps[: len(empty)])
        return [each.change for each, out in zip(maps, empty, strict=True) if out]

    def step_of(self, epoch: Epoch) -> int:
        """0 in the first share of the epochs; then the number of the pair, from 1: equal stretches of the rest."""
        first = max(1, round(self.supervised * epoch.count))
        if epoch.done < first or first >= epoch.count:
            return 0
        return 1 + stretch(epoch.done - first, epoch.count - first, len(self.pairs)).number

    def between_epochs(self, epoch: Epoch) -> None:
        """Where a step ends: vectors are measured once, when the encoders are done; then pair after pair is kept."""
        before, now = int(self.step), self.step_of(epoch)
        if now == before:
            return
        if before == 0:
            self.measure(epoch)
        else:
            self.alignment.finish(before - 1)
        self.step.fill_(now)

    def measure(self, epoch: Epoch) -> None:
        """Centre and scale of each modality's vectors where it is told; second moments over the samples of each pair.

        Encoders are frozen from here on, so those of a pair that comes later are what they will be.
        """
        sides = torch.tensor(self.pairs, device=self.step.device)  # [S, 2]
        modalities, width = self.centre.shape
        total = self.alignment.moments.new_zeros(modalities, width + 1, width + 1)
        paired = total.new_zeros(*sides.shape, width + 1, width + 1)
        for batch, _ in epoch.batches():
            there, own = self.told(batch).double(), self.encode(batch).double()
            one = torch.cat([own, torch.ones_like(own[:, :, :1])], dim=2)  # moments of (x, 1): sums and count, too
            total += torch.einsum("bu,bui,buj->uij", there, one, one)
            for s, side in enumerate(sides):
                both = one[:, side] * there[:, side].prod(dim=1)[:, None, None]
                paired[s] += torch.einsum("bki,bkj->kij", both, both)
        total = total / total[:, -1:, -1:].clamp(min=1)
        paired = paired / paired[:, :, -1:, -1:].clamp(min=1)
        centre = total[:, :-1, -1]
        spread = total[:, :-1, :-1].diagonal(dim1=1, dim2=2).sum(dim=1) - centre.square().sum(dim=1)
        scale = torch.where(spread > NOTHING, spread.clamp(min=NOTHING).sqrt(), 1.0)
        eye = torch.eye(width, dtype=centre.dtype, device=centre.device).expand(modalities, -1, -1)
        standard = (torch.cat([eye, -centre[:, :, None]], dim=2) / scale[:, None, None])[sides]  # (x, 1) -> vectors
        self.alignment.moments.copy_(standard @ paired @ standard.mT)
        self.centre.copy_(centre)
        self.scale.copy_(scale)

    def diagnostics(self) -> dict[str, float]:
        """The step; shares of all directions that the pair's projectors keep, the mean of two; drift of old pairs."""
        step = int(self.step)
        maps = [self.alignment.maps[u] for u in self.pairs[step - 1]] if step else []
        kept = {
            name: sum(float(each.get_buffer(buffer).trace()) / each.get_buffer(buffer).shape[0] for each in maps) / 2
            for name, buffer in (("kept", "own"), ("kept_partner", "partner"))
        }
        return {"step": float(step), **kept, "drift": self.alignment.drift()}


def parse_pairs(pairs: Sequence[str], groups: int) -> tuple[tuple[int, int], ...]:
    """Numbers of the modalities of pairs like `0-1` and `0-cxr`; the image's is `groups`. Raises ValueError."""
    known = {**{str(group): group for group in range(groups)}, IMAGE: groups}
    found = []
    for pair in pairs:
        a, _, b = str(pair).partition("-")
        if a not in known or b not in known or a == b:
            raise ValueError(f"pairs: {pair!r} does not name two of {', '.join(known)}, as in 0-{IMAGE}")
        found.append((known[a], known[b]))
    if not found:
        raise ValueError("pairs: must hold at least one")
    return tuple(found)
