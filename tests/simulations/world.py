"""Simulated test sets whose truth is known, and tables of what was found in them.

Scores are normal, shifted where the label is positive. A stay's score has a part that all models share, one of the
model and one of the run; the stays of a subject share half of every part and of what makes labels. A run's luck moves
its shift (or its accuracy). Folds test different subjects; their lucks are correlated as overlapping training sets make
them (Nadeau & Bengio 2003).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import norm

from pipeline.estimation.bootstrap import draw_subjects
from pipeline.estimation.metrics import accuracy, confusion, kappa, rank_metrics

ROOT = Path(__file__).resolve().parents[2]
DOC, TABLES = ROOT / "docs" / "reading-the-report.md", ROOT / "docs" / "simulations"
PREVALENCE, SHIFT, RIGHT = 0.2, 1.2, 0.5
PARTS = (0.6, 0.25, 0.15)  # of a score's variance: all models', the model's, the run's
CLASSES = np.array([0.28, 0.18, 0.12, 0.09, 0.07, 0.17, 0.09])  # of length of stay
TEST_SHARE = {1: 0.0, 3: 0.5, 5: 0.25}  # test stays per training stay, by folds
POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(21)


@dataclass(frozen=True)
class Design:
    """Positives tested in all (expected), stays a subject, folds, seeds; luck: its standard deviation."""

    positives: int
    stays: int = 1
    folds: int = 1
    seeds: int = 1
    labels: int = 1
    luck: float = 0.0

    @property
    def test_share(self) -> float:
        return TEST_SHARE[self.folds]

    @property
    def runs(self) -> list[int]:
        """The fold of each run."""
        return [fold for fold in range(self.folds) for _ in range(self.seeds)]


def clustered(random, subject, shape=()):
    """Standard normal values [..., n]; of several stays of a subject half of the variance is the subject's."""
    stays, subjects = len(subject), subject[-1] + 1
    if stays == subjects:
        return random.standard_normal((*shape, stays))
    shared = random.standard_normal((*shape, subjects))[..., subject]
    return np.sqrt(0.5) * (shared + random.standard_normal((*shape, stays)))


def lucks(random, design, models):
    """Luck of each model and run, [models, R]: independent between seeds; between folds correlated."""
    share = design.test_share / (1 + design.test_share) if design.folds > 1 else 0.0
    common = np.sqrt(share) * random.standard_normal((models, 1))
    return design.luck * (common + np.sqrt(1 - share) * random.standard_normal((models, design.folds * design.seeds)))


@cache
def tested(design, draws, fold):
    """(subject of each stay, draws) of a fold; samples of a design share them, since subjects are exchangeable."""
    subjects = max(2, round(design.positives / PREVALENCE / design.folds / design.stays))
    subject = np.repeat(np.arange(subjects), design.stays)
    return subject, draw_subjects(subject, draws, 0, "test", fold)


def ranked(random, design, draws, models=2):
    """AUROC and average precision of `models`, [models, 2, labels, R, 1 + D]."""
    luck = np.array([lucks(random, design, models) for _ in range(design.labels)])  # [labels, models, R]
    found, run = np.empty((models, 2, design.labels, design.folds * design.seeds, 1 + draws)), 0
    for fold in range(design.folds):
        subject, drawn = tested(design, draws, fold)
        truth = [clustered(random, subject) > norm.ppf(1 - PREVALENCE) for _ in range(design.labels)]
        shared = np.sqrt(PARTS[0]) * clustered(random, subject, (design.labels,))
        own = np.sqrt(PARTS[1]) * clustered(random, subject, (models, design.labels))
        for _ in range(design.seeds):
            noise = np.sqrt(PARTS[2]) * clustered(random, subject, (models, design.labels))
            for label in range(design.labels):
                for model in range(models):
                    shift = SHIFT + luck[label, model, run]
                    scores = shift * truth[label] + shared[label] + own[model, label] + noise[model, label]
                    found[model, :, label, run] = rank_metrics(scores, truth[label], subject, drawn)
            run += 1
    return found


def classed(random, design, draws, models=2):
    """Accuracy and kappa of `models`, [models, 2, 1, R, 1 + D]: right with a run's chance, else a guess."""
    luck, run = lucks(random, design, models), 0
    found = np.empty((models, 2, 1, design.folds * design.seeds, 1 + draws))
    for fold in range(design.folds):
        subject, drawn = tested(design, draws, fold)
        edges = norm.ppf(np.cumsum(CLASSES)[:-1])
        truth = np.searchsorted(edges, clustered(random, subject))
        shared, own = clustered(random, subject), clustered(random, subject, (models,))
        guess = np.searchsorted(edges, clustered(random, subject, (models,)))
        for _ in range(design.seeds):
            noise = clustered(random, subject, (models,))
            for model in range(models):
                parts = zip(PARTS, (shared, own[model], noise[model]), strict=True)
                ease = sum(np.sqrt(part) * each for part, each in parts)
                right = ease < norm.ppf(np.clip(RIGHT + luck[model, run], 0.01, 0.99))
                matrix = confusion(np.where(right, truth, guess[model]), truth, len(CLASSES), subject, drawn)
                found[model, :, 0, run] = accuracy(matrix), kappa(matrix)
            run += 1
    return found


def precision(shift):
    """Average precision of a normal score at PREVALENCE."""
    grid = np.linspace(-9, 12, 20_001)
    true, false = norm.sf(grid - shift), norm.sf(grid)
    at = PREVALENCE * true / (PREVALENCE * true + (1 - PREVALENCE) * false + 1e-300)
    return np.trapezoid(at * norm.pdf(grid - shift), grid)


@cache
def truths(luck):
    """AUROC, AUPRC, accuracy, kappa, each the mean over the luck of runs."""
    each = np.array([precision(SHIFT + luck * point) for point in POINTS])
    chance = (CLASSES**2).sum()
    return {
        "auroc": norm.cdf(SHIFT / np.sqrt(2 + luck**2)),
        "auprc": float(each @ WEIGHTS / WEIGHTS.sum()),
        "accuracy": RIGHT + (1 - RIGHT) * chance,
        "kappa": RIGHT,
    }


def write(name, rows):
    """docs/simulations/NAME.csv, from rows that are dictionaries with the same keys."""
    TABLES.mkdir(exist_ok=True)
    with (TABLES / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def read(name):
    """The rows of docs/simulations/NAME.csv; all values are text."""
    with (TABLES / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def percent(share, digits=1):
    """In per cent, of a number or its text."""
    return f"{100 * float(share):.{digits}f}"


def lines(header, body):
    """A Markdown table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *body)]


def _parted(name):
    """docs/reading-the-report.md before, between and after the marks `simulation: NAME` and `end`."""
    before, rest = DOC.read_text(encoding="utf-8").split(f"<!-- simulation: {name} -->\n")
    return before, *rest.split("<!-- end -->", 1)


def told(name):
    """The lines of a table in docs/reading-the-report.md."""
    return _parted(name)[1].splitlines()


def tell(name, header, body):
    """Puts a table between its marks."""
    before, _, after = _parted(name)
    inside = "\n".join([f"<!-- simulation: {name} -->", *lines(header, body), "<!-- end -->"])
    DOC.write_text(before + inside + after, encoding="utf-8")
