"""What verdicts say, and how often wrongly: `python -m tests.simulations.verdicts`.

Writes docs/simulations/verdicts.csv and errors.csv, and their tables in docs/reading-the-report.md. A family is 25
labels against two opponents. Scores are drawn as normal numbers, which correlate between labels. `error` is the
standard error that patients give a difference. `luck`: as in coverage.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pipeline.estimation import simultaneous
from pipeline.estimation.simultaneous import Member
from pipeline.estimation.variance import estimate
from pipeline.estimation.verdicts import GAINS, LOSES, WORDS, Case, judge
from pipeline.params import load
from tests.simulations.world import ROOT, TEST_SHARE, percent, tell, write

LABELS, DRAWS, WORSE = 25, 200, 0.05  # by how much the worse opponent is worse
RULE = load(ROOT / "params.yaml").verdicts
DIFFERENCES = (-0.03, -0.02, -0.01, 0.0, 0.005, 0.01, 0.02, 0.03, 0.05)
ERRORS = (0.003, 0.006, 0.012)


@dataclass(frozen=True)
class Family:
    """True differences to the better opponent, [LABELS]; `worse`: by how much those to the other one are larger."""

    truth: tuple[float, ...]
    worse: float = WORSE
    error: float = 0.006
    folds: int = 1
    seeds: int = 5
    luck: float = 1.0
    correlation: float = 0.3
    unequal: float = 0.0  # luck differs between labels: log-normal, with this standard deviation


def correlated(random, share, count, shape):
    """Standard normals [count, *shape]; `share` of the variance is common to all `count`."""
    return np.sqrt(share) * random.standard_normal(shape) + np.sqrt(1 - share) * random.standard_normal((count, *shape))


def cases(random, family):
    """The family's cases: draws of three strategies' scores by label and run, subtracted."""
    folds, seeds = family.folds, family.seeds
    one = family.error * np.sqrt(folds / 2)  # of one strategy's score on one fold
    noise = one * np.stack([correlated(random, family.correlation, LABELS, (folds, 1, 1 + DRAWS)) for _ in range(3)])
    noise = np.repeat(noise, seeds, axis=3)
    noise[..., 1:] += noise[..., :1]
    share = TEST_SHARE[folds] / (1 + TEST_SHARE[folds]) if folds > 1 else 0.0
    luck = np.sqrt(share) * random.standard_normal((3, LABELS, 1, 1))
    luck = luck + np.sqrt(1 - share) * random.standard_normal((3, LABELS, folds, seeds))
    scale = np.exp(family.unequal * random.standard_normal(LABELS) - family.unequal**2)
    score = noise + (one * np.sqrt(family.luck * scale)[:, None, None] * luck)[..., None]
    score[0] += np.array(family.truth)[:, None, None, None]
    score[2] -= family.worse
    runs = np.repeat(np.arange(folds), seeds)
    for label in range(LABELS):
        members = []
        for opponent in (1, 2):
            values = (score[0, label] - score[opponent, label]).reshape(folds * seeds, -1)
            members.append(Member(estimate(values, runs, TEST_SHARE[folds]), values.mean(axis=0)))
        yield Case(tuple(members), "auroc", 1000, True)


def judged(family, families, seed=0):
    """The words of all labels, [families, LABELS]; each family with fewer, but other, deviates than a report."""
    random = np.random.default_rng([seed, families])
    whole, simultaneous.DEVIATES = simultaneous.DEVIATES, 2000
    try:
        return np.array([[each.word for each in judge(list(cases(random, family)), RULE, i)] for i in range(families)])
    finally:
        simultaneous.DEVIATES = whole


def shares(families):
    """A row a standard error and true difference: how often each word is said of a label."""
    for error in ERRORS:
        for difference in DIFFERENCES:
            count = Counter(judged(Family((difference,) * LABELS, error=error), families).ravel().tolist())
            said = {word: round(count[word] / families / LABELS, 4) for word in WORDS if word != "not testable"}
            yield {"error": error, "difference": difference, "families": families, **said}


SHAPES = {
    "all 0, one opponent worse": Family((0.0,) * LABELS),
    "all 0, opponents tie": Family((0.0,) * LABELS, worse=0.0),
    "half gain 0.05": Family((0.05,) * 12 + (0.0,) * 13),
    "half lose 0.05": Family((-0.05,) * 12 + (0.0,) * 13),
    "patients correlate by 0.8": Family((0.0,) * LABELS, correlation=0.8),
    "no luck": Family((0.0,) * LABELS, luck=0.0),
    "luck 3": Family((0.0,) * LABELS, luck=3.0),
    "luck unequal": Family((0.0,) * LABELS, luck=3.0, unequal=1.0),
    "three seeds": Family((0.0,) * LABELS, seeds=3),
    "three folds": Family((0.0,) * LABELS, folds=3, seeds=1),
    "three folds, luck unequal": Family((0.0,) * LABELS, folds=3, seeds=1, luck=3.0, unequal=1.0),
    "five folds": Family((0.0,) * LABELS, folds=5, seeds=1),
    "five folds, luck 3": Family((0.0,) * LABELS, folds=5, seeds=1, luck=3.0),
}


def wrong(name, families):
    """The share of families with any gain, and any loss, where there is none."""
    family = SHAPES[name]
    words, truth = judged(family, families), np.array(family.truth)
    sides = ((GAINS, truth <= 0), (LOSES, truth >= 0))
    gains, losses = ((words[:, null] == word).any(axis=1).mean() for word, null in sides)
    return {"family": name, "families": families, "gains": round(float(gains), 4), "losses": round(float(losses), 4)}


def error_table(rows):
    """(header, body): a row a shape of family."""
    body = [[row["family"], percent(row["gains"]), percent(row["losses"])] for row in rows]
    return ["no label differs, or some do", "a false gain", "a false loss"], body


def word_table(rows):
    """(header, body): a row a standard error and true difference, a column a word."""
    words = [word for word in WORDS if word in rows[0]]
    body = [[row["error"], row["difference"], *(percent(row[word], 0) for word in words)] for row in rows]
    return ["error", "true difference", *words], body


def main() -> None:
    errors = []
    for name in SHAPES:
        errors.append(wrong(name, 250))
        print(errors[-1], flush=True)
    write("errors", errors)
    tell("errors", *error_table(errors))
    rows = []
    for row in shares(40):
        print(row, flush=True)
        rows.append(row)
    write("verdicts", rows)
    tell("verdicts", *word_table(rows))


if __name__ == "__main__":
    main()
