"""utde: a gate mixes two embeddings of the record, of the filled grid and of the charted values; then cross-attention.

Paper: Zhang et al., ICML 2023 (arXiv 2210.12156), on the multi-time attention of Shukla & Marlin, ICLR 2021.
Idea: filling suits what is charted often, attention over the observed times what is charted seldom, so a gate learns
how much of each; layers of self- and cross-attention then carry record and image into each other.
Missing image: the cross-attention is skipped (identity), and the shared treatment, a learned vector, takes the image's
place in the head, in training and at inference.
Changed: an image where the paper has notes: its grid tokens, each with the embedding of its time, since attention over
a single time is constant. The filled grid is embedded by the shared transformer, where the paper has a linear map
(`filled: linear`). The times of charted values are the hours of the grid, not minutes; the head sees the last hour and
the mean of the image's tokens. CareBench has no charted values, no attention over their times and no gate; its two
sequences are 500 copies of one vector each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent, observed_cells, series_channels
from pipeline.modelling.interface import Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import Attention, Dropout
from pipeline.params import Encoders


class TimeEmbedding(nn.Module):
    """Times [..., 1] to [..., E]: one linear, E − 1 sines of linear functions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.periodic = nn.Linear(1, width - 1)

    def forward(self, time: Tensor) -> Tensor:
        """The embedding."""
        return torch.cat([self.linear(time), torch.sin(self.periodic(time))], dim=-1)


class TimeAttention(nn.Module):
    """For each hour, a mean of what was charted of each channel, weighted by the similarity of the times."""

    def __init__(self, time: int, heads: int, channels: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(time, time)
        self.key = nn.Linear(time, time, bias=False)  # a bias would cancel in the softmax
        self.out = nn.Linear(heads * 2 * channels, width)

    def forward(self, times: Tensor, values: Tensor, charted: Tensor) -> Tensor:
        """[B, T, D] from the times [T, E] of hours, values [B, T, C] and which of them count [B, T, C] bool.

        Hours are the same in all records, so weights are made once [heads, T, T], and each channel normalises them over
        its own charted hours; a channel that was never charted is 0. Whether it ever was is a second input.
        """
        query, key = (x.unflatten(1, (self.heads, -1)).transpose(0, 1) for x in (self.query(times), self.key(times)))
        scores = (query @ key.transpose(1, 2)).float() / query.shape[2] ** 0.5
        weights = torch.exp(scores - scores.amax(dim=2, keepdim=True)).clamp(min=1e-12)  # those charted may be far off
        ever = charted.any(dim=1)  # [B, C]
        counts = (charted | ~ever[:, None]).to(values.dtype)  # of what never was, the mean is that of zeros
        counts, sums = (x.transpose(0, 1).flatten(1) for x in (counts, charted * values))  # [T, B · C]
        of_mean, of_ever = self.out.weight.unflatten(1, (self.heads, 2, -1)).unbind(dim=2)  # [D, heads, C]
        found: Tensor = (ever.to(values.dtype) @ of_ever.sum(dim=1).T + self.out.bias)[:, None]  # the same every hour
        for head, weight in enumerate(weights):  # head by head, what is divided stays in the processor's cache
            mean = ((weight @ sums) / (weight @ counts)).unflatten(1, charted.shape[::2])  # [T, B, C]
            found = found + (mean @ of_mean[:, head].T).transpose(0, 1)
        return found


class CrossLayer(nn.Module):
    """Self-attention in each stream, attention of each to the other, a feed-forward in each; pre-norm, residual."""

    def __init__(self, size: Encoders) -> None:
        super().__init__()
        width = size.width
        self.own = nn.ModuleList(Attention(width, size.heads) for _ in range(2))
        self.other = nn.ModuleList(Attention(width, size.heads) for _ in range(2))
        self.before_own = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.before_other = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
            for _ in range(2)
        )
        self.dropout = Dropout(size.dropout)

    def forward(self, series: Tensor, image: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Series [B, T, D] and image tokens [P, N, D] of the samples `rows`; without an image nothing is crossed."""
        streams = [series, image]
        for i, x in enumerate(streams):
            normed = self.before_own[i](x)
            streams[i] = x + self.dropout(self.own[i](normed, normed))
        series, image = streams
        a, b = self.before_other[0](series[rows]), self.before_other[1](image)
        met = series[rows] + self.dropout(self.other[0](a, b))
        image = image + self.dropout(self.other[1](b, a))
        series = series.index_copy(0, rows, met.to(series.dtype))
        return series + self.dropout(self.feed[0](series)), image + self.dropout(self.feed[1](image))


class UTDE(Strategy):
    """Unified temporal discretisation embedding and interleaved attention."""

    missing = "complete"

    def __init__(
        self,
        shapes: Shapes,
        *,
        cross_layers: int = 3,
        embed_time: int = 64,
        time_heads: int = 8,
        gate: str = "feature",
        filled: str = "encoder",
    ) -> None:
        super().__init__(shapes)
        if cross_layers < 1:
            raise ValueError(f"cross_layers: must be at least 1, is {cross_layers}")
        if time_heads < 1 or embed_time < 2 or embed_time % time_heads:
            raise ValueError(f"embed_time: must be a multiple of time_heads, {time_heads}, is {embed_time}")
        if gate not in ("stay", "hour", "feature"):
            raise ValueError(f"gate: must be stay, hour or feature, is {gate!r}")
        if filled not in ("encoder", "linear"):
            raise ValueError(f"filled: must be encoder or linear, is {filled!r}")
        size = shapes.encoders
        width = size.width
        self.gate_level = gate
        inputs = shapes.channels + 2 * shapes.variables
        self.filled = TransformerEncoder(shapes) if filled == "encoder" else nn.Linear(inputs, width)
        self.time = TimeEmbedding(embed_time)
        self.charted = TimeAttention(embed_time, time_heads, shapes.channels, width)
        self.gate = nn.Sequential(
            Dropout(size.dropout),
            nn.Linear(2 * width, width),
            nn.ReLU(),
            nn.Linear(width, width if gate == "feature" else 1),
            nn.Sigmoid(),
        )
        self.positions = nn.Parameter(torch.randn(shapes.hours, width) * 0.02)
        self.image = ImageEncoder(shapes)
        self.image_time = nn.Linear(embed_time, width)
        self.cross = nn.ModuleList(CrossLayer(size) for _ in range(cross_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.absent = nn.Parameter(torch.zeros(width))
        self.residual = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.ReLU(), Dropout(size.dropout), nn.Linear(2 * width, 2 * width)
        )
        self.head = nn.Linear(2 * width, shapes.outputs)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Both embeddings of the record [B, T, D], the gate, and their mixture g · charted + (1 − g) · filled."""
        encoder = self.filled
        filled = encoder(batch).tokens if isinstance(encoder, TransformerEncoder) else encoder(series_channels(batch))
        hours = torch.arange(self.shapes.hours, device=batch.ehr.device)[:, None] / self.shapes.hours
        charted = self.charted(self.time(hours), batch.ehr, observed_cells(batch, self.shapes))
        both = torch.cat([charted, filled], dim=2)
        gate = self.gate(both.amax(dim=1, keepdim=True) if self.gate_level == "stay" else both)
        return {"filled": filled, "charted": charted, "gate": gate, "mixed": gate * charted + (1 - gate) * filled}

    def forward(self, batch: Batch) -> Output:
        """Logits from the series' last hour and the mean of the image's tokens."""
        features = self.embed(batch)
        when = self.image_time(self.time(batch.image_hours[:, None, None]))
        # Both streams enter times the root of their width, as in the authors' code, beside positions that stay small.
        loud = math.sqrt(self.positions.shape[1])
        series = loud * features["mixed"] + self.positions
        image = loud * (self.image(batch.images).tokens + when)
        for layer in self.cross:
            series, image = layer(series, image, batch.image_sample)
        last = fill_absent(self.norms[1](image).mean(dim=1), batch, self.absent)
        joint = torch.cat([self.norms[0](series)[:, -1], last], dim=1)
        return Output(self.head(joint + self.residual(joint)) + self.prior, features=features)
