"""Information decomposed: as textbook distributions, an optimiser and scikit-learn say."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from pipeline.estimation.bootstrap import draw_subjects
from pipeline.estimation.information import Counts, counted, entropy, information, union, unique
from pipeline.estimation.metrics import mass_bins

SPLIT = [[0.25, 0.25], [0.25, 0.25]]  # joint distribution, [bin, label]: says nothing
SURE = [[0.5, 0.0], [0.0, 0.5]]


def of(joint):
    """Counts of one draw."""
    joint = np.asarray(joint, dtype=float) * 840
    return Counts(joint.sum(axis=1)[:, None], joint[:, 1][:, None])


@pytest.mark.parametrize(
    ("first", "second", "both", "expected"),  # expected: unique to the first, to the second, redundant, synergistic
    [
        (SPLIT, SPLIT, SURE, (0, 0, 0, 1)),  # XOR
        (SURE, SURE, SURE, (0, 0, 1, 0)),  # RDN: copies of one bit
        (SURE, SPLIT, SURE, (1, 0, 0, 0)),  # UNQ: the label is the first; of the second it knows nothing
        ([[0.5, 0], [0.25, 0.25]], [[0.5, 0], [0.25, 0.25]], [[0.75, 0], [0, 0.25]], (0, 0, 0.311278, 0.5)),  # AND
    ],
)
def test_textbook_distributions_are_decomposed_as_in_the_literature(first, second, both, expected):
    one, two = of(first), of(second)
    together = union(one, two)
    found = (
        unique(one, two)[0],
        unique(two, one)[0],
        information(one)[0] - unique(one, two)[0],
        information(of(both))[0] - together[0],
    )
    assert found == pytest.approx(expected, abs=1e-6)
    assert entropy(of(both))[0] == pytest.approx(information(of(both))[0], abs=1e-9)


def least(first, second, rounds=1500):
    """The least I(label; first, second) over joint distributions with these margins [bin, label], by alternation.

    min over q and r of KL(q || p(label) r): for a given r the scaling of r to both margins of each label, for a given q
    its own margin (Csiszár & Tusnády 1984).
    """
    mix = np.full((len(first), len(second)), 1.0)
    for _ in range(rounds):
        of_label = []
        for label in (0, 1):
            q = mix.copy()
            for _ in range(30):
                q *= (first[:, label] / q.sum(axis=1))[:, None]
                q *= (second[:, label] / q.sum(axis=0))[None]
            of_label.append(q)
        mix = sum(of_label)
    shares = [q.sum() for q in of_label]
    return sum((q * np.log2(q / (mix * share))).sum() for q, share in zip(of_label, shares, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_the_union_is_the_least_information_of_all_joint_distributions_with_these_margins(seed):
    joint = np.random.default_rng(seed).dirichlet(np.ones(24)).reshape(3, 4, 2)
    first, second = joint.sum(axis=1), joint.sum(axis=0)
    found = union(of(first), of(second))[0]
    assert found == pytest.approx(least(first, second), abs=1e-5)
    assert found == pytest.approx(union(of(second), of(first))[0], abs=1e-12)
    assert found >= max(information(of(first))[0], information(of(second))[0])


def test_draws_are_those_of_the_stays_of_the_subjects_drawn():
    random = np.random.default_rng(0)
    subjects, labels = random.integers(0, 150, 300), random.random(300) < 0.3
    score = random.normal(size=300) + labels
    other = random.normal(size=300)
    draws = draw_subjects(subjects, 20, 1, "test", 0)
    rows = draws.rows(subjects)
    one, two = mass_bins(score, 4), mass_bins(other, 4)
    first, second = (counted(each, 4, labels, rows, draws) for each in (one, two))
    weights = np.concatenate(draws.blocks, axis=1)
    for column in (0, 7):
        kept = weights[rows, column] > 0
        assert information(first)[column] == pytest.approx(
            mutual_info_score(one[kept], labels[kept]) / np.log(2), abs=1e-9
        )
        alone = draw_subjects(subjects[kept], 10, 1, "test", 0)
        again = [counted(each[kept], 4, labels[kept], alone.rows(subjects[kept]), alone) for each in (one, two)]
        assert unique(first, second)[column] == pytest.approx(unique(*again)[0], abs=1e-12)
    none = counted(one, 4, np.zeros(300, dtype=bool), rows, draws)
    assert np.isnan(information(none)).all()
    assert np.isnan(unique(none, second)).all()
