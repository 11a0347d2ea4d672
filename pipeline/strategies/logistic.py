"""logistic: logistic regression on a summary of the 48 hours. EHR alone.

Paper: none (the plain baseline of clinical prediction; Harutyunyan et al. 2019, arXiv 1703.07771, fit it to such a
summary).
Idea: mean, last, min, max, slope and count of each variable, standardised on training; ridge penalty, its strength
chosen by the loss on validation, label by label. Length of stay: one softmax.
Missing image: never looks at one, in training or at inference.
Changed: fitted by scikit-learn (L-BFGS), once; a seed changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.modelling.fitted import Array, Fitted, features
from pipeline.modelling.interface import Shapes


class Logistic(Fitted):
    """Linear EHR baseline."""

    modalities = frozenset({"ehr"})
    interaction = "additive"
    centre: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, shapes: Shapes, *, c: Sequence[float] = (0.0001, 0.001, 0.01, 0.1, 1.0)) -> None:
        super().__init__(shapes)
        if not c or min(c) <= 0:
            raise ValueError(f"c must be a list of numbers above 0, is {list(c)}")
        self.c = sorted(c)
        size, double = features(shapes), torch.float64
        self.register_buffer("centre", torch.zeros(size, dtype=double))
        self.register_buffer("spread", torch.ones(size, dtype=double))
        self.register_buffer("weight", torch.zeros(shapes.outputs, size, dtype=double))
        self.register_buffer("bias", torch.zeros(shapes.outputs, dtype=double))

    def fit(self, x: Array, targets: Array, x_val: Array, targets_val: Array) -> None:
        """Standardises, then fits each problem."""
        centre, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        spread[spread == 0] = 1.0
        self.centre.copy_(torch.from_numpy(centre))
        self.spread.copy_(torch.from_numpy(spread))
        super().fit((x - centre) / spread, targets, (x_val - centre) / spread, targets_val)

    def learn(self, x: Array, y: Array, x_val: Array, y_val: Array, columns: Sequence[int]) -> None:
        """The penalty with the lowest loss on validation; the strongest where it is empty."""
        from sklearn.linear_model import LogisticRegression

        lowest = np.inf
        for c in self.c if len(y_val) else self.c[:1]:
            model = LogisticRegression(C=c, max_iter=1000).fit(x, y)
            loss = -model.predict_log_proba(x_val)[np.arange(len(y_val)), y_val].mean() if len(y_val) else 0.0
            if loss < lowest:
                best, lowest = model, loss
        self.weight[columns] = torch.from_numpy(best.coef_).to(self.weight)
        self.bias[columns] = torch.from_numpy(best.intercept_).to(self.bias)

    def scores(self, x: Tensor) -> Tensor:
        """Linear in the standardised summary."""
        return (x.double() - self.centre) / self.spread @ self.weight.T + self.bias
