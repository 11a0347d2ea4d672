"""umse: every modality is a set of tokens (what, when, value); two transformers meet in a few bottleneck tokens.

Paper: Lee et al., MLHC 2023 (arXiv 2305.02504), on the attention bottlenecks of Nagrani et al., NeurIPS 2021.
Idea: one embedding of time and kind serves the charted values and the image alike, so nothing need be imputed; each
modality attends to itself and to shared bottlenecks, which are averaged over the modalities that are there.
Missing image: it has no token, and the bottlenecks are the EHR's own (skip bottleneck), in training and at inference.
A missing record leaves its class token and the image's bottlenecks.
Changed: the image's tokens are the shared CNN's grid, where the paper has a frozen Swin-T or plain patches
(`image: patches`); two layers, where it has six; of what was charted of a variable within four hours the latest value
alone (`span: 1`: all), since attention grows with the square; no demographics; LayerNorm for BatchNorm; the embedding
of kinds starts small, or an image goes unlearned from two of twelve initialisations (check_strategy). CareBench
takes the imputed cells for the observed ones, has the missing flag the wrong way round, and with its one layer no image
reaches the EHR token.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import AttentionLayer, ImageEncoder, events
from pipeline.modelling.interface import EHR, Batch, Output, Shapes, Strategy

PATCH = 16  # px, as in the paper


def sinusoids(count: int, width: int, like: Tensor) -> Tensor:
    """[count, width] fixed positions (Vaswani et al. 2017)."""
    half = torch.arange((width + 1) // 2, device=like.device)
    angles = torch.arange(count, device=like.device)[:, None] / 10000 ** (2 * half / width)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


def latest(observed: Tensor, span: int) -> Tensor:
    """[B, T, V] bool: of the observed cells of a variable, the last one in each stretch of `span` hours."""
    spans = observed.unflatten(1, (-1, span))
    from_here = spans.flip(2).cumsum(dim=2).flip(2)  # how many are observed in this hour and the rest of the stretch
    found: Tensor = (spans & (from_here == 1)).flatten(1, 2)
    return found


def _embed(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width, bias=False))


class UMSE(Strategy):
    """Unified multimodal set embedding with skip bottlenecks."""

    missing = "native"

    def __init__(
        self, shapes: Shapes, *, layers: int = 2, bottlenecks: int = 4, span: int = 4, image: str = "cnn"
    ) -> None:
        super().__init__(shapes)
        if layers < 2:
            raise ValueError(f"layers: must be at least 2, or no image reaches the EHR token; is {layers}")
        if bottlenecks < 1:
            raise ValueError(f"bottlenecks: must be at least 1, is {bottlenecks}")
        if span < 1 or shapes.hours % span:
            raise ValueError(f"span: must be a divisor of {shapes.hours} hours, is {span}")
        if image not in ("cnn", "patches"):
            raise ValueError(f"image: must be cnn or patches, is {image!r}")
        if image == "patches" and shapes.px < PATCH:
            raise ValueError(f"image: patches are {PATCH} px wide, images only {shapes.px}")
        size = shapes.encoders
        self.span = span
        self.bottlenecks = nn.Parameter(torch.randn(bottlenecks, size.width))
        self.tokens = nn.Parameter(torch.randn(2, size.width))  # the class tokens of EHR and image
        self.value, self.time = _embed(size.width), _embed(size.width)
        self.kind = nn.Embedding(shapes.channels + 1, size.width)  # the last one is the image
        nn.init.normal_(self.kind.weight, std=0.02)  # as large as usual, it drowns what the image's tokens differ in
        self.image = ImageEncoder(shapes) if image == "cnn" else nn.Conv2d(1, size.width, PATCH, PATCH)
        self.norms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(2))
        self.ehr_layers = nn.ModuleList(AttentionLayer(size) for _ in range(layers))
        self.image_layers = nn.ModuleList(AttentionLayer(size) for _ in range(layers - 1))  # a last one reaches nothing
        self.dropout = nn.Dropout(size.dropout)
        self.head = nn.Sequential(
            nn.LayerNorm(size.width),
            nn.Linear(size.width, size.width),
            nn.ReLU(),
            nn.Linear(size.width, shapes.outputs),
        )

    def _ehr_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens [B, L, D] of what was charted, and which are real [B, L]."""
        found = events(dataclasses.replace(batch, observed=latest(batch.observed, self.span)), self.shapes)
        value, when = self.value(found.value[..., None]), self.time(found.time[..., None])
        tokens: Tensor = value + when + self.kind(found.channel)
        return tokens, found.real

    def _image_tokens(self, batch: Batch) -> Tensor:
        """Tokens [P, N, D] of the grid, each with the time of the image."""
        if isinstance(self.image, ImageEncoder):
            tokens = self.image(batch.images).tokens
        else:
            tokens = self.image(batch.images).flatten(2).transpose(1, 2)
        when = self.time(batch.image_hours[:, None, None])
        placed: Tensor = tokens + when + self.kind.weight[-1] + sinusoids(tokens.shape[1], tokens.shape[2], tokens)
        return placed

    def _stream(self, modality: int, tokens: Tensor) -> Tensor:
        """The class token before the tokens, normalised."""
        first = self.tokens[modality].to(tokens.dtype).expand(len(tokens), 1, -1)
        stream: Tensor = self.dropout(self.norms[modality](torch.cat([first, tokens], dim=1)))
        return stream

    def forward(self, batch: Batch) -> Output:
        """Logits from the EHR's class token."""
        rows, count = batch.image_sample, len(self.bottlenecks)
        tokens, real = self._ehr_tokens(batch)
        real = torch.cat([real.new_ones(batch.size, count + 1), real], dim=1)
        ehr, image = self._stream(0, tokens), self._stream(1, self._image_tokens(batch))
        shared = self.bottlenecks.to(ehr.dtype).expand(batch.size, -1, -1)
        charted = batch.present[rows, EHR][:, None, None].to(ehr.dtype)
        for number, layer in enumerate(self.ehr_layers):
            last = number == len(self.image_layers)  # of which the class token alone is read
            whole = layer(torch.cat([shared, ehr], dim=1), real, count + 1 if last else None)
            if not last:
                seen = self.image_layers[number](torch.cat([shared[rows], image], dim=1))
                own, image = whole[:, :count], seen[:, count:]
                mean = (charted * own[rows] + seen[:, :count]) / (charted + 1)
                shared = own.index_copy(0, rows, mean.to(own.dtype))
            ehr = whole[:, count:]
        return Output(self.head(ehr[:, 0]) + self.prior, features={"bottlenecks": shared})
