"""The validation metric that selects a run's epoch: average precision, or accuracy for length of stay.

A file of its own, in NumPy alone: what evaluation computes may change without every run being made anew, and importing
scikit-learn would cost each cell a second. Tests hold it to scikit-learn's values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.tasks import Task

Array = np.ndarray[Any, Any]


def average_precision(truth: Array, scores: Array) -> float | None:
    """Σ (recall step × precision) over distinct scores, best first; None without a positive or without a negative."""
    positives = int(truth.sum())
    if positives == 0 or positives == len(truth):
        return None
    order = np.argsort(-scores, kind="stable")
    truth, scores = truth[order] > 0, scores[order]
    ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # the last of each group of equal scores
    found = np.cumsum(truth)[ends]
    precision = found / (ends + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / positives)


def monitor_score(task: Task, targets: Array, p: Array) -> float | None:
    """The task's `monitor` from targets [n, labels] and probabilities [n, outputs]; None where it is not estimable.

    Several labels: the mean over those that are estimable.
    """
    if task.monitor == "accuracy":
        return float((p.argmax(axis=1) == targets[:, 0]).mean()) if len(p) else None
    found = [average_precision(targets[:, i], p[:, i]) for i in range(targets.shape[1])]
    known = [score for score in found if score is not None]
    return sum(known) / len(known) if known else None
