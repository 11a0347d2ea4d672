"""The metrics of one run, for the sample and all bootstrap draws at once: weighted sums, no loop over draws.

Every function takes scores and labels of n stays, `rows` (the row of each stay's subject in the weights) and the
`SubjectDraws`, and returns [1 + D] values, the sample itself first. NaN marks "not estimable" and stays inside of this
package: what leaves it as a table or JSON says null (pipeline.presentation.tables).

Weighted AUROC and average precision agree with scikit-learn's `roc_auc_score` and `average_precision_score` under
`sample_weight`: ties share a rank, and precision is taken at distinct scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pipeline.estimation.bootstrap import Floats, SubjectDraws, quotient

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

GROUP = 64  # rows of running sums that are added up together ...
FEW = 1 << 17  # ... where there are more sums than these
BINARY = ("auroc", "auprc", "f1", "accuracy", "kappa", "brier", "ece")


def nothing(draws: SubjectDraws) -> Floats:
    """Not estimable in any draw."""
    return np.full(draws.columns, np.nan)


def _gather(segment: Ints, rows: Ints, segments: int, subjects: int) -> csr_array:
    """Matrix [segments, subjects] that sums subjects' weights by segment; `segment` does not decrease."""
    starts = np.searchsorted(segment, np.arange(segments + 1))
    return csr_array((np.ones(len(rows)), rows, starts), shape=(segments, subjects))


def running_sums(values: Floats) -> Floats:
    """`np.cumsum(values, axis=0)` of whole numbers [K, d]; of many in a third of its time: groups of rows, then totals.

    Sums of whole numbers are exact, in whichever order they are made.
    """
    if values.size <= FEW:
        return np.cumsum(values, axis=0)
    count, width = values.shape
    groups = -(-count // GROUP)
    sums = np.zeros((groups, GROUP, width))
    sums.reshape(-1, width)[:count] = values
    for row in range(1, GROUP):
        sums[:, row] += sums[:, row - 1]
    sums[1:] += np.cumsum(sums[:-1, -1], axis=0)[:, None]
    return sums.reshape(-1, width)[:count]


def rank_metrics(
    scores: Floats, labels: Bools, rows: Ints, draws: SubjectDraws, prevalence: float | None = None
) -> tuple[Floats, Floats]:
    """(AUROC, average precision), each [1 + D]; NaN with one class alone.

    With a `prevalence`, negatives are weighted so that it is the share of the positives in every draw: precision then
    is what it would be at that prevalence, π / (π + (1 − π) FPR / TPR), and average precision can be compared between
    groups of unlike prevalence (Siblini et al., IDA 2020, "Master your metrics with calibration").

    Constant scores tell nobody apart: 0.5 and the prevalence. Left out, a strategy that learns no more than the prior
    of its harder labels would have a macro mean over the easy ones.

    One sort; then sums of weights between consecutive distinct scores that hold a positive. Only these matter: a step
    of either curve in which no positive is passed adds nothing to average precision, and to AUROC through the next.
    """
    if not labels.any() or labels.all():
        return nothing(draws), nothing(draws)
    order = np.argsort(-scores, kind="stable")
    scores, labels, rows = scores[order], labels[order], rows[order]
    group = np.concatenate([[0], np.cumsum(scores[1:] != scores[:-1])])
    steps = np.unique(group[labels])  # groups of equal scores that hold a positive, best first
    of_positive = np.searchsorted(steps, group[labels])
    of_negative = np.searchsorted(steps, group[~labels])  # the step at or before which a negative is passed
    tied = (of_negative < len(steps)) & (steps[np.minimum(of_negative, len(steps) - 1)] == group[~labels])
    subjects = len(draws.subjects)
    gain = _gather(of_positive, rows[labels], len(steps), subjects)
    loss = _gather(of_negative, rows[~labels], len(steps) + 1, subjects)
    ties = _gather(of_negative[tied], rows[~labels][tied], len(steps), subjects) if tied.any() else None
    auroc, precision = [], []
    for weights in draws.blocks:
        passed = gain @ weights  # weight of the positives at each step
        false = running_sums(loss @ weights)  # of the negatives passed by then
        true = running_sums(passed)
        positives, negatives = true[-1].copy(), false[-1]  # `true` is overwritten below
        below = negatives - false[:-1]
        if ties is not None:
            below += 0.5 * (ties @ weights)
        auroc.append(quotient(np.einsum("kd,kd->d", passed, below), positives * negatives))
        if prevalence is not None:
            false = false * (quotient(positives, negatives) * (1 - prevalence) / prevalence)
        at_step = np.maximum(true + false[:-1], 1.0)  # weights are whole numbers: 0 only where `passed` is 0, too
        np.divide(true, at_step, out=true)
        precision.append(quotient(np.einsum("kd,kd->d", passed, true), positives))
    return np.concatenate(auroc), np.concatenate(precision)


def weighted_sums(values: Floats, rows: Ints, draws: SubjectDraws) -> Floats:
    """Sums of `values` [n, Q] over stays, weighted: [Q, 1 + D]."""
    by_subject = np.zeros((len(draws.subjects), values.shape[1]))
    np.add.at(by_subject, rows, values)
    return np.concatenate([by_subject.T @ block for block in draws.blocks], axis=1)


def mass_bins(scores: Floats, bins: int) -> Ints:
    """Bin of each score, 0 … bins − 1, of about equal counts; equal scores share a bin, so that one may be empty."""
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    ordered = np.sort(scores)
    return np.searchsorted(ordered, scores, side="left").astype(np.int64) * bins // len(scores)


def calibration_error(scores: Floats, correct: Floats, rows: Ints, draws: SubjectDraws, bins: int) -> Floats:
    """Expected calibration error over bins of equal mass: the mean of |mean score − mean outcome| by weight, [1 + D].

    The bins are those of the sample in every draw.
    """
    gaps = np.zeros((len(scores), bins + 1))
    gaps[np.arange(len(scores)), mass_bins(scores, bins)] = scores - correct
    gaps[:, bins] = 1.0
    sums = weighted_sums(gaps, rows, draws)
    return quotient(np.abs(sums[:bins]).sum(axis=0), sums[bins])


def best_threshold(scores: Floats, labels: Bools) -> float | None:
    """The score t for which `score >= t` has the largest F1; the highest of equals; None without a positive."""
    if not labels.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, labels = scores[order], labels[order]
    last = np.append(scores[1:] != scores[:-1], True)  # where all of an equal score have been passed
    f1 = 2 * np.cumsum(labels)[last] / (np.arange(1, len(scores) + 1)[last] + labels.sum())
    return float(scores[last][np.argmax(f1)])


def confusion(predicted: Ints, truth: Ints, classes: int, rows: Ints, draws: SubjectDraws) -> Floats:
    """Weighted confusion matrices, [truth, predicted, 1 + D]."""
    cells = np.zeros((len(truth), classes * classes))
    cells[np.arange(len(truth)), truth * classes + predicted] = 1.0
    return weighted_sums(cells, rows, draws).reshape(classes, classes, -1)


def accuracy(matrix: Floats) -> Floats:
    """Share on the diagonal of confusion matrices [C, C, 1 + D]."""
    return quotient(np.einsum("ccd->d", matrix), matrix.sum(axis=(0, 1)))


def kappa(matrix: Floats) -> Floats:
    """Cohen's unweighted kappa (1960); NaN where chance alone agrees always."""
    total = matrix.sum(axis=(0, 1))
    chance = np.einsum("cd,cd->d", matrix.sum(axis=0), matrix.sum(axis=1))
    agreed = np.einsum("ccd->d", matrix) * total
    return quotient(agreed - chance, total**2 - chance)


def quadratic_kappa(matrix: Floats) -> Floats:
    """Cohen's kappa (1968) with a disagreement weighing the square of its distance in classes; NaN as `kappa`."""
    place = np.arange(len(matrix))
    distance = (place[:, None] - place[None, :]) ** 2.0
    seen = np.einsum("tp,tpd->d", distance, matrix) * matrix.sum(axis=(0, 1))
    chance = np.einsum("tp,td,pd->d", distance, matrix.sum(axis=1), matrix.sum(axis=0))
    return quotient(chance - seen, chance)


def f1_by_class(matrix: Floats) -> Floats:
    """F1 of each class against the rest, [C, 1 + D]; NaN for a class that is neither present nor predicted."""
    hits = np.einsum("ccd->cd", matrix)
    return quotient(2 * hits, matrix.sum(axis=0) + matrix.sum(axis=1))


def binary_metrics(
    scores: Floats, labels: Bools, threshold: float | None, rows: Ints, draws: SubjectDraws, bins: int
) -> dict[str, Floats]:
    """All of BINARY for one label, each [1 + D].

    F1, accuracy and kappa take `score >= threshold` as the prediction and are not estimable where there is no
    threshold; F1 needs a positive label besides.
    """
    if not len(scores):
        return {name: nothing(draws) for name in BINARY}
    auroc, auprc = rank_metrics(scores, labels, rows, draws)
    truth = labels.astype(np.float64)
    total, squared = weighted_sums(np.stack([np.ones(len(scores)), (scores - truth) ** 2], axis=1), rows, draws)
    found = {
        "auroc": auroc,
        "auprc": auprc,
        "brier": quotient(squared, total),
        "ece": calibration_error(scores, truth, rows, draws, bins),
    }
    if threshold is None:
        return found | {name: nothing(draws) for name in ("f1", "accuracy", "kappa")}
    matrix = confusion((scores >= threshold).astype(np.int64), labels.astype(np.int64), 2, rows, draws)
    positives = matrix[1].sum(axis=0)
    return found | {
        "f1": np.where(positives > 0, f1_by_class(matrix)[1], np.nan) if labels.any() else nothing(draws),
        "accuracy": accuracy(matrix),
        "kappa": kappa(matrix),
    }


def multiclass_metrics(scores: Floats, truth: Ints, rows: Ints, draws: SubjectDraws, bins: int) -> dict[str, Floats]:
    """Metrics of class probabilities [n, C] against classes [n], each [1 + D]; the prediction is the likeliest class.

    F1 is the macro mean over classes that are present or predicted; Brier is the sum of squares over classes; ECE
    compares the probability of the likeliest class with how often it is right.
    """
    if not len(truth):
        return {name: nothing(draws) for name in ("accuracy", "kappa", "f1", "brier", "ece")}
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    matrix = confusion(predicted, truth, classes, rows, draws)
    one_hot = np.eye(classes)[truth]
    total, squared = weighted_sums(
        np.stack([np.ones(len(truth)), ((scores - one_hot) ** 2).sum(axis=1)], axis=1), rows, draws
    )
    by_class = f1_by_class(matrix)
    present = ~np.isnan(by_class)
    return {
        "accuracy": accuracy(matrix),
        "kappa": kappa(matrix),
        "f1": quotient(np.nan_to_num(by_class).sum(axis=0), present.sum(axis=0).astype(np.float64)),
        "brier": quotient(squared, total),
        "ece": calibration_error(scores.max(axis=1), (predicted == truth).astype(np.float64), rows, draws, bins),
    }
