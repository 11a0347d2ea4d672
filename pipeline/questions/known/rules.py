"""The field's usual rules of claiming a gain, read off the very same predictions, against the planted truth.

Each is as papers state it; what all say of a label, gain, no gain or nothing, is held against what is attainable. A
gain is right where anything is attainable beyond the better modality, "no gain" where no more than the margin is.
`ours` are the verdicts of question 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import ttest_rel

from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.variance import estimate
from pipeline.estimation.verdicts import EQUIVALENT, GAINS, NO_RELEVANT_GAIN
from pipeline.evaluation.choice import NOTHING, Validation, chosen
from pipeline.evaluation.scores import headline
from pipeline.questions.when.source import Source, share_tested
from pipeline.tasks import Task

GAIN, NONE, SILENT = "gain", "no gain", "nothing"
ALPHA = 0.05
RULES = {
    "higher_mean": "higher mean on the test set of one fold",
    "deviations_apart": "mean ± standard deviation over runs apart",
    "paired_t": "paired t-test over folds (p < 0.05)",
    "one_opponent": "our interval, but one opponent for all labels",
    "best_on_test": "both strategies chosen on test, higher mean",
    "ours": "ours: both opponents by label, all comparisons at once",
}
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("cohort", "rule"), pl.String),
    **dict.fromkeys(
        ("labels", "attainable", "gain_right", "gain_wrong", "none_right", "none_wrong", "silent"), pl.Int64
    ),
}


@dataclass(frozen=True)
class StrategyDraws:
    """A strategy's kind and validation, its runs (fold, seed), and draws of AUROC by label, [R, 1 + D]."""

    kind: str
    validation: Mapping[str, Validation]
    runs: tuple[tuple[int, int], ...]
    values: Mapping[str, Floats]


def usual_rules(
    known: Source, task: Task, cohort: str, draws: Mapping[str, StrategyDraws], answers: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """(cohort, rule, label, attainable, says) of every rule and label; `answers` are rows of known.csv of the cohort.

    Papers compare one fusion strategy with one baseline: of all in the grid, those with the best score of the task on
    validation.
    """
    of_kind = {kind: {n: each for n, each in draws.items() if each.kind == kind} for kind in ("fusion", "unimodal")}
    picked = {kind: _best(of, headline(task)) for kind, of in of_kind.items()}
    if picked["fusion"] is None or picked["unimodal"] is None:
        return []
    one, two = draws[picked["fusion"]], draws[picked["unimodal"]]
    share = share_tested(known.people, cohort)
    found = []
    for answer in answers:
        label = answer["label"]
        a, b = one.values[label], two.values[label]
        says = {
            "higher_mean": higher_mean(a[:, 0], b[:, 0], one.runs),
            "deviations_apart": deviations_apart(a[:, 0], b[:, 0]),
            "paired_t": paired_t(a[:, 0], b[:, 0], one.runs),
            "one_opponent": _interval(a - b, one.runs, share, known.rule.confidence),
            "best_on_test": best_on_test(*(_scores(of, label) for of in of_kind.values())),
            "ours": {GAINS: GAIN, NO_RELEVANT_GAIN: NONE, EQUIVALENT: NONE}.get(answer["verdict"], SILENT),
        }
        about = {"cohort": cohort, "label": label, "attainable": answer["attainable"]}
        margin = known.rule.margins.auroc
        found += [about | {"margin": margin, "rule": rule, "says": said} for rule, said in says.items()]
    return found


def _best(of: Mapping[str, StrategyDraws], label: str) -> str | None:
    return chosen({name: each.validation.get(label, NOTHING) for name, each in of.items()}, of)


def _scores(of: Mapping[str, StrategyDraws], label: str) -> list[Floats]:
    return [each.values[label][:, 0] for each in of.values()]


def _mean(values: Iterable[float]) -> float:
    known = [each for each in values if not np.isnan(each)]
    return float(np.mean(known)) if known else float("nan")


def _sign(difference: float) -> str:
    return SILENT if np.isnan(difference) else GAIN if difference > 0 else NONE


def higher_mean(a: Floats, b: Floats, runs: Sequence[tuple[int, int]]) -> str:
    """The mean over the seeds of the first fold, compared as it is."""
    first = np.array([fold == runs[0][0] for fold, _ in runs])
    return _sign(_mean(a[first]) - _mean(b[first]))


def deviations_apart(a: Floats, b: Floats) -> str:
    """Means over all runs, each ± its standard deviation: a gain where they do not touch; with one run nothing."""
    a, b = (each[~np.isnan(each)] for each in (a, b))
    if min(len(a), len(b)) < 2:
        return SILENT
    apart = abs(a.mean() - b.mean()) > a.std(ddof=1) + b.std(ddof=1)
    return _sign(float(a.mean() - b.mean())) if apart else SILENT


def paired_t(a: Floats, b: Floats, runs: Sequence[tuple[int, int]]) -> str:
    """Student's t of the folds' differences, as if folds were independent; with one fold nothing."""
    folds = sorted({fold for fold, _ in runs})
    at = np.array([fold for fold, _ in runs])
    each = np.array([(_mean(a[at == fold]), _mean(b[at == fold])) for fold in folds])
    each = each[~np.isnan(each).any(axis=1)]
    if len(each) < 2 or np.ptp(each[:, 0] - each[:, 1]) == 0:
        return SILENT
    p = float(ttest_rel(each[:, 0], each[:, 1]).pvalue)
    return _sign(float((each[:, 0] - each[:, 1]).mean())) if p < ALPHA else SILENT


def _interval(apart: Floats, runs: Sequence[tuple[int, int]], share: float, confidence: float) -> str:
    low, high = estimate(apart, [fold for fold, _ in runs], share).interval(confidence)
    if low is None or high is None:
        return SILENT
    return GAIN if low > 0 else NONE if high < 0 else SILENT


def best_on_test(fusion: Sequence[Floats], unimodal: Sequence[Floats]) -> str:
    """The best fusion strategy on test less the best unimodal one on test, label by label."""
    best: list[float] = []
    for side in (fusion, unimodal):
        means = [mean for mean in map(_mean, side) if not np.isnan(mean)]
        best.append(max(means, default=float("nan")))
    return _sign(best[0] - best[1])


def counted_rules(said: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The table known_rules: a row a cohort and rule, how often it was right and wrong of labels with known truth."""
    rows = []
    known = [each for each in said if each["attainable"] is not None]
    for cohort in dict.fromkeys(each["cohort"] for each in known):
        for rule in RULES:
            of = [each for each in known if each["cohort"] == cohort and each["rule"] == rule]

            def count(word: str, right: Callable[[Mapping[str, Any]], bool], of: Any = of) -> tuple[int, int]:
                own = [each for each in of if each["says"] == word]
                return sum(map(right, own)), sum(not right(each) for each in own)

            gain = count(GAIN, lambda each: each["attainable"] > 0)
            none = count(NONE, lambda each: each["attainable"] <= each["margin"])
            rows.append(
                {
                    "cohort": cohort,
                    "rule": rule,
                    "labels": len(of),
                    "attainable": sum(each["attainable"] > each["margin"] for each in of),
                    "gain_right": gain[0],
                    "gain_wrong": gain[1],
                    "none_right": none[0],
                    "none_wrong": none[1],
                    "silent": sum(each["says"] == SILENT for each in of),
                }
            )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
