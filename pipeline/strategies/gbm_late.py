"""gbm_late: the trees of `gbm` for the record, a linear reading of the image, and one weight a label between them.

Paper: none (late fusion with the record's strongest baseline, so that what fusion loses on the record's own labels is
not a difference of encoders).
Idea: p = (1 - w) · p of the trees on the record + w · p of a ridge logistic regression on the frozen features of the
run of `resnet`; w has the lowest loss on the validation stays with an image, label by label.
Missing image: complete; the trees alone answer, in training and at inference.
Changed: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.modelling.fitted import Array, features
from pipeline.modelling.interface import Shapes
from pipeline.modelling.trees import TreesWithImage

SHARES = torch.linspace(0, 1, 21, dtype=torch.float64)


def log_probabilities(logits: Tensor) -> Tensor:
    """[n, classes] of logits [n, classes], or [n, 1] of two classes: log-odds of the second."""
    logits = torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits
    return logits.log_softmax(dim=1)


def blended(ehr: Tensor, cxr: Tensor, share: Tensor) -> Tensor:
    """log((1 - share) · exp(ehr) + share · exp(cxr))."""
    return torch.logaddexp(torch.log1p(-share) + ehr, share.log() + cxr)


class GBMLate(TreesWithImage):
    """Boosted trees on the record, blended with a linear reading of the image."""

    interaction = "additive"
    needs = ("resnet",)
    weight: Tensor
    bias: Tensor
    share: Tensor

    def __init__(self, shapes: Shapes, *, c: float = 0.01, **trees: Any) -> None:
        super().__init__(shapes, **trees)
        if not c > 0:
            raise ValueError(f"c must be above 0, is {c}")
        self.c = c
        double = torch.float64
        self.register_buffer("weight", torch.zeros(shapes.outputs, shapes.encoders.width, dtype=double))
        self.register_buffer("bias", torch.zeros(shapes.outputs, dtype=double))
        self.register_buffer("share", torch.zeros(shapes.outputs, dtype=double))  # of the image's logits

    def learn(self, x: Array, y: Array, x_val: Array, y_val: Array, columns: Sequence[int]) -> None:
        """Trees on the record; a linear model on the images that are there; their weight, on validation.

        The weight of the image is 0 where training holds one class alone among those with an image, or validation has
        no image.
        """
        from sklearn.linear_model import LogisticRegression

        record = features(self.shapes)
        super().learn(x[:, :record], y, x_val[:, :record], y_val, columns)
        seen, seen_val = x[:, -1] > 0, x_val[:, -1] > 0
        if set(y[seen]) != set(y) or not seen_val.any():
            return
        model = LogisticRegression(C=self.c, max_iter=1000).fit(x[seen, record:-1].astype(np.float64), y[seen])
        self.weight[columns] = torch.from_numpy(model.coef_).to(self.weight)
        self.bias[columns] = torch.from_numpy(model.intercept_).to(self.bias)
        truth = torch.from_numpy(y_val[seen_val])[:, None]
        halves = self.halves(torch.from_numpy(x_val[seen_val]))
        ehr, cxr = (log_probabilities(each[:, list(columns)]).gather(1, truth) for each in halves)
        losses = [-blended(ehr, cxr, share).mean() for share in SHARES]
        self.share[columns] = SHARES[int(torch.stack(losses).argmin())]

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] of the record's trees and of the image's linear model, float64."""
        record = features(self.shapes)
        return super().scores(x[:, :record]), x[:, record:-1].double() @ self.weight.T + self.bias

    def scores(self, x: Tensor) -> Tensor:
        """Logits of the blend where there is an image; of the trees elsewhere."""
        share = self.share * (x[:, -1:] > 0)
        ehr, cxr = self.halves(x)
        if self.shapes.task.kind == "multiclass":
            ehr, cxr = (each.masked_fill(~self.known, -torch.inf).log_softmax(dim=1) for each in (ehr, cxr))
            return blended(ehr, cxr, share)
        log = nn.functional.logsigmoid
        return blended(log(ehr), log(cxr), share) - blended(log(-ehr), log(-cxr), share)
