"""The validation metric that selects a run's epoch: average precision, or accuracy for length of stay.

A file of its own, in NumPy alone: what evaluation computes may change without every run being made anew, and importing
scikit-learn would cost each cell a second. Tests hold it to scikit-learn's values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.tasks import Task

Array = np.ndarray[Any, Any]


def average_precisions(truth: Array, scores: Array) -> list[float | None]:
    """Σ (recall step × precision) over distinct scores, best first, of each column of truth and scores [n, labels].

    None without a positive or without a negative. It is the mean over the positives of the precision at their score.
    """
    n = len(truth)
    order = np.argsort(-scores, axis=0, kind="stable")
    truth, scores = (np.take_along_axis(each, order, axis=0) for each in (truth > 0, scores))
    places = np.arange(n)[:, None]
    ends = np.where(np.append(scores[1:] != scores[:-1], np.ones_like(truth[:1]), axis=0), places, n)
    ends = np.minimum.accumulate(ends[::-1], axis=0)[::-1]  # of each, the last place of an equal score
    precision = np.take_along_axis(np.cumsum(truth, axis=0), ends, axis=0) / (ends + 1)
    positives = truth.sum(axis=0)
    sums = np.where(truth, precision, 0.0).sum(axis=0)
    return [float(s / k) if 0 < k < n else None for s, k in zip(sums, positives, strict=True)]


def monitor_score(task: Task, targets: Array, p: Array) -> float | None:
    """The task's `monitor` from targets [n, labels] and probabilities [n, outputs]; None where it is not estimable.

    Several labels: the mean over those that are estimable.
    """
    if task.monitor == "accuracy":
        return float((p.argmax(axis=1) == targets[:, 0]).mean()) if len(p) else None
    known = [score for score in average_precisions(targets, p) if score is not None]
    return sum(known) / len(known) if known else None
