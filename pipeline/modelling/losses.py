"""Logits [B, K] against targets: losses of a batch, a sample, a label; probabilities; logits of priors, of means."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.tasks import Task


def task_loss(logits: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Mean cross-entropy (multiclass: targets [B, 1], class numbers) or binary cross-entropy (targets [B, K])."""
    if task.kind == "multiclass":
        return nn.functional.cross_entropy(logits, targets[:, 0].long())
    return nn.functional.binary_cross_entropy_with_logits(logits, targets)


def sample_losses(logits: Tensor, targets: Tensor, task: Task) -> Tensor:
    """[B]: each sample's own task loss, the mean over its labels; for losses that some samples are left out of."""
    if task.kind == "multiclass":
        return nn.functional.cross_entropy(logits, targets[:, 0].long(), reduction="none")
    return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


def element_losses(logits: Tensor, targets: Tensor, kind: str) -> Tensor:
    """Losses [B, K] a label, or [B, 1] of the class; exp(-loss) is the probability given to the truth."""
    if kind == "multiclass":
        return nn.functional.cross_entropy(logits, targets[:, 0].long(), reduction="none")[:, None]
    return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values [B] where bool [B] is true; 0 where it nowhere is, so that a batch without an image has a loss."""
    return (values * where).sum() / where.sum().clamp(min=1)


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """The only place where logits become probabilities, in float64: softmax rows for multiclass, sigmoids otherwise."""
    logits = logits.double()
    return torch.softmax(logits, dim=1) if task.kind == "multiclass" else torch.sigmoid(logits)


def truth(logits: Tensor, targets: Tensor, kind: str) -> Tensor:
    """[B]: the probability that logits give to what is true; its mean over the labels."""
    if kind == "multiclass":
        return torch.softmax(logits, dim=1).gather(1, targets[:, :1].long()).squeeze(1)
    return torch.sigmoid(torch.where(targets > 0.5, logits, -logits)).mean(dim=1)


def mean_logits(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """[B, K]: logits of the mean of the probabilities of `a` and `b`, which may be as good as 0 or 1."""
    return logits_of_mean((a, b), kind)


def logits_of_mean(logits: Sequence[Tensor], kind: str) -> Tensor:
    """[B, K]: logits of the mean of the probabilities of several, in float32: a small difference is told."""
    several = [each.float() for each in logits]
    if kind == "multiclass":
        return functools.reduce(torch.logaddexp, (each.log_softmax(dim=1) for each in several))
    log = nn.functional.logsigmoid
    yes, no = (functools.reduce(torch.logaddexp, (log(sign * each) for each in several)) for sign in (1, -1))
    return yes - no


def divergence(a: Tensor, b: Tensor, kind: str = "multilabel") -> Tensor:
    """[B]: Jensen-Shannon divergence, in nats, of what logits [B, K] say: of the class, or summed over the labels."""
    a, b = a.float(), b.float()
    middle = mean_logits(a, b, kind)

    def to_middle(x: Tensor) -> Tensor:
        if kind == "multiclass":
            return (x.softmax(dim=1) * (x.log_softmax(dim=1) - middle.log_softmax(dim=1))).sum(dim=1)
        p, log = torch.sigmoid(x), nn.functional.logsigmoid
        return (p * (log(x) - log(middle)) + (1 - p) * (log(-x) - log(-middle))).sum(dim=1)

    return 0.5 * (to_middle(a) + to_middle(b))


def prior_logits(targets: Tensor, task: Task) -> Tensor:
    """Logits [K] of the prevalences of training targets; a prevalence of 0 or 1 is moved inside by half a case."""
    n = len(targets)
    if task.kind == "multiclass":
        counts = torch.bincount(targets[:, 0].long(), minlength=len(task.outputs)).double().clamp(min=0.5)
        return torch.log(counts / counts.sum()).float()
    positives = targets.double().sum(dim=0).clamp(0.5, n - 0.5)
    return torch.log(positives / (n - positives)).float()
