"""How often 95 % intervals hold the truth: `python -m tests.simulations.coverage` writes docs/simulations/coverage.csv.

And the table of docs/reading-the-report.md. Luck is given as the variance of one run's true value over that which the
patients of one fold give it; of differences as that of the difference. `family`: differences of twelve labels, whose
estimates are moderated.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import norm

from pipeline.estimation.variance import Estimate, estimate, macro_runs, moderated
from pipeline.evaluation.scores import estimate_interval
from tests.simulations.world import CLASSES, SHIFT, Design, classed, percent, ranked, tell, truths, write

DRAWS, CONFIDENCE, WITHIN = 200, 0.95, (0.935, 0.965)
PILOT = 40
SCORE, DIFFERENCE, FAMILY, MACRO = "score", "difference", "difference in a family", "macro"
CLASSED, CLASSED_DIFFERENCE = "classes", "difference of classes"
WHAT = {
    SCORE: ("auroc", "auprc"),
    DIFFERENCE: ("auroc", "auprc"),
    FAMILY: ("auroc", "auprc"),
    MACRO: ("auroc", "auprc"),
    CLASSED: ("accuracy", "kappa"),
    CLASSED_DIFFERENCE: ("accuracy", "kappa"),
}
PATIENTS = [(positives, stays) for positives in (20, 50, 100, 500) for stays in (1, 3)]
RUNS = [(1, 3), (1, 5), (3, 1), (5, 1)]  # folds, seeds
RATIOS = (0.0, 1.0, 3.0)


def values(random, kind, design):
    """(metric, draws [R, 1 + D] of each of what `kind` is about, truth)."""
    make, models = (classed if "classes" in kind else ranked), 2 if "difference" in kind else 1
    drawn, true = make(random, design, DRAWS, models), truths(design.luck)
    for i, metric in enumerate(WHAT[kind]):
        of = drawn[0, i] if models == 1 else drawn[1, i] - drawn[0, i]  # [labels, R, 1 + D]
        yield metric, [macro_runs(of)] if kind == MACRO else list(of), 0.0 if models == 2 else true[metric]


def luck_of(random, kind, design, ratio):
    """The standard deviation of luck that gives the first metric `ratio` times the variance of one fold's patients."""
    if not ratio:
        return 0.0
    alone = replace(design, positives=design.positives // design.folds, folds=1, seeds=1)
    each = [next(values(random, kind, alone))[1] for _ in range(PILOT)]
    patients = np.mean([estimate(drawn, [0], 0.0).patients for sample in each for drawn in sample])
    slope = 1 - (CLASSES**2).sum() if "classes" in kind else norm.pdf(SHIFT / np.sqrt(2)) / np.sqrt(2)
    models = 2 if "difference" in kind else 1
    return float(np.sqrt(ratio * patients * (design.labels if kind == MACRO else 1) / models) / slope)


def cell(kind, design, ratio, samples, seed=0):
    """Rows of the table: of each metric, the share of intervals that hold the truth."""
    key = [list(WHAT).index(kind), design.positives, design.stays, design.folds, design.seeds, int(10 * ratio)]
    random = np.random.default_rng([seed, *key])
    design = replace(design, luck=luck_of(random, kind, design, ratio))
    held: dict[str, list[bool]] = {metric: [] for metric in WHAT[kind]}
    for _ in range(samples):
        for metric, each, truth in values(random, kind, design):
            found = [estimate(drawn, design.runs, design.test_share) for drawn in each]
            for one in moderated(found) if kind == FAMILY else found:
                low, high = bounds(kind, metric, one)
                held[metric].append(low is not None and high is not None and low <= truth <= high)
    return [
        {
            "of": kind,
            "metric": metric,
            "positives": design.positives,
            "stays_a_subject": design.stays,
            "folds": design.folds,
            "seeds": design.seeds,
            "luck": ratio,
            "samples": samples,
            "coverage": round(float(np.mean(each)), 4),
        }
        for metric, each in held.items()
    ]


def bounds(kind: str, metric: str, found: Estimate):
    """A score's interval is its metric's; a difference's the plain one."""
    return found.interval(CONFIDENCE) if "difference" in kind else estimate_interval(metric, found, CONFIDENCE)


def settings():
    """(kind, design, luck, samples): patients without luck; runs and luck at 100 positives; labels together."""
    for kind in (SCORE, DIFFERENCE, CLASSED, CLASSED_DIFFERENCE):
        for positives, stays in PATIENTS:
            yield kind, Design(positives, stays), 0.0, 1000
        for folds, seeds in RUNS:
            for ratio in RATIOS:
                yield kind, Design(100, 1, folds, seeds), ratio, 1000
    for folds, seeds in RUNS:
        for ratio in RATIOS:
            yield FAMILY, Design(100, 1, folds, seeds, labels=12), ratio, 150
    for positives, stays in [(20, 1), (50, 1), (50, 3), (100, 1)]:
        yield MACRO, Design(positives, stays, labels=25), 0.0, 600
    for folds, seeds in ((1, 3), (3, 1)):
        yield MACRO, Design(100, 1, folds, seeds, labels=25), 1.0, 400


def main() -> None:
    rows = []
    for kind, design, ratio, samples in settings():
        found = cell(kind, design, ratio, samples)
        print(kind, design, ratio, [row["coverage"] for row in found], flush=True)
        rows += found
    write("coverage", rows)
    tell("coverage", *table(rows))


def table(rows):
    """(header, body): a row a setting, a column a quantity; what misses 93.5 to 96.5 % is marked."""
    columns = [(kind, metric) for kind, metrics in WHAT.items() for metric in metrics]
    body: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("positives", "stays_a_subject", "folds", "seeds", "luck"))
        mark = "" if WITHIN[0] <= float(row["coverage"]) <= WITHIN[1] else " \\*"
        body.setdefault(key, {})[row["of"], row["metric"]] = percent(row["coverage"]) + mark
    names = [f"{metric}, {kind}" for kind, metric in columns]
    header = ["positives", "stays a subject", "folds", "seeds", "luck", *names]
    return header, [[*key, *(found.get(column, "") for column in columns)] for key, found in body.items()]


if __name__ == "__main__":
    main()
