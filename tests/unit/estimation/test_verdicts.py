"""The rule of verdicts: its seven words and their order; what is at its level because of the family."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from pipeline.estimation.simultaneous import Member
from pipeline.estimation.variance import NOTHING, Estimate
from pipeline.estimation.verdicts import Case, judge
from pipeline.params import load

RULE = replace(load("params.yaml").verdicts, confidence=0.95, equivalence_confidence=0.9, least_positives=50)
DRAWS = np.random.default_rng(0).standard_normal((40, 1001))


def member(value, error, place=0, runs=3):
    estimate = Estimate(value, error**2, runs=runs)
    return Member(estimate, value + error * DRAWS[place])


def case(*opponents, passed=True, positives=200, metric="auroc"):
    members = tuple(member(value, error, place) for place, (value, error) in enumerate(opponents))
    return Case(members, metric, positives, passed)


@pytest.mark.parametrize(
    ("opponents", "passed", "word", "beyond"),
    [
        (((0.03, 0.005), (0.05, 0.01)), True, "gains", True),
        (((0.03, 0.005), (0.05, 0.01)), False, "gains", True),
        (((0.015, 0.005), (0.05, 0.01)), True, "gains", False),
        (((0.03, 0.005), (0.01, 0.015)), True, "undetermined", False),  # over one alone
        (((-0.03, 0.005), (0.05, 0.01)), True, "loses", True),
        (((-0.013, 0.005), (0.05, 0.01)), True, "loses", False),
        (((0.001, 0.004), (0.05, 0.01)), True, "equivalent", False),
        (((0.001, 0.004), (0.05, 0.01)), False, "equivalent", False),
        (((-0.006, 0.005), (0.05, 0.01)), True, "no relevant gain", False),
        (((-0.006, 0.005), (0.05, 0.01)), False, "undetermined", False),  # the image may not have been used
        (((0.006, 0.005), (0.05, 0.01)), True, "no relevant loss", False),
        (((0.006, 0.02), (0.05, 0.01)), True, "undetermined", False),
    ],
)
def test_the_rule(opponents, passed, word, beyond):
    found = judge([case(*opponents, passed=passed)], RULE, 1)
    assert [(each.word, each.beyond) for each in found] == [(word, beyond)]


def test_a_metric_has_a_margin_of_its_own():
    at = {name: getattr(RULE.margins, name) for name in ("auroc", "auprc", "accuracy", "kappa")}
    assert len(set(at.values())) > 1
    for metric, margin in at.items():
        for shift, beyond in ((-0.001, False), (0.001, True)):
            assert judge([case((margin + shift, 0.0001), metric=metric)], RULE, 1)[0].beyond == beyond


@pytest.mark.parametrize(
    "untestable",
    [
        case((0.03, 0.005), positives=49),
        Case((member(0.03, 0.005, runs=1),), "auroc", 200, True),
        Case((member(0.03, 0.005), Member(NOTHING, np.full(1001, np.nan))), "auroc", 200, True),
        Case((), "auroc", 200, True),
    ],
    ids=["few positives", "one run", "an opponent that is not estimable", "no opponent"],
)
def test_what_cannot_be_tested_is_said_to_be(untestable):
    """And it is no burden to the others of its family."""
    other = case((0.011, 0.005))
    not_testable, beside = judge([untestable, other], RULE, 1)
    assert not_testable.word == "not testable"
    assert beside == judge([other], RULE, 1)[0]


def test_who_does_just_what_an_opponent_does_is_equivalent_to_it():
    same = Member(replace(NOTHING, value=0.0, runs=3), np.zeros(1001))
    better = member(0.03, 0.005)
    words = [
        judge([each], RULE, 1)[0].word
        for each in (
            Case((same, better), "auroc", 200, True),
            Case((same, better), "auroc", 49, True),
            Case((same._replace(estimate=replace(same.estimate, runs=1)), better), "auroc", 200, True),
        )
    ]
    assert words == ["equivalent", "not testable", "not testable"]


def test_a_family_asks_for_more():
    """z = 2.2 is enough for one (1.96) and not for 20 independent ones, where Šidák's bound is 3.02."""
    many = [Case((member(0.022, 0.01, place),), "auroc", 200, True) for place in range(20)]
    assert judge(many[:1], RULE, 1)[0].word == "gains"
    found = judge(many, RULE, 1)
    assert {each.word for each in found} != {"gains"}
    sidak = norm.isf(1 - 0.975 ** (1 / 20))
    assert found[0].low == pytest.approx(0.022 - 0.01 * sidak, abs=0.0004)
    assert found[0].high == pytest.approx(0.022 + 0.01 * sidak, abs=0.0004)
