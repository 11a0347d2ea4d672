"""Step-down tests: against a naive loop, Holm's and Šidák's rules, and the family-wise error that they promise."""

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from pipeline.estimation.simultaneous import Member, bounds, deviates, step_down, turned
from pipeline.estimation.variance import NOTHING, Estimate, Square


def told(value, error, freedom):
    """An estimate with that error and, but for a billionth, those degrees of freedom."""
    if np.isinf(freedom):
        return Estimate(value, error**2, runs=3)
    return Estimate(value, 1e-9 * error**2, Square(error**2, freedom, 0.0, 1.0), runs=3)


def members(values, draws, errors=1.0, freedom=np.inf):
    return [
        Member(told(float(value), errors, freedom), value + errors * each)
        for value, each in zip(values, draws, strict=True)
    ]


def test_adjusted_p_is_that_of_a_naive_loop():
    random = np.random.default_rng(0)
    tails, p = norm.sf(random.standard_normal((500, 6)) @ random.standard_normal((6, 6)) / 2.5), random.random(6) / 8
    found, at = step_down(p, tails, 0.3)
    left, largest = list(range(6)), 0.0
    failed = None
    while left:
        first = min(left, key=lambda i: p[i])
        smallest = np.array([min(row[i] for i in left) for row in tails])
        largest = max(largest, (1 + sum(smallest <= p[first])) / 501)
        assert found[first] == pytest.approx(largest)
        failed = np.quantile(smallest, 0.3) if failed is None and largest > 0.3 else failed
        assert at[first] == pytest.approx(failed if failed is not None else np.quantile(smallest, 0.3))
        left.remove(first)


def test_independent_members_are_adjusted_as_sidak_does():
    draws = np.random.default_rng(1).standard_normal((10, 2001))
    found = bounds(members([3.0, *[0.5] * 9], draws), [[0.0] * 10], 0.025, 1)[0]
    assert found[0].p == pytest.approx(1 - (1 - norm.sf(3.0)) ** 10, abs=0.003)
    assert found[1].p == pytest.approx(1 - (1 - norm.sf(0.5)) ** 9, abs=0.02)
    assert found[0].bound == pytest.approx(3.0 - norm.isf(1 - 0.975**0.1), abs=0.06)


def test_members_that_are_one_are_not_adjusted():
    draws = np.tile(np.random.default_rng(2).standard_normal(2001), (10, 1))
    found = bounds(members([2.2] * 10, draws), [[0.0] * 10], 0.025, 1)[0]
    assert [each.p for each in found] == pytest.approx([norm.sf(2.2)] * 10, abs=0.003)


def test_luck_of_training_is_not_shared():
    """Members with the same patients, whose errors are theirs by a fifth only, are adjusted nearly as independent."""
    draws = np.tile(np.random.default_rng(3).standard_normal(2001), (10, 1))
    lucky = [
        Member(Estimate(2.5, 0.2, Square(0.8, np.inf, 0.0, 1.0), runs=3), 2.5 + np.sqrt(0.2) * each) for each in draws
    ]
    found = bounds(lucky, [[0.0] * 10], 0.025, 1)[0][0].p
    assert 0.045 < found <= 1 - (1 - norm.sf(2.5)) ** 10 + 0.003
    assert np.corrcoef(deviates(draws, np.full(10, 0.2), 1).T)[0, 1] == pytest.approx(0.2, abs=0.02)


def test_each_member_has_its_own_degrees_of_freedom():
    draws = np.random.default_rng(4).standard_normal((2, 2001))
    few = members([4.0], draws[:1], freedom=3.0) + members([4.0], draws[1:])
    found = bounds(few, [[0.0] * 2], 0.025, 1)[0]
    assert found[0].p == pytest.approx(student.sf(4.0, 3), abs=0.002)  # it comes last: alone in its step
    assert found[1].p < 0.001
    assert found[0].bound == pytest.approx(4.0 - student.isf(0.025, 3), abs=0.1)


def test_thresholds_move_the_question_and_turning_the_side():
    draws = np.random.default_rng(5).standard_normal((3, 2001))
    values = [3.0, 1.0, -3.0]
    shifted = bounds(members(values, draws), [[3.0, 1.0, -3.0]], 0.025, 1)[0]
    assert [each.p for each in shifted] == pytest.approx([7 / 8] * 3, abs=0.02)
    other = bounds([turned(each) for each in members(values, draws)], [[0.0] * 3], 0.025, 1)[0]
    assert other[2].p == pytest.approx(1 - (1 - norm.sf(3)) ** 3, abs=0.003)
    assert -other[2].bound == pytest.approx(-3 + norm.isf(1 - 0.975 ** (1 / 3)), abs=0.06)


def test_what_is_not_estimable_is_left_out_of_the_family():
    draws = np.random.default_rng(6).standard_normal((2, 2001))
    told = members([2.5, 1.0], draws)
    found = bounds([told[0], Member(NOTHING, np.full(2001, np.nan)), told[1]], [[0.0] * 3], 0.025, 1)[0]
    assert np.isnan(found[1]).all()
    assert [found[0], found[2]] == bounds(told, [[0.0] * 2], 0.025, 1)[0]
    assert np.isnan(bounds([Member(NOTHING, np.full(9, np.nan))], [[0.0]], 0.025, 1)[0]).all()


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_family_wise_error_is_at_its_level_where_nothing_is_there(correlation):
    """500 families of 12, of which 8 are null: any of these is found in 2.5 % (0.7 % standard error)."""
    random = np.random.default_rng(7)
    draws = np.sqrt(correlation) * random.standard_normal(1001) + np.sqrt(1 - correlation) * random.standard_normal(
        (12, 1001)
    )
    tails = norm.sf(deviates(draws, np.ones(12), 1))
    truth = np.array([4.0] * 4 + [0.0] * 8)
    errors = 0
    for _ in range(500):
        noise = np.sqrt(correlation) * random.standard_normal() + np.sqrt(1 - correlation) * random.standard_normal(12)
        p, _ = step_down(norm.sf(truth + noise), tails, 0.025)
        errors += (p[4:] <= 0.025).any()
    assert errors / 500 < 0.046
    assert errors > 2
