"""How often intervals of a few folds hold the truth, exactly: `python -m tests.simulations.folds`.

Writes docs/simulations/folds.csv and its table in docs/reading-the-report.md. Folds are normal: patients give each a
variance of 1, luck of training one of `luck`, correlated as overlapping training sets make it (Nadeau & Bengio 2003).
Their mean and mean square are independent, so that coverage is an integral over the mean square.

`least` is the limit to any rule that reads a half width off the mean square: where none is narrower than what patients
alone give (wrong too often whatever the luck), and none holds the truth in less than 93.5 % at any luck, how often the
least cautious one must hold it at a luck of 0 to 3. A linear programme, whose rules may draw lots.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.stats import chi2, norm

from pipeline.estimation.variance import Estimate, Square
from tests.simulations.world import TEST_SHARE, percent, tell, write

LUCKS = (0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0, 30.0)
TOLD = (0.0, 0.3, 0.5, 1.0, 3.0, 10.0)  # in the table
FOLDS = (3, 5)
TAIL, LOW, HIGHEST_LUCK = 0.025, 0.935, 3.0
POINTS, BINS, WIDTHS = 400, 90, 60


def error(folds, luck):
    """The true standard error of the mean over folds."""
    return np.sqrt(1 / folds + luck * (1 / folds + TEST_SHARE[folds]))


def half_width(folds, square):
    """As the report has it."""
    between = Square(square, folds - 1, 1.0, 1 / folds + TEST_SHARE[folds])
    return Estimate(0.0, 1 / folds, None, between, runs=folds, splits=folds).half_width(TAIL)


def coverage(folds, luck):
    """By quadrature over the quantiles of the mean square."""
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    squares = (1 + luck) * chi2.ppf((1 + points) / 2, folds - 1) / (folds - 1)
    wide = np.array([half_width(folds, square) for square in squares])
    return float(weights / 2 @ (2 * norm.cdf(wide / error(folds, luck)) - 1))


def least(folds):
    """The limit, to a tenth of a per cent: mean squares in BINS, half widths from WIDTHS."""
    edges = np.r_[0, np.geomspace(0.02, 3000, BINS), np.inf]
    widths = np.geomspace(norm.isf(TAIL) / np.sqrt(folds), 400, WIDTHS)
    chance = np.array([np.diff(chi2.cdf(edges * (folds - 1) / (1 + luck), folds - 1)) for luck in LUCKS])
    hold = np.array([2 * norm.cdf(widths / error(folds, luck)) - 1 for luck in LUCKS])
    held = (chance[:, :, None] * hold[:, None, :]).reshape(len(LUCKS), -1)  # a variable a bin and width: its share
    asked = np.array(LUCKS) <= HIGHEST_LUCK
    below = np.c_[held[asked], -np.ones(asked.sum())]  # at most the last variable, which is made small
    above = np.c_[-held, np.zeros(len(LUCKS))]
    bins = chance.shape[1]
    found = linprog(
        np.r_[np.zeros(held.shape[1]), 1],
        A_ub=np.r_[below, above],
        b_ub=np.r_[np.zeros(asked.sum()), np.full(len(LUCKS), -LOW)],
        A_eq=np.c_[np.kron(np.eye(bins), np.ones(WIDTHS)), np.zeros(bins)],
        b_eq=np.ones(bins),
        bounds=(0, 1),
        method="highs",
    )
    return float(found.fun)


def rows():
    for folds in FOLDS:
        limit = round(least(folds), 4)
        for luck in LUCKS:
            yield {"folds": folds, "luck": luck, "coverage": round(coverage(folds, luck), 4), "least": limit}


def table(rows):
    """(header, body): a row a number of folds, a column a luck."""
    body = []
    for folds in dict.fromkeys(row["folds"] for row in rows):
        of = {float(row["luck"]): row for row in rows if row["folds"] == folds}
        body.append([folds, *(percent(of[luck]["coverage"]) for luck in TOLD), percent(of[0.0]["least"])])
    return ["folds", *(f"luck {luck:g}" for luck in TOLD), "no rule less than"], body


def main() -> None:
    found = list(rows())
    write("folds", found)
    tell("folds", *table(found))


if __name__ == "__main__":
    main()
