"""What a strategy is, what it is given and what it returns: all that the loop (pipeline.training.loop) knows of it.

Shapes: B batch, T = 48 hours, C channels, V variables, D width, P images present in the batch (0 to B), K logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.params import Encoders
from pipeline.tasks import Task

EHR, CXR = 0, 1  # columns of Batch.present


@dataclass(frozen=True)
class Shapes:
    """What a strategy is built from; `pretrained` is training.pretrained (none, a torchvision name, a path)."""

    task: Task
    hours: int
    channels: int
    variables: int
    px: int
    encoders: Encoders
    pretrained: str = "none"

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
    images: Tensor  # [P, 1, px, px] float in [0, 1]
    image_sample: Tensor  # [P] long: which sample each image belongs to
    image_hours: Tensor  # [P] float: hours from intime / 48
    present: Tensor  # [B, 2] bool: EHR, CXR
    index: Tensor  # [B] long: position of the stay in the data

    @property
    def size(self) -> int:
        """B."""
        return int(self.ehr.shape[0])


@dataclass(frozen=True)
class Output:
    """Logits [B, K], never probabilities; logits of single branches by name, for the histories and auxiliary losses."""

    logits: Tensor
    unimodal: dict[str, Tensor] = field(default_factory=dict)


def task_loss(logits: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Mean cross-entropy (multiclass: targets [B, 1], class numbers) or binary cross-entropy (targets [B, K])."""
    if task.kind == "multiclass":
        return nn.functional.cross_entropy(logits, targets[:, 0].long())
    return nn.functional.binary_cross_entropy_with_logits(logits, targets)


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """The only place where logits become probabilities, in float64: softmax rows for multiclass, sigmoids otherwise."""
    logits = logits.double()
    return torch.softmax(logits, dim=1) if task.kind == "multiclass" else torch.sigmoid(logits)


class Strategy(nn.Module):
    """Base of all strategies. A subclass takes `shapes` and keyword-only hyper-parameters, whose names are its knobs.

    `modalities`: what it looks at. `missing`: `native` (an own mechanism for absent images) or `complete`
    (given the shared treatment, encoders.fill_absent). `interaction`: `additive` (logits are a sum over modalities)
    or `joint`.
    """

    modalities: ClassVar[frozenset[str]] = frozenset({"ehr", "cxr"})
    missing: ClassVar[Literal["native", "complete"]] = "complete"
    interaction: ClassVar[Literal["additive", "joint"]] = "joint"
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

    def set_prior(self, prior: Tensor) -> None:
        """Called once before training with the training prevalences' logits [K]: the answer where nothing is known."""
        self.prior.copy_(prior)


def prior_logits(targets: Tensor, task: Task) -> Tensor:
    """Logits [K] of the prevalences of training targets; a prevalence of 0 or 1 is moved inside by half a case."""
    n = len(targets)
    if task.kind == "multiclass":
        counts = torch.bincount(targets[:, 0].long(), minlength=len(task.outputs)).double().clamp(min=0.5)
        return torch.log(counts / counts.sum()).float()
    positives = targets.double().sum(dim=0).clamp(0.5, n - 0.5)
    return torch.log(positives / (n - positives)).float()
