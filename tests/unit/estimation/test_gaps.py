"""Metrics by group and their gaps against naive formulas (fairlearn's definitions); the shuffles."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.estimation.bootstrap import draw_subjects, interval
from pipeline.estimation.gaps import (
    ALERT_RATE,
    KEYS,
    ODDS,
    VALIDATION,
    GroupSums,
    Scores,
    above,
    against_null,
    at_rate,
    behind,
    change_interval,
    exchanges,
    gap_interval,
    gaps,
    memberships,
)
from pipeline.estimation.metrics import rank_metrics


def made(random, n, groups=3, subjects=None):
    """(scores of a run, groups, subjects); scores have ties."""
    truth = random.random(n) < 0.4
    p = np.round(np.clip(0.4 * truth + random.random(n) * 0.6, 0, 1), 2)
    alerts = {VALIDATION: above(p, 0.5), ALERT_RATE: at_rate(p, 0.3)}
    return Scores(p, truth, alerts), random.integers(0, groups, n), random.integers(0, subjects or n, n)


def naive(scores, inside, prevalence):
    """Each metric of the stays at the indices `inside`, by its definition."""
    p, truth = scores.p[inside], scores.truth[inside]
    found = {("calibration", ""): p.mean() - truth.mean()}
    pairs = [(one > other) + 0.5 * (one == other) for one in p[truth] for other in p[~truth]]
    found["auroc", ""] = np.mean(pairs)
    ranked = []
    for one in p[truth]:  # precision at each positive's score, were the prevalence another one
        tpr, fpr = (p[truth] >= one).mean(), (p[~truth] >= one).mean()
        ranked.append(prevalence * tpr / (prevalence * tpr + (1 - prevalence) * fpr))
    found["auprc_adjusted", ""] = np.mean(ranked)
    for rule, alert in scores.alerts.items():
        found["tpr", rule] = alert[inside][truth].sum() / truth.sum()
        found["fnr", rule] = 1 - found["tpr", rule]
        found["fpr", rule] = alert[inside][~truth].sum() / (~truth).sum()
        found["selection_rate", rule] = alert[inside].mean()
    return found


def test_metrics_of_groups_are_those_of_their_definitions_in_the_sample_and_in_every_draw():
    random = np.random.default_rng(1)
    scores, codes, subjects = made(random, 90, subjects=60)
    draws = draw_subjects(subjects, 12, 5, "test", 0)
    rows = draws.rows(subjects)
    sums = GroupSums(3, draws.columns)
    sums.add(scores, codes, rows, draws, 0.2)
    found = sums.values()
    weights = np.concatenate(draws.blocks, axis=1)[rows].astype(int)
    for column, group in itertools.product(range(draws.columns), range(3)):
        copies = np.repeat(np.arange(90), weights[:, column])
        expected = naive(scores, copies[codes[copies] == group], 0.2)
        assert set(expected) == set(KEYS)
        for key, value in expected.items():
            assert found[key][group, column] == pytest.approx(value), (key, column)


def test_runs_count_by_what_they_hold_and_pairs_never_cross_them():
    random = np.random.default_rng(2)
    sums, pairs, concordant, hits, positives = GroupSums(2, 1), 0, 0.0, 0.0, 0
    for run, n in enumerate((40, 15)):
        scores, codes, subjects = made(random, n, groups=2)
        draws = draw_subjects(subjects, 0, 0, "test", run)
        sums.add(scores, codes, draws.rows(subjects), draws, 0.2)
        inside = codes == 1
        p, truth = scores.p[inside], scores.truth[inside]
        if truth.any() and not truth.all():
            concordant += roc_auc_score(truth, p) * truth.sum() * (~truth).sum()
        pairs += truth.sum() * (~truth).sum()
        hits += (scores.alerts[VALIDATION][inside] * truth).sum()
        positives += truth.sum()
    assert sums.values()["auroc", ""][1, 0] == pytest.approx(concordant / pairs)
    assert sums.values()["tpr", VALIDATION][1, 0] == pytest.approx(hits / positives)


def test_adjusted_average_precision_is_average_precision_where_the_prevalence_is_the_groups_own():
    random = np.random.default_rng(3)
    scores, _, subjects = made(random, 200)
    draws = draw_subjects(subjects, 0, 0, "test", 0)
    rows = draws.rows(subjects)
    own = rank_metrics(scores.p, scores.truth, rows, draws, float(scores.truth.mean()))[1][0]
    assert own == pytest.approx(average_precision_score(scores.truth, scores.p))
    rarer = np.where(scores.truth, 0.1 / scores.truth.mean(), 0.9 / (1 - scores.truth.mean()))
    expected = average_precision_score(scores.truth, scores.p, sample_weight=rarer)
    assert rank_metrics(scores.p, scores.truth, rows, draws, 0.1)[1][0] == pytest.approx(expected)


def fairlearn(truth, predicted, group):
    """fairlearn's differences by their definitions: largest less smallest rate over groups."""
    each = [group == value for value in np.unique(group)]
    selection = [predicted[of].mean() for of in each]
    tpr = [predicted[of & truth].mean() for of in each]
    fpr = [predicted[of & ~truth].mean() for of in each]

    def spread(rates):
        return max(rates) - min(rates)

    return {
        "demographic_parity_difference": spread(selection),
        "equal_opportunity_difference": spread(tpr),
        "equalized_odds_difference": max(spread(tpr), spread(fpr)),
    }


def test_gaps_are_fairlearns_differences():
    random = np.random.default_rng(4)
    scores, codes, subjects = made(random, 300)
    draws = draw_subjects(subjects, 0, 0, "test", 0)
    sums = GroupSums(3, 1)
    sums.add(scores, codes, draws.rows(subjects), draws, 0.2)
    found = gaps(sums.values())
    expected = fairlearn(scores.truth, scores.p >= 0.5, codes)
    assert found["selection_rate", VALIDATION][0] == pytest.approx(expected["demographic_parity_difference"])
    assert found["tpr", VALIDATION][0] == pytest.approx(expected["equal_opportunity_difference"])
    assert found["fnr", VALIDATION][0] == pytest.approx(expected["equal_opportunity_difference"])
    assert found[ODDS, VALIDATION][0] == pytest.approx(expected["equalized_odds_difference"])
    assert behind((ODDS, VALIDATION)) == (("tpr", VALIDATION), ("fpr", VALIDATION))


@given(st.lists(st.integers(0, 5), max_size=30), st.floats(0, 1.5))
def test_alerts_at_a_rate_are_as_many_as_asked_for_and_go_to_the_highest_scores(levels, rate):
    p = np.array(levels, dtype=float) / 5
    alerts = at_rate(p, rate)
    assert alerts.sum() == pytest.approx(min(1, rate) * len(p))
    assert ((alerts >= 0) & (alerts <= 1)).all()
    for one, other in itertools.product(range(len(p)), repeat=2):
        assert p[one] != p[other] or alerts[one] == pytest.approx(alerts[other])
        if p[one] > p[other] and alerts[other] > 0:
            assert alerts[one] == pytest.approx(1)


def test_without_a_threshold_rates_are_not_estimable_and_scores_are():
    random = np.random.default_rng(5)
    scores, codes, subjects = made(random, 60, groups=2)
    scores = Scores(scores.p, scores.truth, {VALIDATION: above(scores.p, None), ALERT_RATE: at_rate(scores.p, 0.5)})
    draws = draw_subjects(subjects, 30, 0, "test", 0)
    sums = GroupSums(2, 31)
    sums.add(scores, codes, draws.rows(subjects), draws, 0.2)
    values = sums.values()
    assert np.isnan(values["tpr", VALIDATION]).all()
    assert not np.isnan(values["tpr", ALERT_RATE][:, 0]).any()
    assert not np.isnan(values["auroc", ""][:, 0]).any()
    assert gap_interval([values["tpr", VALIDATION]], 0.95) == (None, None)


def test_a_group_with_one_class_or_nobody_is_not_estimable_and_neither_is_its_gap():
    scores, codes, subjects = made(np.random.default_rng(6), 50, groups=2)
    codes = np.where(scores.truth, codes, 0)  # group 1: positives alone; group 2: nobody
    draws = draw_subjects(subjects, 20, 0, "test", 0)
    sums = GroupSums(3, 21)
    sums.add(scores, codes, draws.rows(subjects), draws, 0.2)
    values = sums.values()
    assert np.isnan(values["auroc", ""][1:]).all()
    assert np.isnan(values["fpr", VALIDATION][1, 0])
    assert not np.isnan(values["tpr", VALIDATION][1, 0])
    assert np.isnan(gaps(values)["auroc", ""]).all()
    assert gap_interval([values["auroc", ""]], 0.95) == (None, None)
    assert against_null(gaps(values)["auroc", ""]) is None


def test_the_gap_of_a_single_group_is_not_estimable():
    values = {key: np.random.default_rng(0).random((1, 11)) for key in KEYS}
    assert all(np.isnan(each).all() for each in gaps(values).values())
    assert gap_interval([values["auroc", ""]], 0.95) == (None, None)
    same = np.ones((2, 11))  # perfect scores in both: resampling tells nothing
    assert gap_interval([same], 0.95) == (None, None)


def test_the_interval_of_two_groups_is_that_of_their_difference_folded_at_zero():
    random = np.random.default_rng(7)
    for shift in (0.01, 0.3):
        one, other = random.normal(0.7, 0.05, 4001), random.normal(0.7 - shift, 0.05, 4001)
        one[0], other[0] = 0.7, 0.7 - shift
        low, high = gap_interval([np.stack([one, other])], 0.95)
        half = 1.96 * 0.05 * np.sqrt(2)
        assert low == pytest.approx(max(0, shift - half), abs=0.01)
        assert high == pytest.approx(shift + half, abs=0.01)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 2)), max_size=40))
@settings(deadline=None)
def test_shuffles_move_subjects_whole_and_keep_every_groups_outcomes(stays):
    subjects = np.array([stay[0] for stay in stays], dtype=np.int64)
    outcome = np.array([stay[1] for stay in stays], dtype=np.int64)
    codes = np.array([stay[2] for stay in stays], dtype=np.int64)
    index = exchanges(subjects, outcome, 6, np.random.default_rng(0))
    assert index.shape == (len(stays), 7)
    assert (index[:, 0] == np.arange(len(stays))).all()
    for column in index.T:
        assert sorted(column) == list(range(len(stays)))
        assert (outcome[column] == outcome).all()
        for group in range(3):
            assert (outcome[codes[column] == group]).sum() == outcome[codes == group].sum()
        for subject in np.unique(subjects):  # takes the groups of one other
            assert len(set(subjects[column[subjects == subject]])) == 1


def test_shuffles_are_uniform():
    index = exchanges(np.arange(4), np.zeros(4, dtype=np.int64), 6000, np.random.default_rng(1))
    counts = np.array([[(index[stay, 1:] == other).sum() for other in range(4)] for stay in range(4)])
    assert counts == pytest.approx(1500, abs=150)


def test_membership_weights_give_the_groups_metrics():
    scores, codes, subjects = made(np.random.default_rng(8), 80, groups=2)
    shuffles = codes[exchanges(subjects, scores.truth.astype(np.int64), 5, np.random.default_rng(2))]
    for group in range(2):
        sums = GroupSums(1, 6)
        sums.add(scores, np.zeros(80, dtype=np.int64), np.arange(80), memberships(shuffles, group), 0.2)
        for column in range(6):
            expected = naive(scores, np.flatnonzero(shuffles[:, column] == group), 0.2)
            for key, value in expected.items():
                assert sums.values()[key][0, column] == pytest.approx(value), key


def test_p_of_a_gap_counts_the_shuffles_that_are_as_wide():
    null = against_null(np.array([0.3, 0.1, 0.3, 0.5, 0.2]))
    assert (null.mean, null.excess, null.p) == pytest.approx((0.275, 0.025, 3 / 5))
    assert against_null(np.array([0.3, *[0.1] * 8, np.nan, np.nan])) is None


def naive_change(values, reference, bands):
    """The bounds of the change by a loop over ordered pairs; `bands`: each pair's (low, high) in mine, theirs, both."""
    pairs = list(itertools.permutations(range(len(values)), 2))
    mine, theirs, change = (dict(zip(pairs, each, strict=True)) for each in bands)
    best = max(0, *(low for low, _ in mine.values()))
    best_theirs = max(0, *(low for low, _ in theirs.values()))
    high = max(change[pair][1] for pair in pairs if mine[pair][1] >= best)
    low = min(change[pair][0] for pair in pairs if theirs[pair][1] >= best_theirs)
    widest = max(top for _, top in mine.values()), max(top for _, top in theirs.values())
    return max(low, best - widest[1]), min(high, widest[0] - best_theirs)


def test_the_change_of_a_gap_is_bounded_by_paired_differences_of_differences():
    random = np.random.default_rng(9)
    for levels, others in (((0.8, 0.7, 0.75), (0.8, 0.8, 0.78)), ((0.8, 0.6, 0.5), (0.8, 0.8, 0.9))):
        shared = 0.02 * random.standard_normal((3, 2001))
        mine = np.array(levels)[:, None] + shared + 0.01 * random.standard_normal((3, 2001))
        theirs = np.array(others)[:, None] + shared + 0.01 * random.standard_normal((3, 2001))
        mine[:, 0], theirs[:, 0] = levels, others
        pairs = list(itertools.permutations(range(3), 2))
        contrasts = [np.array([each[i] - each[j] for i, j in pairs]) for each in (mine, theirs)]
        contrasts.append(contrasts[0] - contrasts[1])
        together = np.concatenate(contrasts)
        deviation = together[:, 1:] - together[:, :1]
        error = np.sqrt(((deviation - deviation.mean(1, keepdims=True)) ** 2).mean(1))
        width = np.quantile(np.max(np.abs(deviation) / error[:, None], axis=0), 0.95) * error
        bands = np.split(np.stack([together[:, 0] - width, together[:, 0] + width], axis=1), 3)
        expected = naive_change(mine, theirs, bands)
        found = change_interval([mine], [theirs], 0.95)
        assert found == pytest.approx(expected)
        change = max(levels) - min(levels) - max(others) + min(others)
        assert found[0] < change < found[1]
    assert found[0] > 0  # the second: 0.3 and 0.1
    assert change_interval([theirs], [mine], 0.95) == pytest.approx((-found[1], -found[0]))


def test_a_change_is_not_estimable_where_a_gap_is_not_or_nothing_varies():
    values = np.random.default_rng(0).random((2, 21))
    assert change_interval([values], [values], 0.95) == (None, None)  # one model twice
    missing = values.copy()
    missing[1] = np.nan
    assert change_interval([values], [missing], 0.95) == (None, None)


def simulated(random, sizes, aurocs, stays):
    """Scores, labels, groups, subjects: binormal, a quarter positive, `stays` a subject that share half the noise."""
    scores, labels, groups, subjects, first = [], [], [], [], 0
    for group, (size, auroc) in enumerate(zip(sizes, aurocs, strict=True)):
        of = np.repeat(np.arange(size // stays), stays)
        truth = random.random(len(of)) < 0.25
        share = 0.5 if stays > 1 else 0.0
        noise = np.sqrt(share) * random.normal(size=size // stays)[of]
        noise = noise + np.sqrt(1 - share) * random.normal(size=len(of))
        scores.append(noise + norm.ppf(auroc) * np.sqrt(2) * truth)
        labels.append(truth)
        groups.append(np.full(len(of), group))
        subjects.append(of + first)
        first += size // stays
    return map(np.concatenate, (scores, labels, groups, subjects))


def aurocs_of_groups(random, sizes, aurocs, stays, seed, draws=300):
    scores, labels, groups, subjects = simulated(random, sizes, aurocs, stays)
    weights = draw_subjects(subjects, draws, seed, "test", 0)
    rows = weights.rows(subjects)
    inside = [groups == group for group in range(len(sizes))]
    return np.array([rank_metrics(scores[of], labels[of], rows[of], weights)[0] for of in inside])


@pytest.mark.slow
@pytest.mark.parametrize("stays", [1, 3])
@pytest.mark.parametrize("positives", [50, 200])
@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_interval_covers_the_gap_of_two_groups(gap, positives, stays):
    """As often as it says, also where there is none: percentiles of the gap never cover 0."""
    size, covered, naively = positives * 4 // stays * stays, 0, 0
    for sample in range(1000):
        random = np.random.default_rng([sample, positives, stays])
        values = aurocs_of_groups(random, (size, size), (0.8, 0.8 - gap), stays, sample)
        low, high = gap_interval([values], 0.95)
        covered += low <= gap <= high
        low, high = interval(values.max(axis=0) - values.min(axis=0), 0.95)
        naively += low <= gap <= high
    print(f"gap {gap}, {positives} positives a group, {stays} stays: {covered / 10} %, percentiles {naively / 10} %")
    assert 930 <= covered <= 985
    assert gap or naively == 0


@pytest.mark.slow
@pytest.mark.parametrize("aurocs", [(0.8,) * 5, (0.8, 0.8, 0.8, 0.8, 0.7), (0.7, 0.8, 0.8, 0.8, 0.8)])
def test_the_interval_covers_the_gap_of_five_unlike_groups(aurocs):
    """The smallest groups have 25 and 22 positives: bootstrap errors are a little small there."""
    covered = 0
    for sample in range(600):
        values = aurocs_of_groups(np.random.default_rng(sample), (1500, 300, 150, 100, 90), aurocs, 1, sample)
        low, high = gap_interval([values], 0.95)
        covered += low <= max(aurocs) - min(aurocs) <= high
    print(f"{aurocs}: {covered / 6} %")
    assert covered >= 0.88 * 600


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ((0.8, 0.8), (0.8, 0.8)),
        ((0.85, 0.75), (0.8, 0.7)),
        ((0.85, 0.75), (0.8, 0.8)),
        ((0.8, 0.8), (0.8, 0.75)),
        ((0.85, 0.85, 0.85, 0.75), (0.8, 0.8, 0.8, 0.8)),
    ],
)
def test_the_interval_covers_the_change_of_a_gap(mine, theirs):
    """Two models on the same patients, 50 positives a group; percentiles cover in 80 to 99 %, bands in 99 % or more."""
    truth = (max(mine) - min(mine)) - (max(theirs) - min(theirs))
    covered, naively = 0, 0
    for sample in range(300):
        random, size = np.random.default_rng(sample), 200 * len(mine)
        groups, labels = np.repeat(np.arange(len(mine)), 200), random.random(size) < 0.25
        shared, draws = random.normal(size=size), draw_subjects(np.arange(size), 300, sample, "test", 0)
        both = []
        for aurocs in (mine, theirs):
            noise = np.sqrt(0.7) * shared + np.sqrt(0.3) * random.normal(size=size)
            p = noise + norm.ppf(np.array(aurocs))[groups] * np.sqrt(2) * labels
            inside = [groups == group for group in range(len(mine))]
            both.append(np.array([rank_metrics(p[of], labels[of], np.flatnonzero(of), draws)[0] for of in inside]))
        low, high = change_interval([both[0]], [both[1]], 0.95)
        covered += low <= truth <= high
        low, high = interval(np.ptp(both[0], axis=0) - np.ptp(both[1], axis=0), 0.95)
        naively += low <= truth <= high
    print(f"{mine} less {theirs}: {covered / 3:.1f} %, percentiles {naively / 3:.1f} %")
    assert covered >= 0.95 * 300
