"""Decision curves: what acting on a prediction is worth at each threshold, against acting on everyone or no one.

Net benefit at threshold t is TP/n − FP/n · t/(1 − t): true positives, less false ones at the odds at which somebody who
acts from probability t on trades one for the other (Vickers & Elkin 2006, Medical Decision Making 26).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.estimation.bootstrap import Floats, SubjectDraws, quotient
from pipeline.estimation.metrics import Bools, Ints, weighted_sums

THRESHOLDS = tuple(percent / 100 for percent in range(1, 51))


def net_benefit(
    scores: Floats, labels: Bools, rows: Ints, draws: SubjectDraws, thresholds: Sequence[float] = THRESHOLDS
) -> Floats:
    """[T, 1 + D], a row for each of `thresholds`, of acting where `score >= threshold`; NaN without a stay.

    Acting on everyone is what scores of 1 give; acting on no one gives 0.
    """
    at = np.array(thresholds)
    value = np.where(labels[:, None], 1.0, -at / (1 - at)) * (scores[:, None] >= at)
    sums = weighted_sums(np.concatenate([value, np.ones((len(scores), 1))], axis=1), rows, draws)
    return quotient(sums[:-1], np.broadcast_to(sums[-1], sums[:-1].shape))
