"""Before a run: the smallest gain in AUROC that a test set can show, and the positives that a margin would need.

Closed forms from the variance of an AUROC (Bamber 1975, Journal of Mathematical Psychology 12) for normal scores of
equal variance; of a paired difference by the correlation of the two (Hanley & McNeil 1983, Radiology 148). For one
opponent: a gain over two is somewhat harder to show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri, owens_t


@dataclass(frozen=True)
class Plan:
    """What is assumed: AUROC of either strategy, and how their estimates correlate on the same patients.

    `luck` is the variance that training gives a run, in multiples of what patients give the difference, `tests` the
    number of claims that the family-wise level is divided by.
    """

    auroc: float = 0.8
    correlation: float = 0.6
    runs: int = 1
    luck: float = 1.0
    confidence: float = 0.95
    power: float = 0.8
    tests: int = 1

    @property
    def errors(self) -> float:
        """The difference that is found with `power`, in standard errors."""
        return float(ndtri(self.power) - ndtri((1 - self.confidence) / 2 / self.tests))

    def factor(self) -> float:
        """Squared standard error of the difference per variance of one AUROC."""
        return 2 * (1 - self.correlation) * (1 + self.luck / self.runs)


def auroc_variance(auroc: float, positives: float, negatives: float) -> float:
    """Of the AUROC of a sample: [A (1 − A) + (m + n − 2) (Q − A²)] / (m n), see `_spread`."""
    inner = auroc * (1 - auroc) + (positives + negatives - 2) * _spread(auroc)
    return inner / (positives * negatives)


def smallest_detectable(positives: float, negatives: float, plan: Plan) -> float | None:
    """The smallest difference of AUROC that is shown with `plan.power`; None without positives or negatives."""
    if min(positives, negatives) < 1:
        return None
    return plan.errors * math.sqrt(plan.factor() * auroc_variance(plan.auroc, positives, negatives))


def positives_needed(margin: float, prevalence: float, plan: Plan) -> int:
    """How many positives a test set of that prevalence needs to show a difference of `margin`.

    With n = m (1 − p) / p negatives, m² n/m · (margin / errors)² = factor · (a + b m) is a quadratic equation in m.
    """
    spread = _spread(plan.auroc)
    odds = (1 - prevalence) / prevalence
    wanted = odds * (margin / plan.errors) ** 2 / plan.factor()
    level, slope = plan.auroc * (1 - plan.auroc) - 2 * spread, (1 + odds) * spread
    return math.ceil((slope + math.sqrt(slope**2 + 4 * wanted * level)) / (2 * wanted))


def _spread(auroc: float) -> float:
    """Q − A²: the variance of a stay's chance to be ranked rightly; the same for positives and for negatives.

    Q, that a positive lies above both of two negatives, is a bivariate normal probability with correlation 1/2, by
    Owen's T (1956): A − 2 T(z, 1/√3).
    """
    return auroc - 2 * float(owens_t(ndtri(auroc), 1 / math.sqrt(3))) - auroc**2
