"""The rule of verdicts: its three words, its order, its bounds."""

import numpy as np
import pytest

from pipeline.estimation.verdicts import judged, verdict
from pipeline.params import Verdicts

RULE = Verdicts(margin=0.01, confidence=0.95, equivalence_confidence=0.9, permutations=10, control_auroc=0.7)


@pytest.mark.parametrize(
    ("bounds", "passed", "found"),
    [
        ((0.001, 0.002, 0.05), True, "gain"),
        ((0.001, 0.002, 0.008), False, "gain"),  # above 0, however small
        ((0.0, 0.002, 0.05), True, "undetermined"),
        ((-0.012, -0.01, 0.01), True, "no gain"),
        ((-0.012, -0.01, 0.01), False, "undetermined"),  # the encoder may have learned nothing
        ((-0.012, -0.0101, 0.005), True, "undetermined"),
        ((-0.008, -0.005, 0.0101), True, "undetermined"),
        ((-0.09, -0.08, -0.05), True, "undetermined"),  # harm is no gain, but not within the margin either
        ((None, None, None), True, None),
    ],
)
def test_the_rule(bounds, passed, found):
    assert verdict(*bounds, RULE.margin, passed) == found


def test_draws_are_judged_by_the_interval_of_a_difference():
    draws = np.concatenate([[0.02], np.linspace(-0.01, 0.05, 201)])
    found = judged(draws, RULE, control_passed=True)
    assert found["difference"] == 0.02
    spread = draws[1:].std(ddof=1)
    assert (found["low"], found["high"]) == pytest.approx((0.02 - 1.959964 * spread, 0.02 + 1.959964 * spread))
    narrow = (0.02 - 1.644854 * spread, 0.02 + 1.644854 * spread)
    assert (found["equivalence_low"], found["equivalence_high"]) == pytest.approx(narrow)
    assert found["verdict"] == "undetermined"


def test_what_is_not_estimable_has_no_verdict():
    empty = dict.fromkeys(("difference", "low", "high", "equivalence_low", "equivalence_high", "verdict"))
    assert judged(np.full(20, np.nan), RULE, control_passed=True) == empty
    assert judged(np.zeros(20), RULE, control_passed=True) == {**empty, "difference": 0.0}
