"""gbm: gradient-boosted trees on a summary of the 48 hours. EHR alone.

Paper: Friedman, Annals of Statistics 2001; with histograms as in LightGBM (Ke et al., NeurIPS 2017).
Idea: mean, last, min, max, slope and count of each variable; scikit-learn's HistGradientBoostingClassifier, as many
rounds as have the lowest loss on validation, label by label. Length of stay: a tree a class and round.
Missing image: never looks at one, in training or at inference.
Changed: fitted by scikit-learn, once; a seed changes nothing. Values are clipped as for every strategy, and a variable
that was never charted stands at the training median with count 0, not as a missing value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.modelling.fitted import Array, Fitted
from pipeline.modelling.interface import Shapes


def lay_out(nodes: Array, depth: int) -> tuple[Array, Array, Array]:
    """A tree of scikit-learn as a complete one: feature and threshold [2^depth - 1] of inner nodes, value [2^depth].

    Node i has the children 2i + 1 and 2i + 2; a leaf above the last level is repeated below itself.
    """
    place = np.zeros(2 ** (depth + 1) - 1, dtype=np.int64)
    for position in range(1, len(place)):
        parent = place[(position - 1) // 2]
        child = nodes["left" if position % 2 else "right"][parent]
        place[position] = parent if nodes["is_leaf"][parent] else child
    inner, leaves = place[: 2**depth - 1], place[2**depth - 1 :]
    return nodes["feature_idx"][inner], nodes["num_threshold"][inner], nodes["value"][leaves]


class GBM(Fitted):
    """Boosted trees as EHR baseline."""

    modalities = frozenset({"ehr"})
    interaction = "additive"
    baseline: Tensor
    feature: Tensor
    threshold: Tensor
    value: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        learning_rate: float = 0.1,
        max_iter: int = 200,
        max_depth: int = 4,
        min_samples_leaf: int = 20,
        l2: float = 1.0,
        patience: int = 20,
    ) -> None:
        super().__init__(shapes)
        if not (learning_rate > 0 and l2 >= 0):
            raise ValueError(f"learning_rate must be above 0 and l2 at least 0, are {learning_rate} and {l2}")
        if min(max_iter, max_depth, min_samples_leaf, patience) < 1 or max_depth > 10:
            raise ValueError("max_iter, max_depth (up to 10), min_samples_leaf and patience must be at least 1")
        self.learning_rate, self.max_iter, self.max_depth = learning_rate, max_iter, max_depth
        self.min_samples_leaf, self.l2, self.patience = min_samples_leaf, l2, patience
        trees, inner = (max_iter, shapes.outputs), 2**max_depth - 1
        self.register_buffer("baseline", torch.zeros(shapes.outputs, dtype=torch.float64))
        self.register_buffer("feature", torch.zeros(*trees, inner, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(*trees, inner, dtype=torch.float64))
        self.register_buffer("value", torch.zeros(*trees, inner + 1, dtype=torch.float64))

    def learn(self, x: Array, y: Array, x_val: Array, y_val: Array, columns: Sequence[int]) -> None:
        """Rounds up to the one with the lowest loss on validation; all where it is empty."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        stop = len(y_val) > 0
        model = HistGradientBoostingClassifier(
            learning_rate=self.learning_rate,
            max_iter=self.max_iter,
            max_depth=self.max_depth,
            max_leaf_nodes=None,
            min_samples_leaf=self.min_samples_leaf,
            l2_regularization=self.l2,
            early_stopping=stop,
            n_iter_no_change=self.patience,
            scoring="loss",
            random_state=0,
        ).fit(x, y, **({"X_val": x_val, "y_val": y_val} if stop else {}))
        rounds = int(np.argmax(model.validation_score_)) if stop else model.n_iter_  # the first score: of no round
        # No public name leads to the trees; a test holds them to predict_proba.
        self.baseline[columns] = torch.from_numpy(model._baseline_prediction.ravel()).to(self.baseline)
        for index, trees in enumerate(model._predictors[:rounds]):
            for column, tree in zip(columns, trees, strict=True):
                feature, threshold, value = map(torch.from_numpy, lay_out(tree.nodes, self.max_depth))
                self.feature[index, column] = feature.to(self.feature)
                self.threshold[index, column] = threshold.to(self.threshold)
                self.value[index, column] = value.to(self.value)

    def scores(self, x: Tensor) -> Tensor:
        """The baseline and the sum of the trees' leaves; all trees are walked down at once."""
        x, inner = x.double(), self.feature.shape[2]
        feature, threshold = self.feature.reshape(-1).long(), self.threshold.reshape(-1)
        root = torch.arange(self.value.shape[0] * self.value.shape[1], device=x.device)[None]
        node = root.new_zeros((len(x), root.shape[1]))
        for _ in range(self.max_depth):
            cell = root * inner + node
            node = 2 * node + 1 + (x.gather(1, feature[cell]) > threshold[cell]).long()
        leaves = self.value.reshape(-1)[root * (inner + 1) + node - inner]
        scores: Tensor = self.baseline + leaves.unflatten(1, self.value.shape[:2]).sum(dim=1)
        return scores
