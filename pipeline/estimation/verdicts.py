"""The rule by which a difference becomes a verdict. It is fixed in params before the run, and looks at nothing else.

gain: the lower bound of the interval is above 0. no gain: the smaller interval lies within ± margin (two one-sided
tests: Schuirmann 1987), and the image encoder has passed the positive control, so that it could have shown a gain.
Everything else is undetermined.
"""

from __future__ import annotations

from pipeline.estimation.bootstrap import Floats, difference_interval
from pipeline.params import Verdicts

GAIN, NO_GAIN, UNDETERMINED = "gain", "no gain", "undetermined"


def verdict(
    low: float | None,
    equivalence_low: float | None,
    equivalence_high: float | None,
    margin: float,
    control_passed: bool,
) -> str | None:
    """The verdict from the interval's lower bound and the smaller interval; None where they are not estimable."""
    if low is None or equivalence_low is None or equivalence_high is None:
        return None
    if low > 0:
        return GAIN
    if control_passed and -margin <= equivalence_low and equivalence_high <= margin:
        return NO_GAIN
    return UNDETERMINED


def judged(draws: Floats, rule: Verdicts, control_passed: bool) -> dict[str, float | str | None]:
    """difference, low, high, equivalence_low, equivalence_high, verdict of a difference's draws [1 + D]."""
    low, high = difference_interval(draws, rule.confidence)
    equivalence_low, equivalence_high = difference_interval(draws, rule.equivalence_confidence)
    return {
        "difference": None if draws[0] != draws[0] else float(draws[0]),
        "low": low,
        "high": high,
        "equivalence_low": equivalence_low,
        "equivalence_high": equivalence_high,
        "verdict": verdict(low, equivalence_low, equivalence_high, rule.margin, control_passed),
    }
