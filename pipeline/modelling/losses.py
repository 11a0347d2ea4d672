"""Logits [B, K] against targets: losses of a batch, a sample, a label; probabilities; logits of priors, of means."""

from __future__ import annotations

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
    if kind == "multiclass":
        return torch.logaddexp(a.log_softmax(dim=1), b.log_softmax(dim=1))
    log = nn.functional.logsigmoid
    return torch.logaddexp(log(a), log(b)) - torch.logaddexp(log(-a), log(-b))


def prior_logits(targets: Tensor, task: Task) -> Tensor:
    """Logits [K] of the prevalences of training targets; a prevalence of 0 or 1 is moved inside by half a case."""
    n = len(targets)
    if task.kind == "multiclass":
        counts = torch.bincount(targets[:, 0].long(), minlength=len(task.outputs)).double().clamp(min=0.5)
        return torch.log(counts / counts.sum()).float()
    positives = targets.double().sum(dim=0).clamp(0.5, n - 0.5)
    return torch.log(positives / (n - positives)).float()
