"""The randomisation test against swapping predictions one throw after the other; Holm against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.estimation.metrics import rank_metrics
from pipeline.estimation.randomisation import (
    auroc_shares,
    holm,
    linear_p,
    mean_shares,
    null_p,
    ranks,
    signs,
    swapped,
)


def data(seed, n=60, subjects=40, levels=8):
    """Scores with ties of two models, labels, subjects with several stays."""
    random = np.random.default_rng(seed)
    at = random.integers(0, subjects, n)
    labels = random.random(n) < 0.35
    a = np.round(labels + random.normal(size=n) * 1.5, 0 if levels < 9 else 6)
    b = np.round(0.5 * labels + random.normal(size=n) * 1.5, 0)
    return ranks(a), ranks(b), labels, at


def swap(a, b, sign, at):
    keep = sign[at] > 0
    return np.where(keep, a, b), np.where(keep, b, a)


@pytest.mark.parametrize("seed", range(5))
def test_the_difference_of_auroc_after_a_throw_is_linear_in_the_signs(seed):
    a, b, labels, at = data(seed)
    shares = auroc_shares(a, b, labels, at, 40)
    assert shares.sum() == pytest.approx(roc_auc_score(labels, a) - roc_auc_score(labels, b), abs=1e-12)
    (block,) = signs([40], [0], 50, seed)
    for sign in block:
        one, two = swap(a, b, sign, at)
        assert sign @ shares == pytest.approx(roc_auc_score(labels, one) - roc_auc_score(labels, two), abs=1e-12)


def test_the_difference_of_average_precision_after_a_throw_is_a_weighted_one_of_both_models():
    a, b, labels, at = data(7)
    (block,) = signs([40], [0], 30, 1)
    first, second = swapped(np.arange(40), block)
    pooled = np.concatenate([a, b]), np.concatenate([labels, labels]), np.concatenate([at, at + 40])
    found = [rank_metrics(*pooled, draws)[1] for draws in (first, second)]
    for i, sign in enumerate(block):
        one, two = swap(a, b, sign, at)
        assert found[0][i] == pytest.approx(average_precision_score(labels, one), abs=1e-12)
        assert found[1][i] == pytest.approx(average_precision_score(labels, two), abs=1e-12)


def test_p_is_the_share_of_throws_at_least_as_far_as_the_observed_difference():
    a, b, labels, at = data(3)
    shares = np.stack([auroc_shares(a, b, labels, at, 40), mean_shares(a, b, at, 40)], axis=1)
    blocks = list(signs([40], [0], 700, 5))
    assert [len(block) for block in blocks] == [512, 188]
    found = linear_p(shares, iter(blocks))
    naive = []
    for statistic in (lambda x, y: roc_auc_score(labels, x) - roc_auc_score(labels, y), lambda x, y: (x - y).mean()):
        observed = abs(statistic(a, b))
        drawn = [abs(statistic(*swap(a, b, sign, at))) for block in blocks for sign in block]
        naive.append((1 + sum(each >= observed - 1e-9 for each in drawn)) / 701)
    assert found == pytest.approx(naive)


def test_models_that_agree_have_p_1_and_models_that_never_do_a_small_one():
    a, _, labels, at = data(1, n=200, subjects=150)
    same = auroc_shares(a, a, labels, at, 150)[:, None]
    assert linear_p(same, signs([150], [0], 99, 0)) == 1.0
    perfect = auroc_shares(labels.astype(float), ranks(np.random.default_rng(0).random(200)), labels, at, 150)[:, None]
    assert linear_p(perfect, signs([150], [0], 999, 0))[0] == pytest.approx(0.001)


def test_p_is_uniform_where_nothing_differs():
    """Both models see the same noisy sign of the label: 5 % are at or below 0.05."""
    random = np.random.default_rng(11)
    found = []
    for trial in range(300):
        labels = random.random(80) < 0.4
        a, b = (ranks(labels + random.normal(size=80)) for _ in "ab")
        shares = auroc_shares(a, b, labels, np.arange(80), 80)[:, None]
        found.append(linear_p(shares, signs([80], [0], 199, trial))[0])
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.085
    assert 0.42 <= np.mean(found) <= 0.58


def test_one_class_alone_or_no_stay_is_not_estimable():
    a = np.arange(4.0)
    at = np.arange(4)
    assert auroc_shares(a, a, np.ones(4, bool), at, 4) is None
    assert auroc_shares(a, a, np.zeros(4, bool), at, 4) is None
    assert mean_shares(a[:0], a[:0], at[:0], 4) is None
    assert null_p(np.array([np.nan, 0.1])) is None
    assert null_p(np.array([0.2, np.nan, 0.3, 0.1])) == pytest.approx(2 / 3)


def test_a_subject_throws_one_coin_and_the_throws_of_a_fold_depend_on_nothing_else():
    both = np.concatenate(list(signs([3, 5], [0, 1], 600, 9)))
    alone = np.concatenate(list(signs([5], [1], 600, 9)))
    assert both.shape == (600, 8)
    assert set(np.unique(both)) == {-1.0, 1.0}
    assert np.array_equal(both[:, 3:], alone)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_is_the_step_down_of_its_definition(p):
    adjusted = holm(p)
    known = [each for each in p if each is not None]
    for own, found in zip(p, adjusted, strict=True):
        if own is None:
            assert found is None
            continue
        ordered = sorted(known)
        steps = [min(1.0, (len(ordered) - i) * each) for i, each in enumerate(ordered) if each <= own]
        assert found == pytest.approx(max(steps))
        assert found >= own


def test_holm_on_an_example_worked_by_hand():
    """0.005 × 4, 0.01 × 3, 0.03 × 2, and 0.04 × 1, which may not fall below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
