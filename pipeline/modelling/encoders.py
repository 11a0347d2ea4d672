"""What all strategies share at a scale: EHR transformer and LSTM, the image CNN, the fill for no image.

Images: only those that are present go through the CNN; what stands in for an absent one is filled in after encoding.
GroupNorm from scratch, frozen BatchNorm with pretrained weights: a batch of 16 holds four images on average. Where a
frozen encoder's embeddings are seen instead of pixels, a trained projection of them takes the CNN's place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.modelling.embedded import Standardised
from pipeline.modelling.interface import EHR, Batch, Shapes
from pipeline.modelling.layers import Transformer
from pipeline.params import Encoders

STAGES = 5  # of the CNNs, the stem included


@dataclass(frozen=True)
class SeriesFeatures:
    """`pooled` [B, D], and what gives the tokens: of an LSTM's they are a tenth of a step, and many want none."""

    pooled: Tensor
    make_tokens: Callable[[], Tensor]

    @functools.cached_property
    def tokens(self) -> Tensor:
        """[B, T, D], one an hour; computed when they are first asked for."""
        return self.make_tokens()


@dataclass(frozen=True)
class ImageFeatures:
    """Of P present images: what gives a stage's maps, the grid's tokens of the last, and the pooled vector if apart.

    Computed when they are first asked for: of a frozen encoder's, many strategies want the pooled vector alone.
    """

    make_maps: Callable[[], list[Tensor]]
    make_tokens: Callable[[Tensor], Tensor]
    make_pooled: Callable[[], Tensor] | None = None

    @functools.cached_property
    def maps(self) -> list[Tensor]:
        """[P, Cs, Hs, Ws] of each stage."""
        return self.make_maps()

    @functools.cached_property
    def tokens(self) -> Tensor:
        """[P, Hs·Ws, D] of the last map."""
        return self.make_tokens(self.maps[-1])

    @functools.cached_property
    def pooled(self) -> Tensor:
        """[P, D]: the tokens' mean, but where an encoder has a pooled vector of its own."""
        return self.make_pooled() if self.make_pooled else self.tokens.mean(dim=1)


@dataclass(frozen=True)
class Events:
    """The observed cells of each record as a set, padded to the longest record of the batch (L ≥ 1).

    `time` [B, L]: hours / 48. `channel` [B, L] long: 0 to C − 1. `value` [B, L]: scaled, 1 for a category's entry.
    `real` [B, L] bool: false where padded.
    """

    time: Tensor
    channel: Tensor
    value: Tensor
    real: Tensor


def observed_cells(batch: Batch, shapes: Shapes) -> Tensor:
    """[B, T, C] bool: where a variable was charted in the hour; of a category, at the entry that was charted."""
    variable = torch.tensor(shapes.channel_variable, device=batch.ehr.device)
    one_hot = torch.tensor(shapes.one_hot, device=batch.ehr.device)
    return batch.observed[:, :, variable] & (~one_hot | (batch.ehr == 1))


def events(batch: Batch, shapes: Shapes) -> Events:
    """What was charted, hour by hour, and nothing that was filled in (Horn et al. 2020, arXiv 1909.12064)."""
    cells = observed_cells(batch, shapes)
    sample, hour, channel = torch.nonzero(cells, as_tuple=True)
    counts = cells.sum(dim=(1, 2))
    place = torch.arange(len(sample), device=cells.device) - (counts.cumsum(0) - counts)[sample]
    size = (batch.size, max(1, int(counts.max())))
    found = Events(
        time=batch.ehr.new_zeros(size),
        channel=torch.zeros(size, dtype=torch.long, device=cells.device),
        value=batch.ehr.new_zeros(size),
        real=torch.zeros(size, dtype=torch.bool, device=cells.device),
    )
    found.time[sample, place] = hour.to(batch.ehr.dtype) / shapes.hours
    found.channel[sample, place] = channel
    found.value[sample, place] = batch.ehr[sample, hour, channel]
    found.real[sample, place] = True
    return found


def series_channels(batch: Batch) -> Tensor:
    """[B, T, C + 2V]: values, observed, hours since observed."""
    return torch.cat([batch.ehr, batch.observed.to(batch.ehr.dtype), batch.since], dim=2)


class TransformerEncoder(nn.Module):
    """Linear embedding and learned positions, pre-norm transformer layers, mean over hours."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        size = shapes.encoders
        self.embed = nn.Linear(shapes.channels + 2 * shapes.variables, size.width)
        self.positions = nn.Parameter(torch.randn(shapes.hours, size.width) * 0.02)
        self.layers = Transformer(size)

    def forward(self, batch: Batch) -> SeriesFeatures:
        """Tokens and their mean."""
        tokens: Tensor = self.layers(self.embed(series_channels(batch)) + self.positions)
        return SeriesFeatures(tokens.mean(dim=1), lambda: tokens)


class LSTMEncoder(nn.Module):
    """Linear embedding, bidirectional LSTM; tokens are its projected outputs, pooled its projected last states."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        size = shapes.encoders
        self.embed = nn.Linear(shapes.channels + 2 * shapes.variables, size.width)
        self.lstm = nn.LSTM(size.width, size.width, size.layers, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(size.dropout)
        self.project = nn.Linear(2 * size.width, size.width)

    def forward(self, batch: Batch) -> SeriesFeatures:
        """Tokens hour by hour; the last state of each direction, pooled."""
        outputs, (states, _) = self.lstm(self.embed(series_channels(batch)))
        last = torch.cat([states[-2], states[-1]], dim=1)
        return SeriesFeatures(self.project(self.dropout(last)), lambda: self.project(self.dropout(outputs)))


def start_encoders(strategy: nn.Module, trained: Iterable[nn.Module]) -> list[str]:
    """Gives each shared encoder in `strategy` the weights of the one of its kind in `trained`; returns their names.

    One whose first stages were taken out gets those of the others. Raises RuntimeError where weights do not fit.
    """
    kinds = (TransformerEncoder, LSTMEncoder, ImageEncoder)
    ended = {type(each): each for model in trained for each in model.modules() if isinstance(each, kinds)}
    started = []
    for name, encoder in strategy.named_modules():
        source = ended.get(type(encoder)) if isinstance(encoder, kinds) else None
        if source is None:
            continue
        weights = source.state_dict()
        if isinstance(encoder, ImageEncoder) and isinstance(source, ImageEncoder):
            out = len(source.stages) - len(encoder.stages)
            places = {f"stages.{i + out}.": f"stages.{i}." for i in range(len(encoder.stages))}
            parts = {name: name for name in ("project.", "norm.", "frozen.")} | places
            weights = {
                here + key.removeprefix(there): value
                for key, value in weights.items()
                for there, here in parts.items()
                if key.startswith(there)
            }
        encoder.load_state_dict(weights)
        started.append(name)
    return started


def series_encoder(name: str, shapes: Shapes) -> TransformerEncoder | LSTMEncoder:
    """The shared encoder of that name, for strategies that let it be chosen. Raises ValueError for another name."""
    if name == "transformer":
        return TransformerEncoder(shapes)
    if name == "lstm":
        return LSTMEncoder(shapes)
    raise ValueError(f"series: must be transformer or lstm, is {name!r}")


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(8, channels // 2), channels)


class _Strided(nn.Conv2d):
    """A 1×1 convolution of every second pixel; on a CPU as the matrix product that it is, in 40 % of the time."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        x = x[:, :, ::2, ::2]
        weights = self.weight.flatten(1).expand(len(x), -1, -1)
        return torch.bmm(weights, x.flatten(2)).view(len(x), self.out_channels, *x.shape[2:])


class _Block(nn.Module):
    """Basic residual block (He et al. 2016), GroupNorm."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False),
            _group_norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            _group_norm(width),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1:
            self.skip = nn.Sequential(_Strided(width_in, width), _group_norm(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def _narrow(width: int) -> tuple[nn.ModuleList, list[int]]:
    """A ResNet-10 in small: stem and four stages of one block, widths w, 2w, 4w, 8w. For images of 16 to 64 px."""
    stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), _group_norm(width), nn.ReLU())
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    blocks = [_Block(widths[i], widths[i + 1], 1 if i == 0 else 2) for i in range(4)]
    return nn.ModuleList([stem, *blocks]), widths


def _torchvision(name: str, pretrained: str) -> tuple[nn.ModuleList, list[int]]:
    """A torchvision ResNet as stem and four stages."""
    import torchvision

    norm = _group_norm if pretrained == "none" else torchvision.ops.FrozenBatchNorm2d
    net = getattr(torchvision.models, name)(weights=None, norm_layer=norm)
    if pretrained != "none":
        net.load_state_dict({**_weights(name, pretrained), **{k: v for k, v in net.state_dict().items() if "fc." in k}})
    stages = [nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool), net.layer1, net.layer2, net.layer3, net.layer4]
    expansion = 4 if name == "resnet50" else 1
    return nn.ModuleList(stages), [64, *(expansion * width for width in (64, 128, 256, 512))]


def _weights(name: str, source: str) -> dict[str, Tensor]:
    """Image weights from a local file (.safetensors, or a .pth state dict) or by torchvision's name for them."""
    import torchvision

    path = Path(source)
    if path.suffix in (".safetensors", ".pth", ".pt"):
        if not path.is_file():
            raise InputError(f"training.pretrained: {source}: not found")
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    else:
        try:
            entry = torchvision.models.get_model_weights(name)[source]
        except KeyError:
            raise InputError(f"training.pretrained: {source!r} is neither a file nor weights of {name}") from None
        try:
            state = entry.get_state_dict(progress=True, check_hash=True)
        except OSError as error:
            raise InputError(
                f"training.pretrained: {source} of {name} cannot be downloaded ({error}); give a path instead"
            ) from None
    # Frozen BatchNorm keeps no batch counter; the classifier head is not used.
    return {
        key: value for key, value in state.items() if "num_batches_tracked" not in key and not key.startswith("fc.")
    }


def image_format(size: Encoders, device: torch.device) -> torch.memory_format:
    """The layout of a CNN's weights, which its maps follow: channels last where convolutions gain from it.

    On a CPU these are ResNet's; what the narrow CNN's gain, its GroupNorm loses.
    """
    return torch.channels_last if device.type == "cuda" or size.cnn != "narrow" else torch.contiguous_format


class ImageEncoder(nn.Module):
    """CNN stages as a list (`stages`), and projections to width D. Input: grey in [0, 1].

    Tokens are layer-normed, as the record's are, so that neither modality is louder where they meet. Of a frozen
    encoder's embeddings all stages are the last, and give its grid of tokens unchanged.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        size: Encoders = shapes.encoders
        self.grey = size.cnn == "narrow"
        self.frozen = Standardised(*shapes.embedding) if shapes.embedding else None
        if shapes.embedding:
            self.stages = nn.ModuleList(nn.Identity() for _ in range(STAGES))
            self.stage_widths = [shapes.embedding[1]] * STAGES
        elif size.cnn == "narrow":
            if shapes.pretrained != "none":
                raise InputError("training.pretrained: the narrow CNN has no pretrained weights; set none")
            self.stages, self.stage_widths = _narrow(size.cnn_width)
        else:
            self.stages, self.stage_widths = _torchvision(size.cnn, shapes.pretrained)
        self.project = nn.Linear(self.stage_widths[-1], size.width)
        self.norm = nn.LayerNorm(size.width)

    def normalise(self, images: Tensor) -> Tensor:
        """[P, 1, H, W] in [0, 1] to the CNN's input; torchvision's get three channels and ImageNet's moments.

        Embeddings [P, N, E] to the map of their tokens.
        """
        if self.frozen:
            return self.frozen.grid(images)
        if self.grey:
            return (images - 0.5) / 0.25
        mean = images.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        deviation = images.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        return (images.expand(-1, 3, -1, -1) - mean) / deviation

    def forward(self, images: Tensor) -> ImageFeatures:
        """Features of the P images; P may be 0."""
        frozen = self.frozen
        if not frozen:
            return self.encode(self.normalise(images))

        def maps() -> list[Tensor]:
            return [frozen.grid(images)] * len(self.stages)

        return ImageFeatures(maps, self.grid, lambda: self.norm(self.project(frozen(images))))

    def grid(self, maps: Tensor) -> Tensor:
        """Tokens [P, Hs·Ws, D] of the last stage's maps."""
        tokens: Tensor = self.norm(self.project(maps.flatten(2).transpose(1, 2)))
        return tokens

    def encode(self, x: Tensor) -> ImageFeatures:
        """Features of what `normalise` gives, or an earlier stage where the first ones were taken out of `stages`."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return ImageFeatures(lambda: maps, self.grid)


def fill_absent(pooled: Tensor, batch: Batch, absent: Tensor) -> Tensor:
    """[B, D]: the images' vectors [P, D] at their samples, the learned vector `absent` [D] elsewhere.

    The shared treatment of absent images for strategies that are declared `missing = "complete"`.
    """
    filled = absent.to(pooled.dtype).expand(batch.size, -1)
    return filled.index_copy(0, batch.image_sample, pooled)


class OverImages(nn.Module):
    """One vector a sample from those of its images: their mean by softmax of a learned score of vector and age.

    Age is the hours between an image and its sample's latest, over 48. The score begins at 0 for all, with the plain
    mean; of one image it is that image's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width + 1, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, pooled: Tensor, batch: Batch) -> Tensor:
        """[S, D] of the S samples with images, in their order, from vectors [P, D]."""
        spread, there = by_sample(pooled, batch)
        age, _ = by_sample(image_age(batch)[:, None], batch)
        score = self.score(torch.cat([spread, age.to(spread.dtype)], dim=2)).squeeze(2)
        weights = score.masked_fill(~there, -torch.inf).softmax(dim=1)
        mean: Tensor = (weights[:, None] @ spread).squeeze(1)
        return mean


def image_age(batch: Batch) -> Tensor:
    """[P]: hours / 48 between an image and the latest of its sample."""
    latest = batch.image_place == 0
    return batch.image_hours[latest][latest.cumsum(dim=0) - 1] - batch.image_hours


def by_sample(each: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """([S, k, …], bool [S, k]): what P images have [P, …], in places of the S samples with images; 0 where none is."""
    sample = (batch.image_place == 0).cumsum(dim=0) - 1
    most = int(batch.image_place.max()) + 1 if len(sample) else 1
    shape = int(sample[-1]) + 1 if len(sample) else 0, most
    at = sample, batch.image_place
    there = torch.zeros(shape, dtype=torch.bool, device=sample.device).index_put(at, torch.ones_like(sample) > 0)
    return each.new_zeros((*shape, *each.shape[1:])).index_put(at, each), there


def mean_of_present(ehr: Tensor, image: Tensor, batch: Batch) -> Tensor:
    """[B, …]: `ehr` [B, …] without an image, `image` [P, …] without a record, their mean where both are there."""
    rows = batch.image_sample
    share = 1 / (1 + batch.present[rows, EHR].to(ehr.dtype)).view(-1, *[1] * (ehr.ndim - 1))
    return ehr.index_copy(0, rows, torch.lerp(ehr[rows], image.to(ehr.dtype), share))


def even_tokens(series: SeriesFeatures, image: ImageFeatures, count: int) -> tuple[Tensor, Tensor]:
    """As many tokens of both, [B, count, D] and [P, count, D]: means of stretches of the hours, of parts of the grid.

    `count` is a square number.
    """
    hours = nn.functional.adaptive_avg_pool1d(series.tokens.transpose(1, 2), count).transpose(1, 2)
    grid = image.tokens.transpose(1, 2)
    side = math.isqrt(grid.shape[2])
    cells = nn.functional.adaptive_avg_pool2d(grid.unflatten(2, (side, side)), math.isqrt(count))
    return hours, cells.flatten(2).transpose(1, 2)
