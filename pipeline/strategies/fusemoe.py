"""fusemoe: experts that the tokens of all modalities share, a router for each, and a gate that goes by distance.

Paper: Han et al., NeurIPS 2024 (arXiv 2402.03226).
Idea: layers in which a modality's tokens attend to each other, then ask a sparse mixture of experts, where modalities
meet; a token is sent to the experts whose vectors are nearest (the Laplace gate), which tells apart less of what is far
from all. Modalities have routers of their own over the same experts (`permod`), or one router sees all (`joint`), or
experts are not shared (`disjoint`). Load is kept even; a modality should know its experts, all together use them all.
Missing image: native. A learned token stands at each of its places, in training and at inference, and is routed as
others are; what is not there counts neither for the load nor for the entropy. An absent record is one of medians.
Changed: the paper's body could not be read, nor the official repository: formulas are those of two forks, the entropy
term is from memory, and its weight of our own choice. Tokens are hours and cells of the shared encoders, 16 each, where
the paper has its own embedding of irregular times; experts see a token, not the whole flattened stay (in the forks that
mixes patients), and answer in features, not log-probabilities. The answers of the two routers to tokens of the same
place are added up and given to both modalities. Routers are trained (in the forks they stand outside of the parameters)
and a stand-in is learned (zeros there). Two layers, where the forks have three. In the matched cohort the stand-in is
never trained. Reproduced: of a token far from all experts the Laplace gate is flatter than the inner product's. Not
tested: that it converges faster, more than two modalities, the paper's gains on MIMIC.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, even_tokens
from pipeline.modelling.experts import Experts, Routed, Router, unevenness
from pipeline.modelling.interface import CXR, Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import Attention, Dropout
from pipeline.params import Encoders

MODALITIES = 2
LEAST = 1e-8  # a share of experts below has no entropy: its derivative has no bound


def entropy(shares: Tensor) -> Tensor:
    """[…] of shares […, E] that sum to 1, in nats."""
    found: Tensor = torch.special.entr(shares.clamp(min=LEAST)).sum(dim=-1)
    return found


class MixtureLayer(nn.Module):
    """Pre-norm self-attention a modality, a mixture of experts over both, a feed-forward of width 4D a modality."""

    def __init__(self, size: Encoders, experts: int, chosen: int, gate: str, router: str) -> None:
        super().__init__()
        width, both = size.width, range(MODALITIES)
        seen = MODALITIES * width if router == "joint" else width
        self.joint = router == "joint"
        self.attention = nn.ModuleList(Attention(width, size.heads) for _ in both)
        self.before, self.between = (nn.ModuleList(nn.LayerNorm(width) for _ in both) for _ in range(2))
        self.routers = nn.ModuleList(
            Router(seen, experts, chosen, gate) for _ in range(1 if self.joint else MODALITIES)
        )
        self.experts = nn.ModuleList(Experts(seen, experts) for _ in range(MODALITIES if router == "disjoint" else 1))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in both
        )
        self.dropout = Dropout(size.dropout)

    def mixed(self, streams: list[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        """What experts add to each modality's tokens [B, N, D]; gates and load [R, B, N, E] of the routers."""
        asked = [torch.cat(streams, dim=2)] if self.joint else streams
        answers: list[Tensor] = []
        routed: list[Routed] = []
        for number, (tokens, router) in enumerate(zip(asked, self.routers, strict=True)):
            flat = tokens.flatten(0, 1)
            routed.append(router(flat))
            mixture = self.experts[number % len(self.experts)](flat, routed[-1].gates)
            answers.append(mixture.unflatten(0, tokens.shape[:2]))
        places = streams[0].shape[:2]
        gates, load = (torch.stack([each[i].unflatten(0, places) for each in routed]) for i in (1, 2))
        added = list(answers[0].chunk(MODALITIES, dim=2)) if self.joint else [answers[0] + answers[1]] * MODALITIES
        return added, gates, load

    def forward(self, streams: list[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Tokens as they came, gates and load."""
        for i, (norm, attention) in enumerate(zip(self.before, self.attention, strict=True)):
            normed = norm(streams[i])
            streams = [*streams[:i], streams[i] + self.dropout(attention(normed, normed)), *streams[i + 1 :]]
        added, gates, load = self.mixed([norm(x) for norm, x in zip(self.between, streams, strict=True)])
        streams = [x + self.dropout(more) for x, more in zip(streams, added, strict=True)]
        return [x + self.dropout(feed(x)) for x, feed in zip(streams, self.feed, strict=True)], gates, load


class FuseMoE(Strategy):
    """Sparse mixture of experts across modalities, Laplace gate."""

    missing = "native"

    def __init__(
        self,
        shapes: Shapes,
        *,
        layers: int = 2,
        experts: int = 8,
        chosen: int = 2,
        patches: int = 16,
        gate: str = "laplace",
        router: str = "permod",
        even: float = 0.01,
        entropy: float = 0.01,
    ) -> None:
        super().__init__(shapes)
        if layers < 1:
            raise ValueError(f"layers: must be at least 1, is {layers}")
        if experts < 2:
            raise ValueError(f"experts: must be at least 2, is {experts}")
        if not 1 <= chosen <= experts:
            raise ValueError(f"chosen: must lie between 1 and experts, {experts}; is {chosen}")
        if patches < 1 or math.isqrt(patches) ** 2 != patches:
            raise ValueError(f"patches: must be a square number, is {patches}")
        if gate not in ("laplace", "gaussian", "softmax"):
            raise ValueError(f"gate: must be laplace, gaussian or softmax, is {gate!r}")
        if router not in ("permod", "joint", "disjoint"):
            raise ValueError(f"router: must be permod, joint or disjoint, is {router!r}")
        for key, weight in (("even", even), ("entropy", entropy)):
            if weight < 0:
                raise ValueError(f"{key}: must be at least 0, is {weight}")
        self.patches, self.even, self.entropy, self.router = patches, even, entropy, router
        size = shapes.encoders
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.stand_in = nn.Parameter(torch.zeros(size.width))
        self.positions = nn.Parameter(torch.randn(MODALITIES, patches, size.width) * 0.02)
        self.layers = nn.ModuleList(MixtureLayer(size, experts, chosen, gate, router) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(MODALITIES))
        self.dropout = Dropout(size.dropout)
        self.head = nn.Linear(MODALITIES * size.width, shapes.outputs)

    def tokens(self, batch: Batch) -> list[Tensor]:
        """[B, patches, D] of the record and of the image, or of what stands in for it."""
        hours, cells = even_tokens(self.series(batch), self.image(batch.images), self.patches)
        absent = self.stand_in.to(cells.dtype).expand(batch.size, self.patches, -1)
        filled = absent.index_copy(0, batch.image_sample, cells)
        return [tokens + own for tokens, own in zip((hours, filled), self.positions, strict=True)]

    def forward(self, batch: Batch) -> Output:
        """Logits from both modalities' mean tokens; `gates` and `load` [layers, routers, B, patches, E]."""
        streams, gates, load = self.tokens(batch), [], []
        for layer in self.layers:
            streams, *routed = layer(streams)
            gates.append(routed[0])
            load.append(routed[1])
        pooled = torch.cat([norm(x).mean(dim=1) for norm, x in zip(self.norms, streams, strict=True)], dim=1)
        features = {"gates": torch.stack(gates), "load": torch.stack(load)}
        return Output(self.head(self.dropout(pooled)) + self.prior, features=features)

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss; how uneven each router's load is; over shared experts, how alike the modalities' choices are."""
        there = batch.heard.T if self.router != "joint" else torch.ones_like(batch.heard.T[:1])
        where = there[:, :, None, None]
        importance, load = ((output.features[key].float() * where).sum(dim=(2, 3)) for key in ("gates", "load"))
        uneven = [unevenness(amounts) for each in (importance, load) for amounts in each.flatten(0, 1)]
        found = super().losses(output, batch, targets) | {"even": self.even * torch.stack(uneven).sum()}
        if self.router == "permod":
            shares = importance / importance.sum(dim=2, keepdim=True).clamp(min=1)  # [layers, 2, E]
            alike = entropy(shares).mean(dim=1) - entropy(shares.mean(dim=1))
            found["entropy"] = self.entropy * alike.sum() * batch.present[:, CXR].any()
        return found
