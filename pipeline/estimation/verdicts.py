"""The rule by which differences become verdicts: seven words. It is fixed in params before the run.

A strategy is held against its opponents (the best on the record alone, the best on the image alone). What it gains is a
matter of both (intersection–union: Berger 1982, Technometrics 24), what it loses of either. Gains and losses are said
by bounds that hold over the family at once (pipeline.estimation.simultaneous), each side at (1 − confidence) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pipeline.estimation.simultaneous import Bound, Member, bounds, turned
from pipeline.estimation.variance import moderated
from pipeline.params import Verdicts

GAINS, LOSES, EQUIVALENT = "gains", "loses", "equivalent"
NO_RELEVANT_GAIN, NO_RELEVANT_LOSS = "no relevant gain", "no relevant loss"
UNDETERMINED, NOT_TESTABLE = "undetermined", "not testable"
WORDS = (GAINS, LOSES, EQUIVALENT, NO_RELEVANT_GAIN, NO_RELEVANT_LOSS, UNDETERMINED, NOT_TESTABLE)


@dataclass(frozen=True)
class Case:
    """A strategy on one label: its differences to its opponents, and what bears on whether they can be judged.

    `positives` are the test stays with the rarer outcome (None: not a matter of positives), `control_passed` whether
    the strategy is known to use images.
    """

    opponents: tuple[Member, ...]
    metric: str
    positives: int | None
    control_passed: bool


class Judgement(NamedTuple):
    """A verdict, whether it goes beyond the margin (gains, loses), and what it was read off.

    `low` is the family-wise lower bound of the difference that is the least surely a gain, `high` the upper one of that
    which is the most surely a loss; `gain_p`, `loss_p` are adjusted for the family. NaN: not testable, or equivalent
    since it does just what an opponent does (a blend whose weight for the image is 0).
    """

    word: str
    beyond: bool
    low: float
    high: float
    gain_p: float
    loss_p: float


class Side(NamedTuple):
    """A gain or a loss of one case, adjusted for the family: over 0, and over the margin."""

    some: Bound
    much: Bound


def judge(cases: Sequence[Case], rule: Verdicts, seed: int) -> list[Judgement]:
    """The verdicts of a family, in its order.

    The family of gains has a member a case, the opponent over which a gain is the least sure; that of losses a member a
    case and opponent. Family-wise error: at most (1 − confidence) / 2 each. "By more than the margin" is a family of
    its own, at the same level. The differences' runs tell of luck together (`variance.moderated`).
    """
    cases = _moderated(cases)
    testable = [case for case in cases if _testable(case, rule)]
    gains = _adjusted([[_least(case)] for case in testable], testable, rule, seed)
    losses = _adjusted([[turned(each) for each in case.opponents] for case in testable], testable, rule, seed)
    sides = iter(zip(gains, losses, strict=True))
    found = []
    for case in cases:
        if not _testable(case, rule):
            word = EQUIVALENT if _enough(case, rule) and any(map(_alike, case.opponents)) else NOT_TESTABLE
            found.append(Judgement(word, False, *[float("nan")] * 4))
            continue
        gain, loss = next(sides)
        word, beyond = verdict(case, gain, loss, rule)
        found.append(Judgement(word, beyond, gain.some.bound, -loss.some.bound, gain.some.p, loss.some.p))
    return found


def verdict(case: Case, gain: Side, loss: Side, rule: Verdicts) -> tuple[str, bool]:
    """(word, whether by more than the margin) of a testable case; the first of the rules that holds.

    gains: over both opponents; loses: to either, p adjusted at most (1 − confidence) / 2. equivalent: the interval
    (`equivalence_confidence`) against the better one, over which the difference is smaller, within ± margin (two
    one-sided tests: Schuirmann 1987). no relevant gain: the upper end of that interval below the margin against either,
    and the control passed. no relevant loss: both lower ends above −margin. Else undetermined.
    """
    level, margin = (1 - rule.confidence) / 2, rule.margin(case.metric)
    if gain.some.p <= level:
        return GAINS, gain.much.p <= level
    if loss.some.p <= level:
        return LOSES, loss.much.p <= level
    tail = (1 - rule.equivalence_confidence) / 2
    estimates = [each.estimate for each in case.opponents]
    better = min(estimates, key=lambda each: each.value)
    if better.below(margin) <= tail and better.above(-margin) <= tail:
        return EQUIVALENT, False
    if case.control_passed and min(each.below(margin) for each in estimates) <= tail:
        return NO_RELEVANT_GAIN, False
    if max(each.above(-margin) for each in estimates) <= tail:
        return NO_RELEVANT_LOSS, False
    return UNDETERMINED, False


def _testable(case: Case, rule: Verdicts) -> bool:
    estimates = [each.estimate for each in case.opponents]
    several = bool(estimates) and all(each.known and not each.one_run for each in estimates)
    return several and _enough(case, rule)


def _enough(case: Case, rule: Verdicts) -> bool:
    return case.positives is None or case.positives >= rule.least_positives


def _alike(opponent: Member) -> bool:
    """Whether a strategy's several runs do just what the opponent's do: no error to test by, and none needed."""
    return opponent.estimate.runs > 1 and not np.any(opponent.draws)


def _moderated(cases: Sequence[Case]) -> list[Case]:
    """The cases, whose differences tell of the luck of training together."""
    told = iter(moderated([each.estimate for case in cases for each in case.opponents]))
    return [replace(case, opponents=tuple(Member(next(told), each.draws) for each in case.opponents)) for case in cases]


def _least(case: Case) -> Member:
    """The opponent over which a gain is the least sure."""
    return max(case.opponents, key=lambda each: each.estimate.above())


def _adjusted(members: Sequence[Sequence[Member]], cases: Sequence[Case], rule: Verdicts, seed: int) -> list[Side]:
    """The surest member of each case, over 0 and over the margin."""
    flat = [member for of_case in members for member in of_case]
    margins = [rule.margin(case.metric) for of, case in zip(members, cases, strict=True) for _ in of]
    some, much = map(iter, bounds(flat, [[0.0] * len(flat), margins], (1 - rule.confidence) / 2, seed))
    return [
        Side(*(min((next(each) for _ in of), key=lambda bound: bound.p) for each in (some, much))) for of in members
    ]
