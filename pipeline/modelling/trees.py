"""Gradient-boosted trees as a fitted strategy: scikit-learn grows them, torch walks down them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.modelling.encoders import ImageEncoder
from pipeline.modelling.fitted import Array, Fitted, image_summary, summary
from pipeline.modelling.interface import Batch, Earlier, Shapes


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


class Trees(Fitted):
    """Boosted trees on what `summary` tells; base of the strategies that are such."""

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
        if "cxr" in self.modalities:
            self.image = ImageEncoder(shapes).requires_grad_(requires_grad=False)

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


class TreesWithImage(Trees):
    """Trees whose summary goes on with frozen features of the image: those of the run of `resnet`, which it needs."""

    modalities = frozenset({"ehr", "cxr"})

    def learn_from(self, earlier: Mapping[str, Earlier]) -> None:
        """The encoder of the image's own run."""
        self.image.load_state_dict(earlier["resnet"].strategy.get_submodule("encoder").state_dict())

    def summary(self, batch: Batch) -> Tensor:
        """[B, F + D + 1]: the record's summary, the image's vector, and whether there is one."""
        return torch.cat([summary(batch, self.shapes), image_summary(self.image, batch)], dim=1)
