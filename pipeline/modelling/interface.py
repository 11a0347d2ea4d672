"""What a strategy is, what it is given and what it returns: all that the loop (pipeline.training.loop) knows of it.

Shapes: B batch, T = 48 hours, C channels, V variables, D width, P images present in the batch (0 to B; to B · k where
a strategy reads every image of up to k a stay), K logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.modelling.losses import task_loss
from pipeline.params import Encoders
from pipeline.tasks import Task

EHR, CXR = 0, 1  # columns of Batch.present


@dataclass(frozen=True)
class Shapes:
    """What a strategy is built from.

    `channel_variable` names the variable of each channel of Batch.ehr: a category has a channel an entry of its
    vocabulary, every other variable one. `pretrained` is training.pretrained (none, a torchvision name, a path).
    `stays` is the number of stays in the data, so that Batch.index < stays: a buffer may hold something of each.
    `images` is k, how many a stay may have in a batch of who reads every image.
    `embedding`: where Batch.images are a frozen encoder's embeddings, the side S of their grid and their width E.
    """

    task: Task
    hours: int
    channel_variable: tuple[int, ...]
    px: int
    encoders: Encoders
    pretrained: str = "none"
    stays: int = 512
    images: int = 1
    embedding: tuple[int, int] | None = None

    @property
    def channels(self) -> int:
        """C."""
        return len(self.channel_variable)

    @property
    def variables(self) -> int:
        """V."""
        return max(self.channel_variable) + 1

    @property
    def one_hot(self) -> tuple[bool, ...]:
        """Of each channel, whether it is an entry of a category."""
        return tuple(self.channel_variable.count(variable) > 1 for variable in self.channel_variable)

    @property
    def image(self) -> tuple[int, ...]:
        """One image in Batch.images: [1, px, px], or [N, E] of embeddings, the pooled vector and the grid's."""
        if self.embedding is None:
            return 1, self.px, self.px
        side, width = self.embedding
        return 1 + side**2, width

    @property
    def outputs(self) -> int:
        """K, the number of logits."""
        return len(self.task.outputs)


@dataclass(frozen=True)
class Batch:
    """What `forward` sees: no labels. Images that are absent, by nature or by removal, are not in it at all."""

    ehr: Tensor  # [B, T, C] float: filled, scaled, clipped
    observed: Tensor  # [B, T, V] bool
    since: Tensor  # [B, T, V] float: hours since last observed / 48
    images: Tensor  # [P, 1, px, px] float in [0, 1]; embeddings: [P, N, E] half, modelling.embedded
    image_sample: Tensor  # [P] long, ascending: which sample each image belongs to
    image_place: Tensor  # [P] long: 0 the latest of its sample, and so on back; all 0 but for who reads every image
    image_hours: Tensor  # [P] float: hours from intime / 48
    image_view: Tensor  # [P] long: 0 AP, 1 PA
    image_count: Tensor  # [P] long: how many images of the stay were eligible, this one included
    present: Tensor  # [B, 2] bool: EHR, CXR
    index: Tensor  # [B] long: position of the stay in the data

    @property
    def size(self) -> int:
        """B."""
        return int(self.ehr.shape[0])

    @property
    def heard(self) -> Tensor:
        """`present`, but where nothing at all is there the record counts as present: its medians speak."""
        return torch.stack([self.present[:, EHR] | ~self.present[:, CXR], self.present[:, CXR]], dim=1)


@dataclass(frozen=True)
class Output:
    """Logits [B, K], never probabilities; and what `losses` needs of the forward pass, by name.

    `unimodal`: logits of single branches; `features`: everything else (embeddings, gates, …). Who imputes a missing
    image from the record says so in features["imputed"], [B, D]: the images' vectors that the answer is made of, its
    own where there is an image, the imputed one elsewhere. `check_strategy` then asks that it varies with the record.
    """

    logits: Tensor
    unimodal: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """Where training stands: `done` of at most `count` epochs; `batches()` yields the training stays with targets.

    They come in the order of the data, not augmented, images removed as in training; a strategy that needs none of them
    costs nothing.
    """

    done: int
    count: int
    batches: Callable[[], Iterable[tuple[Batch, Tensor]]]


class Stretch(NamedTuple):
    """A step's `number`, from 0, its `first` epoch, and the `end`, which is the first of the next."""

    number: int
    first: int
    end: int


def stretch(done: int, count: int, steps: int) -> Stretch:
    """Of `steps` equal stretches of `count` epochs, at least one each, that of the next after `done`; then the last."""
    number = min(done * steps // count, steps - 1)
    first, end = (-(-step * count // steps) for step in (number, number + 1))
    return Stretch(number, first, end)


class Earlier(NamedTuple):
    """A finished run that another one needs: its trained strategy, in eval mode, and its logits [N, K] of all stays.

    Stays are in the order of the data (Batch.index); the logits are made when asked for.
    """

    strategy: Strategy
    logits: Callable[[], Tensor]


class Strategy(nn.Module):
    """Base of all strategies. A subclass takes `shapes` and keyword-only hyper-parameters, whose names are its knobs.

    `modalities`: what it looks at. A fusion strategy: `ehr` and `cxr`; a unimodal one: one of them; a control, which
    sees no pixel: `ehr` with `presence` (whether there is an image) and `metadata` (its hour, view and number).
    `missing`: `native` (an own mechanism for absent images) or `complete` (given the shared treatment,
    encoders.fill_absent). `interaction`: `additive` (logits are a sum over modalities) or `joint`. `needs`: strategies
    whose runs of the same task, cohort, fold and seed are made before, and handed to `learn_from`. `wraps`: the knob
    that names another strategy, which this one is built around; it needs what that one needs. `steps`: in how many
    steps it learns one thing after another, each in a `stretch` of the epochs with a learning rate of its own. With
    more than one, training does not stop early and the last epoch counts; what it answers after each step is filed.
    `every_image`: its batches hold all images that a stay has (params.images.per_stay), where others' hold the latest.
    """

    modalities: ClassVar[frozenset[str]] = frozenset({"ehr", "cxr"})
    missing: ClassVar[Literal["native", "complete"]] = "complete"
    interaction: ClassVar[Literal["additive", "joint"]] = "joint"
    needs: ClassVar[tuple[str, ...]] = ()
    wraps: ClassVar[str] = ""
    steps: int = 1
    every_image: ClassVar[bool] = False
    prior: Tensor

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = shapes
        self.register_buffer("prior", torch.zeros(shapes.outputs))

    def forward(self, batch: Batch) -> Output:
        """Logits for every sample of the batch."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Named losses, already weighted; their sum is minimised. `task` alone enters model selection."""
        return {"task": task_loss(output.logits, targets, self.shapes.task)}

    def between_epochs(self, epoch: Epoch) -> None:
        """Called in eval mode and without gradients before the first epoch and after each, before its validation.

        For what is fitted to the training stays (prototypes, a bank of latents), counted or scheduled. What it changes
        must be parameters or buffers: a run is resumed from these alone.
        """

    def draw(self, rows: Tensor, rng: np.random.Generator) -> Tensor:
        """The training stays of an epoch, in order: as many as `rows` [n], by default each of them once.

        `rng` belongs to the epoch. What else the choice depends on must be parameters or buffers. Repeats are allowed.
        """
        return rows[torch.from_numpy(rng.permutation(len(rows))).to(rows.device)]

    def diagnostics(self) -> dict[str, float]:
        """What history.csv is to show of an epoch beside losses and scores, asked after `between_epochs`."""
        return {}

    def after_backward(self) -> None:
        """Called once a step, when all gradients are there, before they are clipped."""

    def learn_from(self, earlier: Mapping[str, Earlier]) -> None:
        """Called once before training with the runs that it needs, by name.

        A strategy is built, loaded and asked without it: what answers depend on must be parameters or buffers.
        """

    def waiting(self) -> Iterable[nn.Parameter]:
        """Parameters that no answer uses yet. They have no gradient, so that each is new to the optimiser in its turn.

        AdamW's second moment would be that of the zeros before, and its first steps several times the learning rate.
        """
        return ()

    def set_prior(self, prior: Tensor) -> None:
        """Called once before training with the training prevalences' logits [K]: the answer where nothing is known."""
        self.prior.copy_(prior)
