"""Do the intervals hold the truth as often as they say? By simulation, 50 and 200 positives, 1 and 3 stays a subject.

A tenth of the stays is positive. Scores are normal, shifted by 1 (by 1.3 for the second model) where the label is
positive; the two models' scores share 60 % of their variance; the stays of a subject share half of the variance of
scores and of what makes labels. So the true AUROC is Φ(shift / √2); average precision's is taken from two million
stays.
"""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score

from pipeline.estimation.bootstrap import difference_interval, draw_subjects, interval
from pipeline.estimation.metrics import rank_metrics
from pipeline.evaluation.scores import metric_interval

SHIFTS = (1.0, 1.3)
PREVALENCE, SHARED = 0.1, 0.6
SAMPLES, DRAWS = 3000, 1000
WITHIN = (0.935, 0.965)


def clustered(random, subject, between):
    """Standard normal values a stay; a share `between` of the variance is the subject's."""
    own = random.standard_normal(len(subject))
    return np.sqrt(between) * random.standard_normal(subject[-1] + 1)[subject] + np.sqrt(1 - between) * own


def sample(random, positives, stays):
    """(subjects, labels, scores of two models); the number of positives is an expectation."""
    subject = np.repeat(np.arange(round(positives / PREVALENCE / stays)), stays)
    between = 0.5 if stays > 1 else 0.0
    labels = clustered(random, subject, between) > norm.ppf(1 - PREVALENCE)
    common = np.sqrt(SHARED) * clustered(random, subject, between)
    scores = [shift * labels + common + np.sqrt(1 - SHARED) * clustered(random, subject, between) for shift in SHIFTS]
    return subject, labels, scores


def true_precision(shift):
    random = np.random.default_rng(5)
    labels = random.random(2_000_000) < PREVALENCE
    return average_precision_score(labels, random.standard_normal(len(labels)) + shift * labels)


@pytest.mark.slow
@pytest.mark.parametrize("stays", [1, 3])
@pytest.mark.parametrize("positives", [50, 200])
def test_intervals_hold_the_truth_as_often_as_they_say(positives, stays):
    """AUROC and a paired difference of AUROCs; those of average precision are reported beside them."""
    random = np.random.default_rng([positives, stays])
    areas = norm.cdf(np.array(SHIFTS) / np.sqrt(2))
    precisions = [true_precision(shift) for shift in SHIFTS]
    truth = {"auroc": areas[0], "difference": areas[1] - areas[0]}
    truth |= {"auprc": precisions[0], "difference of auprc": precisions[1] - precisions[0]}
    held = dict.fromkeys((*truth, "percentiles of auroc", "percentiles of difference"), 0)
    for _ in range(SAMPLES):
        subject, labels, scores = sample(random, positives, stays)
        draws = draw_subjects(subject, DRAWS, int(random.integers(1 << 30)), "test", 0)
        rows = draws.rows(subject)
        (one, precision), (other, precision_other) = (rank_metrics(each, labels, rows, draws) for each in scores)
        bounds = {
            "auroc": metric_interval("auroc", one, 0.95),
            "difference": difference_interval(other - one, 0.95),
            "percentiles of difference": interval(other - one, 0.95),
            "auprc": metric_interval("auprc", precision, 0.95),
            "difference of auprc": difference_interval(precision_other - precision, 0.95),
            "percentiles of auroc": interval(one, 0.95),
        }
        for name, (low, high) in bounds.items():
            held[name] += low <= truth[name.removeprefix("percentiles of ")] <= high
    shares = {name: round(count / SAMPLES, 4) for name, count in held.items()}
    print(f"{positives} positives, {stays} stays a subject:", shares)
    assert WITHIN[0] <= shares["auroc"] <= WITHIN[1]
    assert WITHIN[0] <= shares["difference"] <= WITHIN[1]
    assert shares["auprc"] >= 0.92
    assert shares["difference of auprc"] >= 0.92
