"""umse: every modality is a set of tokens (what, when, value); two transformers meet in a few bottleneck tokens.

Paper: Lee et al., MLHC 2023 (arXiv 2305.02504), on the attention bottlenecks of Nagrani et al., NeurIPS 2021.
Idea: one embedding of time and kind serves the charted values and the image alike, so nothing need be imputed; each
modality attends to itself and to shared bottlenecks, which are averaged over the modalities that are there; so are the
answers of their class tokens, from one head.
Missing image: it has no token, the bottlenecks are the EHR's own (skip bottleneck) and its class token answers alone,
in training and at inference. A missing record leaves the image's bottlenecks and the answer of its class token.
Changed: the image's tokens are the shared CNN's grid, where the paper has a frozen Swin-T or plain patches (`image:
patches`); two layers, where it has six. With `span: 4` of what was charted of a variable within four hours the latest
value alone is a token: attention grows with the square, a step takes a quarter of the time. On dev of a synthetic
hospital of the scale `study` (matched cohort, one run each) that tells record-only labels with AUROC 0.793 (all values:
0.751), image-only ones with 0.711 (0.714), synergistic ones with 0.504 (0.501; docs/choices.csv). What is told below as
found and of images was learned so. One embedding of values serves all variables, as the authors'; of a category each
entry is a kind, of value 1. The image's tokens are told their place by sinusoids after the norm, as there. Class tokens
start small and are not normed: what they gather is then most of what they say. No demographics, and one linear layer
answers, behind the authors' LayerNorm: theirs has a hidden layer with BatchNorm and ReLU. Without BatchNorm, which
would let answers depend on batch mates, its units died one after the other for an image's class token, which hardly
differs between images at first, and from three of seven initialisations nothing was learned of check_strategy's faint
image in 500 steps; with LayerNorm in its place from three of the three that were tried. The linear layer learned it
from all seven. The authors also have a variant whose EHR token alone answers: through bottlenecks alone an image is
heard late or never. CareBench takes the imputed cells for the observed ones, has the missing flag the wrong way round,
and in its one layer they never meet.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, events, mean_of_present
from pipeline.modelling.interface import CXR, EHR, Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import AttentionLayer, Dropout

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
        self, shapes: Shapes, *, layers: int = 2, bottlenecks: int = 4, span: int = 1, image: str = "cnn"
    ) -> None:
        super().__init__(shapes)
        if layers < 2:
            raise ValueError(f"layers: must be at least 2, or the modalities never meet; is {layers}")
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
        self.tokens = nn.Parameter(torch.randn(2, size.width) * 0.02)  # the class tokens of EHR and image
        self.value, self.time = _embed(size.width), _embed(size.width)
        self.kind = nn.Embedding(shapes.channels + 1, size.width)  # the last one is the image
        self.image = ImageEncoder(shapes) if image == "cnn" else nn.Conv2d(1, size.width, PATCH, PATCH)
        self.norms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(2))
        self.ehr_layers = nn.ModuleList(AttentionLayer(size) for _ in range(layers))
        self.image_layers = nn.ModuleList(AttentionLayer(size) for _ in range(layers))
        self.dropout = Dropout(size.dropout)
        self.head = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, shapes.outputs))

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
        known: Tensor = tokens + when + self.kind.weight[-1]
        return known

    def _stream(self, modality: int, tokens: Tensor) -> Tensor:
        """The class token before the tokens, which are normalised; those of an image then get their places."""
        tokens = self.norms[modality](tokens)
        if modality == CXR:
            tokens = tokens + sinusoids(tokens.shape[1], tokens.shape[2], tokens)
        first = self.tokens[modality].to(tokens.dtype).expand(len(tokens), 1, -1)
        stream: Tensor = self.dropout(torch.cat([first, tokens], dim=1))
        return stream

    def forward(self, batch: Batch) -> Output:
        """Logits from the class tokens, the mean of those that are there."""
        count = len(self.bottlenecks)
        tokens, real = self._ehr_tokens(batch)
        real = torch.cat([real.new_ones(batch.size, count + 1), real], dim=1)
        ehr, image = self._stream(EHR, tokens), self._stream(CXR, self._image_tokens(batch))
        shared = self.bottlenecks.to(ehr.dtype).expand(batch.size, -1, -1)
        for number, (record, picture) in enumerate(zip(self.ehr_layers, self.image_layers, strict=True), 1):
            first = count + 1 if number == len(self.ehr_layers) else None  # of the last layers, class tokens are read
            ehr = record(torch.cat([shared, ehr], dim=1), real, first)
            image = picture(torch.cat([shared[batch.image_sample], image], dim=1), None, first)
            shared = mean_of_present(ehr[:, :count], image[:, :count], batch)
            ehr, image = ehr[:, count:], image[:, count:]
        logits = mean_of_present(self.head(ehr[:, 0]), self.head(image[:, 0]), batch)
        return Output(logits + self.prior, features={"bottlenecks": shared})
