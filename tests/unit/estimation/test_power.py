"""What can be shown: against simulated AUROCs, and its own inverse."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from pipeline.estimation.power import Plan, auroc_variance, positives_needed, smallest_detectable


@pytest.mark.parametrize("auroc", [0.6, 0.8, 0.95])
def test_the_variance_is_that_of_simulated_aurocs(auroc):
    random = np.random.default_rng(1)
    scores = random.standard_normal((20_000, 60))
    scores[:, :15] += norm.ppf(auroc) * np.sqrt(2)
    assert auroc_variance(auroc, 15, 45) == pytest.approx(aurocs(scores, 15).var(), rel=0.05)


def aurocs(scores, positives):
    ranks = rankdata(scores, axis=-1)[..., :positives].sum(axis=-1)
    negatives = scores.shape[-1] - positives
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def test_what_is_detectable_is_found_in_four_of_five():
    """Binormal scores whose AUROCs correlate by about 0.6: a z test, with the standard error of no gain."""
    random, positives, negatives, samples = np.random.default_rng(0), 80, 320, 1500
    shared = np.sqrt(0.6) * random.standard_normal((samples, 1, 400))
    noise = shared + np.sqrt(0.4) * random.standard_normal((samples, 2, 400))
    noise[..., :positives] += norm.ppf(0.8) * np.sqrt(2)
    null = aurocs(noise, positives)
    plan = Plan(auroc=0.8, correlation=float(np.corrcoef(null.T)[0, 1]), luck=0.0)
    gain = smallest_detectable(positives, negatives, plan)
    noise[:, 1, :positives] += (norm.ppf(0.8 + gain) - norm.ppf(0.8)) * np.sqrt(2)
    found = aurocs(noise, positives)
    apart = found[:, 1] - found[:, 0]
    power = (apart / (null[:, 1] - null[:, 0]).std() > norm.ppf(0.975)).mean()
    assert 0.77 < power < 0.84


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("prevalence", [0.03, 0.3])
def test_the_positives_needed_show_the_margin_and_one_fewer_does_not(prevalence, runs):
    plan, odds = Plan(runs=runs, tests=25), (1 - prevalence) / prevalence
    needed = positives_needed(0.01, prevalence, plan)
    assert smallest_detectable(needed, needed * odds, plan) <= 0.01
    assert smallest_detectable(needed - 1, (needed - 1) * odds, plan) > 0.01


def test_more_runs_less_luck_and_fewer_tests_show_less():
    plan = Plan()
    base = smallest_detectable(50, 200, plan)
    for easier in (replace(plan, runs=3), replace(plan, luck=0.0), replace(plan, correlation=0.8)):
        assert smallest_detectable(50, 200, easier) < base
    assert smallest_detectable(50, 200, replace(plan, tests=20)) > base
    assert smallest_detectable(0, 200, plan) is None
    assert smallest_detectable(5, 0, plan) is None


def test_the_factor_of_luck_is_a_variances():
    plan = Plan(luck=3.0, runs=3)
    assert smallest_detectable(50, 200, plan) == pytest.approx(
        np.sqrt(2) * smallest_detectable(50, 200, replace(plan, luck=0.0))
    )
