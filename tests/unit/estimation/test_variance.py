"""An estimate over runs: its parts against a naive analysis of variance, its interval, what has none."""

import numpy as np
import pytest
from scipy.stats import chi2, norm
from scipy.stats import t as student

from pipeline.estimation.variance import NOTHING, Estimate, Square, estimate, macro_runs, moderated


def drawn(random, folds, seeds, draws=4000, patients=0.02, own=0.01, luck=0.03):
    """[R, 1 + D] and folds [R]: seeds of a fold share its draws but for what each makes of the patients alone."""
    rows = []
    for _ in range(folds):
        shared = patients * random.standard_normal(draws)
        for _ in range(seeds):
            value = 0.7 + luck * random.standard_normal()
            rows.append(np.concatenate([[value], value + shared + own * random.standard_normal(draws)]))
    return np.array(rows), np.repeat(np.arange(folds), seeds)


def test_one_run_varies_by_patients_alone():
    values, folds = drawn(np.random.default_rng(0), 1, 1)
    found = estimate(values, folds, 0.25)
    assert found.one_run
    assert (found.value, found.seed, found.split, found.freedom) == (values[0, 0], 0, 0, np.inf)
    assert found.error == pytest.approx(values[0, 1:].std(ddof=1))
    low, high = found.interval(0.95)
    assert (low, high) == pytest.approx(found.value + 1.959964 * found.error * np.array([-1, 1]))


def test_seeds_are_told_from_patients():
    """Var(mean) = Var(shared) + (Var(own) + Var(luck)) / S; by a loop over pairs of seeds and over seeds."""
    values, folds = drawn(np.random.default_rng(1), 1, 4)
    found = estimate(values, folds, 0.25)
    covariance = np.cov(values[:, 1:])
    between = np.mean([covariance[i, j] for i in range(4) for j in range(4) if i != j])
    assert found.patients == pytest.approx(between, rel=1e-6)
    assert found.seed == pytest.approx(values[:, 0].var(ddof=1) / 4)
    assert (found.split, found.runs, found.one_run) == (0, 4, False)
    assert found.freedom == pytest.approx(found.error**4 / (found.seed**2 / 3))
    wide = student.ppf(0.975, found.freedom) * found.error
    assert found.interval(0.95) == pytest.approx((found.value - wide, found.value + wide))


def test_splits_are_what_patients_and_seeds_leave():
    """Nadeau and Bengio's factor 1/F + test/train is that of the split's part alone."""
    random = np.random.default_rng(2)
    values, folds = drawn(random, 5, 2, patients=0.01, luck=0.002)
    values += np.repeat(0.05 * random.standard_normal(5), 2)[:, None]
    found = estimate(values, folds, 0.25)
    means = values.reshape(5, 2, -1).mean(axis=1)
    own = np.mean([np.var(pair[0] - pair[1], ddof=1) / 2 for pair in values[:, 1:].reshape(5, 2, -1)])
    seeds = np.mean([(pair[0] - pair[1]) ** 2 / 2 for pair in values[:, 0].reshape(5, 2)])
    about = means[:, 1:] - means[:, 1:].mean(axis=1, keepdims=True)
    shared = about.var(axis=0, ddof=1).mean() - own / 2
    assert found.seed == pytest.approx(seeds / 10)
    assert found.patients == pytest.approx(means.mean(axis=0)[1:].var(ddof=1) - own / 10)
    assert found.split == pytest.approx((means[:, 0].var(ddof=1) - shared - seeds / 2) * (1 / 5 + 0.25))
    assert found.freedom == pytest.approx((found.patients + found.seed) ** 2 / (found.seed**2 / 5))
    quantile = chi2.ppf(np.sqrt(0.05), 4) / 4
    luck = (means[:, 0].var(ddof=1) - quantile * (shared + seeds / 2)) * (1 / 5 + 0.25)
    own = student.ppf(0.975, found.freedom) ** 2 * (found.patients + found.seed)
    assert found.half_width(0.025) == pytest.approx(np.sqrt(own + student.ppf(0.975, 4) ** 2 * luck))


def test_luck_that_is_not_seen_is_zero_and_not_below():
    random = np.random.default_rng(3)
    values, folds = drawn(random, 3, 1, luck=0.0)
    found = estimate(values, folds, 0.5)
    assert found.split == 0
    assert found.patients == pytest.approx(values.mean(axis=0)[1:].var(ddof=1))
    assert found.freedom == np.inf


def by_folds(square, folds=3, share=0.5):
    """Patients give every fold a variance of 1; the folds' mean square is `square`."""
    return Estimate(1.0, 1 / folds, None, Square(square, folds - 1, 1.0, 1 / folds + share), runs=folds, splits=folds)


def held(luck, folds, share, tail=0.025):
    """How often normal folds' intervals hold the truth, by quadrature over their mean square."""
    points, weights = np.polynomial.legendre.leggauss(120)
    squares = (1 + luck) * chi2.ppf((1 + points) / 2, folds - 1) / (folds - 1)
    wide = np.array([by_folds(square, folds, share).half_width(tail) for square in squares])
    return float((weights / 2) @ (2 * norm.cdf(wide / np.sqrt(1 / folds + luck * (1 / folds + share))) - 1))


def test_luck_is_overlooked_only_where_folds_agree_by_more_than_chance():
    """Two degrees of freedom: chi-squared below −2 log(1 − q), q = √0.05; there the interval is the patients' own."""
    least = -np.log(1 - np.sqrt(0.05))
    assert by_folds(0.99 * least).half_width(0.025) == pytest.approx(1.959964 / np.sqrt(3))
    wide = np.sqrt(1.959964**2 / 3 + 4.302653**2 * (1 / 3 + 0.5) * (0.9 - least))
    assert by_folds(0.9).split == 0  # as it is estimated; its interval knows better
    assert by_folds(0.9).half_width(0.025) == pytest.approx(wide)


@pytest.mark.parametrize(("folds", "share", "most"), [(3, 0.5, 0.988), (3, 0.25, 0.988), (5, 0.25, 0.986)])
def test_folds_hold_the_truth_whatever_their_luck(folds, share, most):
    """93.5 to 96.5 % from a luck of half the patients' on; more without luck, and never less."""
    found = {luck: held(luck, folds, share) for luck in (0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0, 100.0)}
    assert found[0.0] == max(found.values()) <= most
    assert min(found.values()) > 0.935
    assert max(each for luck, each in found.items() if luck >= 0.5) < 0.97
    assert max(each for luck, each in found.items() if luck >= 1) < 0.965


@pytest.mark.parametrize("tail", [0.05, 0.005, 0.0005])
@pytest.mark.parametrize("folds", [3, 21])
def test_tails_are_about_what_they_say(folds, tail):
    """At most three times the level where it is a fiftieth of the usual one; p is read off these tails."""
    errors = [(1 - held(luck, folds, 1 / (folds - 1), tail)) / 2 / tail for luck in (0.0, 0.3, 1.0, 3.0, 10.0)]
    assert max(errors) < {0.05: 1.15, 0.005: 1.5, 0.0005: 3.0}[tail]


@pytest.mark.parametrize("square", [0.0, 0.2, 1.0, 30.0])
def test_p_of_folds_is_the_tail_whose_interval_ends_there(square):
    found = by_folds(square)
    for tail in (0.4, 0.025, 1e-6):
        wide = found.half_width(tail)
        assert (found.above(1 - wide), found.below(1 + wide)) == pytest.approx((tail, tail))
        assert found.above(1 + wide) == pytest.approx(1 - tail)
    assert (found.above(1.0), found.above(-1e200)) == (pytest.approx(0.5), pytest.approx(0.0))
    shared = Estimate(1.0, 0.1, None, Square(1.0, 2, 0.0, 0.5), runs=3, splits=3)  # folds of `dev`: all of it is luck
    assert shared.half_width(0.025) == pytest.approx(np.sqrt(1.959964**2 * 0.1 + 4.302653**2 * 0.5))
    assert shared.above(1.0) == pytest.approx(0.5)


def test_folds_that_test_the_same_people_have_their_luck_in_common():
    """As on `dev`: what patients do to all folds at once is no reason for folds to differ."""
    random = np.random.default_rng(4)
    shared = 0.02 * random.standard_normal(4000)
    luck = 0.01 * random.standard_normal(5)
    values = np.concatenate([0.7 + luck[:, None], 0.7 + luck[:, None] + shared], axis=1)
    found = estimate(values, range(5), 0.25)
    assert found.split == pytest.approx(luck.var(ddof=1) * (1 / 5 + 0.25))
    assert found.patients == pytest.approx(shared.var(ddof=1))


def test_one_sided_p_and_bounds_agree():
    found = Estimate(0.03, 1e-4, Square(1.5e-4, 3, 0.0, 1 / 3), runs=3)
    low, high = found.interval(0.95)
    assert (found.above(low), found.below(high)) == (pytest.approx(0.025), pytest.approx(0.025))
    assert found.p == pytest.approx(2 * student.sf(0.03 / np.sqrt(1.5e-4), 27))


def test_bounds_of_a_share_stay_within_it():
    found = Estimate(0.97, 4e-4, bias=0.01)
    low, high = found.interval(0.95, log_odds=True)
    centre, wide = np.log(0.97 / 0.03), 1.959964 * 0.02 / (0.97 * 0.03)
    assert (np.log(low / (1 - low)), np.log(high / (1 - high))) == pytest.approx((centre - wide, centre + wide))
    assert found.interval(0.95, unbiased=True) == pytest.approx((0.96 - 1.959964 * 0.02, 0.96 + 1.959964 * 0.02))


@pytest.mark.parametrize(
    "values",
    [np.full((2, 21), np.nan), np.full((1, 21), 0.5), np.array([[0.5] + [0.4, 0.6] * 8 + [np.nan] * 4])],
    ids=["nothing", "all draws agree", "too few draws"],
)
def test_no_interval_and_no_p(values):
    found = estimate(values, np.zeros(len(values), dtype=int), 0.25)
    assert (found.interval(0.95), found.p) == ((None, None), None)
    assert np.isnan([found.error, found.above(), found.below()]).all()
    assert not found.known
    assert (found == NOTHING) or found.value == 0.5


def test_a_run_that_cannot_tell_is_left_out():
    values, folds = drawn(np.random.default_rng(5), 3, 1)
    with_nothing = np.concatenate([values, np.full((1, values.shape[1]), np.nan)])
    assert estimate(with_nothing, [*folds, 3], 0.25) == estimate(values, folds, 0.25)


def test_the_macro_of_runs_is_over_the_same_labels():
    random = np.random.default_rng(6)
    values = random.random((3, 2, 5))
    values[1, 0] = np.nan  # the first run cannot tell the second label
    values[2] = np.nan  # no run can tell the third
    found = macro_runs(values)
    assert found[0] == pytest.approx((values[0, 0] + values[1, 1]) / 2)
    assert found[1] == pytest.approx((values[0, 1] + values[1, 1]) / 2)
    assert found.mean(axis=0) == pytest.approx((values[0].mean(axis=0) + values[1, 1]) / 2)
    values[:, 0] = np.nan  # a run that can tell nothing
    found = macro_runs(values)
    assert np.isnan(found[0]).all()
    assert found[1] == pytest.approx((values[0, 1] + values[1, 1]) / 2)


def family(random, members, folds, common):
    """Estimates of K members whose folds differ in part alike: with luck as large as what patients do."""
    luck = np.sqrt(common) * random.standard_normal(folds) + np.sqrt(1 - common) * random.standard_normal(
        (members, folds)
    )
    drawn = (
        random.standard_normal((members, folds, 400)) + random.standard_normal((members, folds, 1)) + luck[..., None]
    )
    values = np.concatenate([drawn.mean(axis=2, keepdims=True), drawn], axis=2)
    return [estimate(each, range(folds), 0.5) for each in values]


def test_a_family_tells_of_luck_together():
    """The smaller squares take the family's mean ratio; the larger ones stay; all have its degrees of freedom, too."""
    alone = family(np.random.default_rng(7), 30, 3, 0.0)
    found = moderated(alone)
    ratios = np.array([each.folds.square / each.folds.patients for each in alone])
    assert ratios.min() < 0.3
    assert [each.folds.square / each.folds.patients for each in found] == pytest.approx(
        np.maximum(ratios, ratios.mean())
    )
    unit = np.array([each.folds.apart for each in alone])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pairs = np.mean([unit[i] @ unit[j] * (unit[i] @ unit[j]) for i in range(30) for j in range(30) if i != j])
    more = 2 * 30 / (1 + 29 * max(0.0, (pairs - 0.5) / 0.5))
    assert {round(each.folds.freedom, 9) for each in found} == {round(2 + more, 9)}
    assert [each.value for each in found] == [each.value for each in alone]
    assert min(each.error for each in found) > 1.5 * min(each.error for each in alone)


def test_members_with_the_same_luck_tell_no_more_than_one():
    apart, alike = (moderated(family(np.random.default_rng(8), 40, 5, common)) for common in (0.0, 1.0))
    assert alike[0].folds.freedom < apart[0].folds.freedom / 2
    one = family(np.random.default_rng(9), 1, 5, 0.0)
    twins = moderated(one * 10)
    assert twins[0].folds.freedom == pytest.approx(4 + 4)
    assert moderated(one) == one


def test_seeds_are_moderated_as_folds_are_and_what_has_none_is_left():
    random = np.random.default_rng(10)
    several = [estimate(drawn(random, 1, 3)[0], [0, 0, 0], 0.0) for _ in range(20)]
    single = estimate(drawn(random, 1, 1)[0], [0], 0.0)
    found = moderated([*several, single, NOTHING])
    assert found[-2:] == [single, NOTHING]
    ratio = np.mean([each.seeds.square / each.seeds.patients for each in several])
    assert min(each.seeds.square / each.seeds.patients for each in found[:-2]) == pytest.approx(ratio)
