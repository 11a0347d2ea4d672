"""Length of stay in days: what class probabilities say in days, and by how much that misses."""

from __future__ import annotations

import numpy as np

from pipeline.estimation.bootstrap import Floats, SubjectDraws, quotient
from pipeline.estimation.metrics import Ints, weighted_sums
from pipeline.tasks import LOS_EDGES


def class_days(cap: float) -> Floats:
    """The middle of each class in days; the last one, open above, ends at `cap`: 2.5, 3.5, … 10.5, (14 + cap) / 2."""
    edges = np.array([*LOS_EDGES, cap])
    return np.asarray((edges[:-1] + edges[1:]) / 2)


def expected_days(probabilities: Floats, cap: float) -> Floats:
    """[n] from class probabilities [n, C]: the mean of the classes' middles."""
    return np.asarray(probabilities @ class_days(cap))


def mean_absolute_error(days: Floats, true: Floats, cap: float, rows: Ints, draws: SubjectDraws) -> Floats:
    """Mean absolute error in days, [1 + D]; true days beyond `cap` count as `cap` (winsorised). NaN without a stay."""
    misses = np.abs(days - np.minimum(true, cap))
    missed, total = weighted_sums(np.stack([misses, np.ones(len(true))], axis=1), rows, draws)
    return quotient(missed, total)
