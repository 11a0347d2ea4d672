"""healnet: a learned array of latents reads one modality after the other, several times over.

Paper: Hemker, Simidjievski & Jamnik, NeurIPS 2024 (arXiv 2311.09115).
Idea: latents shared by all modalities are updated by cross-attention to each modality in turn, so that each is read in
the light of the others; the mean of the latents predicts.
Missing image: its update is skipped and the latents go on untouched, in training and at inference; so for a record.
Several images: the latents attend to the tokens of all at once, each with its image's age, where images.per_stay is
above 1.
Changed: the tokens are those of the shared encoders, where the paper reads raw values (`tokens: raw`: hours, pixels);
the passes after the first share their weights; max_freq 10, since the authors' 2 makes all bands equal; the latents
attend to each other once a pass, where the authors' do so after each modality, a skipped one too. 16 latents, where
CareBench has 256. Queries and values have biases, which the authors' have not. CareBench never skips, and in the
authors' code a skip hangs on an exception that is swallowed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, by_sample, image_age, series_channels
from pipeline.modelling.interface import EHR, Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import Attention, Dropout


def fourier(shape: tuple[int, ...], bands: int, max_freq: float, like: Tensor) -> Tensor:
    """[N, axes · (2 · bands + 1)] of the N cells of a grid: sines, cosines of each coordinate in [-1, 1], and it."""
    axes = [torch.linspace(-1, 1, length, device=like.device) for length in shape]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    angles = place[..., None] * torch.linspace(1, max_freq / 2, bands, device=like.device) * math.pi
    return torch.cat([angles.sin(), angles.cos(), place[..., None]], dim=-1).flatten(1)


class Update(nn.Module):
    """x [B, N, D] += attention over a context [B, M, E] (over x itself without one), then += a gated feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float, context: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(context) if context else None
        self.attention = Attention(width, heads, context, temperature=0.5)
        self.norm_feed = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 8 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """The updated latents; `real` [B, M] bool: which of the context are no padding."""
        normed = self.norm(x)
        seen = normed if context is None or self.norm_context is None else self.norm_context(context)
        x = x + nn.functional.leaky_relu(self.attention(normed, seen, real))
        value, gate = self.widen(self.norm_feed(x)).chunk(2, dim=2)
        x = x + self.dropout(self.narrow(value * nn.functional.selu(gate)))
        return x


class HEALNet(Strategy):
    """Hybrid early-fusion attention learning network."""

    missing = "native"
    every_image = True

    def __init__(
        self,
        shapes: Shapes,
        *,
        depth: int = 3,
        latents: int = 16,
        bands: int = 2,
        max_freq: float = 10.0,
        tokens: str = "encoded",
    ) -> None:
        super().__init__(shapes)
        for name, value in (("depth", depth), ("latents", latents), ("bands", bands)):
            if value < 1:
                raise ValueError(f"{name}: must be at least 1, is {value}")
        if max_freq <= 0:
            raise ValueError(f"max_freq: must be above 0, is {max_freq}")
        if tokens not in ("encoded", "raw"):
            raise ValueError(f"tokens: must be encoded or raw, is {tokens!r}")
        size = shapes.encoders
        self.depth, self.bands, self.max_freq, self.encoded = depth, bands, max_freq, tokens == "encoded"
        widths = (shapes.channels + 2 * shapes.variables, 1)
        if self.encoded:
            widths = (size.width, size.width)
            self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.latents = nn.Parameter(torch.randn(latents, size.width))
        place = 2 * bands + 1

        def passes(context: int | None) -> nn.ModuleList:
            return nn.ModuleList(Update(size.width, size.heads, size.dropout, context) for _ in range(min(depth, 2)))

        self.several = shapes.images > 1
        self.read_ehr, self.read_image = passes(widths[0] + place), passes(widths[1] + 2 * place + self.several)
        self.settle = passes(None)
        self.head = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, shapes.outputs))

    def _placed(self, tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Tokens [P, N, E] of a grid of that shape, with their places beside them."""
        place = fourier(shape, self.bands, self.max_freq, tokens).to(tokens.dtype)
        return torch.cat([tokens, place.expand(len(tokens), -1, -1)], dim=2)

    def tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the latents read: of the EHR [B, T, E], of the P images [P, N, E']."""
        if self.encoded:
            ehr, found = self.series(batch).tokens, self.image(batch.images)
            image, shape = found.tokens, found.maps[-1].shape[2:]
        else:
            ehr, image = series_channels(batch), (batch.images.flatten(2).transpose(1, 2) - 0.5) / 0.25
            shape = batch.images.shape[2:]
        return self._placed(ehr, (self.shapes.hours,)), self._placed(image, tuple(shape))

    def forward(self, batch: Batch) -> Output:
        """Logits from the mean latent."""
        ehr, image = self.tokens(batch)
        real = None
        if self.several:
            age = image_age(batch).to(image.dtype)[:, None, None].expand(-1, image.shape[1], 1)
            image, there = by_sample(torch.cat([image, age], dim=2), batch)
            real, image = there.repeat_interleave(image.shape[2], dim=1), image.flatten(1, 2)
        rows, charted = batch.image_sample[batch.image_place == 0], batch.present[:, EHR, None, None]
        x = self.latents.expand(batch.size, -1, -1)
        for number in range(self.depth):
            step = min(number, 1)
            x = torch.where(charted, self.read_ehr[step](x, ehr), x)
            x = x.index_copy(0, rows, self.read_image[step](x[rows], image, real).to(x.dtype))
            x = self.settle[step](x)
        return Output(self.head(x.mean(dim=1)) + self.prior, features={"latents": x})
