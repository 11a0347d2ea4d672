"""What scikit-learn fits at once, instead of a descent: its base class, and the summary of a record that it sees.

A fitted strategy is a strategy like the others where it answers: its state is buffers (so its weights are safetensors,
without pickle), its `forward` torch. Shapes as in interface.py; F features of the summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.modelling.encoders import ImageEncoder, fill_absent
from pipeline.modelling.interface import CXR, Batch, Output, Shapes, Strategy

Array = np.ndarray[Any, Any]


def summary(batch: Batch, shapes: Shapes) -> Tensor:
    """[B, F] float32: of each variable's observed hours mean, last, min, max, slope (per 48 h) and count / 48.

    Of a category: the share of its observed hours that each entry has, the last entry, and the count. Values are scaled
    as in Batch.ehr, whose zero is the training median: it stands where nothing was observed.
    """
    variable = torch.tensor(shapes.channel_variable, device=batch.ehr.device)
    numeric = ~torch.tensor(shapes.one_hot, device=batch.ehr.device)
    value, seen = batch.ehr.double(), batch.observed[:, :, variable]
    hour = torch.arange(shapes.hours, device=value.device, dtype=value.dtype)[None, :, None]
    count = seen.sum(dim=1, keepdim=True)
    mean = (value * seen).sum(dim=1, keepdim=True) / count.clamp(min=1)
    last = value.gather(1, (hour * seen).argmax(dim=1, keepdim=True))
    low, high = value.masked_fill(~seen, torch.inf), value.masked_fill(~seen, -torch.inf)
    centred = (hour / shapes.hours - (hour / shapes.hours * seen).sum(dim=1, keepdim=True) / count.clamp(min=1)) * seen
    spread = centred.square().sum(dim=1, keepdim=True)
    slope = (centred * value).sum(dim=1, keepdim=True) / torch.where(count > 1, spread, 1.0)
    extremes = [low.amin(dim=1, keepdim=True), high.amax(dim=1, keepdim=True), slope]
    each = [mean, last, *(statistic[:, :, numeric] for statistic in extremes)]
    there = [count, count, *([count[:, :, numeric]] * 3)]
    filled = [torch.where(n > 0, statistic, 0.0) for statistic, n in zip(each, there, strict=True)]
    counts = batch.observed.double().mean(dim=1, keepdim=True)
    # Single precision: the order of sums must not decide on which side of a threshold a value falls.
    return torch.cat([*filled, counts], dim=2).squeeze(1).float()


def image_summary(encoder: ImageEncoder, batch: Batch) -> Tensor:
    """[B, D + 1] float32: the image's pooled vector, zeros where there is none, and whether there is one."""
    pooled = encoder(batch.images).pooled.float()
    vector = fill_absent(pooled, batch, pooled.new_zeros(pooled.shape[1]))
    return torch.cat([vector, batch.present[:, CXR, None].to(vector.dtype)], dim=1)


def features(shapes: Shapes) -> int:
    """F."""
    return 5 * shapes.channels - 3 * sum(shapes.one_hot) + shapes.variables


class Fitted(Strategy):
    """Base of the strategies that scikit-learn fits. A subclass has `learn` and `scores`; it has no `lr`.

    Fitted label by label, or to the classes at once; what training does not hold in both values gets the prior.
    """

    modalities: ClassVar[frozenset[str]] = frozenset({"ehr"})
    known: Tensor

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        self.register_buffer("known", torch.zeros(shapes.outputs, dtype=torch.bool))

    def summary(self, batch: Batch) -> Tensor:
        """[B, F] float32: what it is fitted to and asked about; the record's summary, unless a strategy adds to it."""
        return summary(batch, self.shapes)

    def learn(self, x: Array, y: Array, x_val: Array, y_val: Array, columns: Sequence[int]) -> None:
        """Fits one problem: classes `y` [n] (0, 1, …), all of them there; its scores are the outputs `columns`.

        One column for two classes (log-odds of the second), else one a class. Validation may be empty.
        """
        raise TypeError(f"{type(self).__name__} has no learn")

    def scores(self, x: Tensor) -> Tensor:
        """[B, K] of summaries [B, F]: logits, 0 in columns that were not learned."""
        raise TypeError(f"{type(self).__name__} has no scores")

    def fit(self, x: Array, targets: Array, x_val: Array, targets_val: Array) -> None:
        """Fits to summaries [n, F] and targets [n, labels]; what is chosen is chosen by the loss on validation.

        In one thread: parallelism is over runs.
        """
        import sklearn.utils  # noqa: F401 - loads the OpenMP whose threads are limited
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            if self.shapes.task.kind == "multiclass":
                self._fit_classes(x, targets[:, 0].astype(int), x_val, targets_val[:, 0].astype(int))
                return
            for label in range(targets.shape[1]):
                y, y_val = targets[:, label].astype(int), targets_val[:, label].astype(int)
                if len(np.unique(y)) == 2:
                    self.learn(x, y, x_val, y_val, [label])
                    self.known[label] = True

    def _fit_classes(self, x: Array, y: Array, x_val: Array, y_val: Array) -> None:
        classes = np.unique(y)
        if len(classes) < 2:
            return
        usable = np.isin(y_val, classes)
        codes, codes_val = np.searchsorted(classes, y), np.searchsorted(classes, y_val[usable])
        columns = classes if len(classes) > 2 else classes[1:]
        self.learn(x, codes, x_val[usable], codes_val, columns.tolist())
        self.known[torch.from_numpy(classes)] = True

    def forward(self, batch: Batch) -> Output:
        """Logits from the summary."""
        logits = self.scores(self.summary(batch))
        if self.shapes.task.kind == "multiclass":  # on the scale of the prior's: classes not seen keep theirs
            logits = logits.masked_fill(~self.known, -torch.inf).log_softmax(dim=1)
        return Output(torch.where(self.known, logits, self.prior.to(logits.dtype)).float())
