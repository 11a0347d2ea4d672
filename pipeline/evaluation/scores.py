"""From a cell's predictions to the draws of its metrics: per fold and seed, then averaged; never pooled over folds.

`score` is what tables, paired differences and subgroups build on: it takes any subset of a cell's rows and gives, per
label and metric, the estimate and its bootstrap draws. Two results made with the same `Sampler` may be subtracted
column by column.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl

from pipeline.disclosure import parted, protected
from pipeline.estimation.bootstrap import (
    Floats,
    SubjectDraws,
    average_labels,
    average_runs,
    draw_subjects,
    interval,
)
from pipeline.estimation.metrics import (
    BINARY,
    best_threshold,
    binary_metrics,
    multiclass_metrics,
    rank_metrics,
)
from pipeline.estimation.variance import Bounds, Estimate, estimate, macro_runs
from pipeline.tasks import Task

Key = TypeVar("Key", bound=Hashable)
MACRO = "macro"  # the label of an average over labels, and of length of stay as a whole
# What `dvc metrics` shows: the first ones with their interval.
HEADLINE = {
    "binary": (("auroc", "auprc"), ("f1", "brier")),
    "multilabel": (("auroc", "auprc"), ("f1", "brier")),
    "multiclass": (("accuracy", "kappa"), ("f1", "brier")),
}
# Metrics whose draws are biased, and how often their interval takes the bias away (bootstrap.interval); the coverage
# that this gives is measured in tests/unit/estimation/test_bootstrap.py and test_coverage.py.
SHIFTS = {"ece": 1, "ece_debiased": 1, "auprc": 2}
ODDS, BIASED = {"auroc", "auprc"}, {"auprc"}  # intervals of Estimate: in log-odds, less the bias
RANGES = {"kappa": (-1.0, 1.0), "quadratic_kappa": (-1.0, 1.0), "brier": (0.0, 2.0)}  # of others: 0 to 1
LOGIT = {"auroc"}  # metrics whose interval is made of log-odds


def headline(task: Task) -> str:
    """The label under which a task's own score stands: its only one, or MACRO."""
    return task.labels[0] if task.kind == "binary" else MACRO


def metrics_of(task: Task) -> tuple[str, str]:
    """The two metrics that are compared; the first is the one that chooses, and that verdicts are about."""
    return HEADLINE[task.kind][0]


def metric_interval(metric: str, values: Floats, confidence: float) -> tuple[float | None, float | None]:
    """The interval of a metric (not of a difference) from its draws [1 + D], or (None, None)."""
    return interval(values, confidence, SHIFTS.get(metric, 0), metric in LOGIT)


def estimate_interval(metric: str, found: Estimate, confidence: float) -> Bounds:
    """The interval of a metric (not of a difference) from its estimate over runs, or (None, None).

    AUROC and average precision: symmetric in log-odds; of the latter about the value less its bias. Other bounds are
    kept within what the metric can be.
    """
    low, high = found.interval(confidence, log_odds=metric in ODDS, unbiased=metric in BIASED)
    least, most = RANGES.get(metric, (0.0, 1.0))
    return None if low is None else max(low, least), None if high is None else min(high, most)


class Sampler:
    """The draws' weights for a population, made when first asked for: per part and fold.

    `people` have a row a stay and fold, with its part; `test_share` is how many are tested per one trained on.
    """

    def __init__(self, people: pl.DataFrame, draws: int, seed: int) -> None:
        self._people = people
        self._draws = draws
        self._seed = seed
        self._cache: dict[tuple[str, int], SubjectDraws] = {}
        test, train = (people.filter(part=part).height for part in ("test", "train"))
        self.test_share = test / max(1, train)

    def subjects(self, part: str, fold: int) -> SubjectDraws:
        """Weights of the subjects of a part and fold; resampled in the base cohort, whichever rows are scored."""
        if (part, fold) not in self._cache:
            chosen = self._people.filter((pl.col("part") == part) & (pl.col("fold") == fold))["subject_id"].to_numpy()
            self._cache[part, fold] = draw_subjects(chosen, self._draws, self._seed, part, fold)
        return self._cache[part, fold]


class Told(NamedTuple):
    """Stays and, by label, those with it, as tables tell them (pipeline.disclosure); None where nobody has a label."""

    n: str
    positives: Mapping[str, str | None]


class OverRuns(Mapping[Key, Floats]):
    """The draws of each run, by key: a mapping to their mean, [1 + D], with the estimate over runs of each."""

    def __init__(self, each: Mapping[Key, Floats], folds: Sequence[int], test_share: float) -> None:
        self._each, self._folds, self._test_share = dict(each), folds, test_share
        self._mean = {key: average_runs(values) for key, values in self._each.items()}

    def __getitem__(self, key: Key) -> Floats:
        return self._mean[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._mean)

    def __len__(self) -> int:
        return len(self._mean)

    @property
    def runs(self) -> int:
        """How many were averaged."""
        return len(self._folds)

    def add_macro(self, key: Key, of: Sequence[Key]) -> None:
        """Puts the mean over labels under `key`."""
        self._each[key] = macro_runs(np.array([self._each[label] for label in of]))
        self._mean[key] = average_labels(np.array([self._mean[label] for label in of]))

    def estimable(self, key: Key) -> int:
        """In how many runs it is."""
        return int((~np.isnan(self._each[key][:, 0])).sum())

    def estimate(self, key: Key) -> Estimate:
        """With all that it varies by."""
        return estimate(self._each[key], self._folds, self._test_share)


@dataclass(frozen=True)
class Scored:
    """Draws by (label, metric), each [1 + D] with the estimate first; NaN is "not estimable".

    `people` are the distinct stays scored, and `labels` over how many labels a macro mean of a metric was taken.
    """

    values: OverRuns[tuple[str, str]]
    people: Told
    labels: Mapping[str, int] = field(default_factory=dict)

    def estimate(self, label: str, metric: str) -> float | None:
        """The metric of the sample itself, or None."""
        value = float(self.values[label, metric][0])
        return None if np.isnan(value) else value

    def interval(self, label: str, metric: str, confidence: float) -> tuple[float | None, float | None]:
        """Its interval, or (None, None)."""
        return estimate_interval(metric, self.values.estimate((label, metric)), confidence)


def thresholds(rows: pl.DataFrame, task: Task) -> dict[str, float | None]:
    """Per label, the threshold with the best F1 on the validation rows of one run; None without a positive there."""
    if task.kind == "multiclass":
        return {}
    return {
        label: best_threshold(rows[f"p_{label}"].to_numpy(), rows[label].cast(pl.Boolean).to_numpy())
        for label in task.labels
    }


def in_cohort(cohort: str) -> pl.Expr:
    """Stays of a cohort: all of `base`, or those with an image."""
    return pl.lit(True) if cohort == "base" else pl.col("has_cxr")


def over_runs(
    predictions: pl.DataFrame,
    part: str,
    where: pl.Expr,
    sampler: Sampler,
    measure: Callable[[pl.DataFrame, pl.DataFrame, SubjectDraws], Mapping[Key, Floats]],
) -> OverRuns[Key]:
    """What `measure` gives for a run, of all runs.

    `measure` gets the run's rows of the part `where`, its validation rows of its cohort of training, and the draws of
    its subjects; all its values are [1 + D]. `predictions` are as those of `score`.
    """
    rows = predictions.filter((pl.col("part") == part) & where)
    validation = predictions.filter((pl.col("part") == "val") & in_cohort(predictions["train_cohort"][0]))
    runs = predictions.select("fold", "seed").unique().sort("fold", "seed").rows()
    found: dict[Key, list[Floats]] = {}
    for fold, seed in runs:
        run = (pl.col("fold") == fold) & (pl.col("seed") == seed)
        measured = measure(rows.filter(run), validation.filter(run), sampler.subjects(part, fold))
        for key, values in measured.items():
            found.setdefault(key, []).append(values)
    each = {key: np.array(values) for key, values in found.items()}
    return OverRuns(each, [fold for fold, _ in runs], sampler.test_share)


def score(predictions: pl.DataFrame, task: Task, part: str, where: pl.Expr, sampler: Sampler, bins: int) -> Scored:
    """Metrics of the stays `where` in a part, over all folds and seeds of one kind of run.

    `predictions` are rows of `cells.read_predictions` of one cohort of training, share and mechanism of removal, all
    parts. Thresholds are fixed on each run's validation stays of its cohort of training, whatever `where` says.
    Phenotypes: each label, and their macro mean. Length of stay: each class against the rest for AUROC and AUPRC, their
    macro mean, and the metrics of the whole.
    """
    score_one = _multiclass if task.kind == "multiclass" else _labels
    values = over_runs(
        predictions,
        part,
        where,
        sampler,
        lambda rows, validation, draws: score_one(rows, validation, task, draws, bins),
    )
    labels: dict[str, int] = {}
    if task.kind != "binary":
        whole = {metric for label, metric in values if label == MACRO}
        for metric in sorted({metric for _, metric in values} - whole):
            each = [key for key in values if key[1] == metric]
            labels[metric] = sum(not np.isnan(values[key][0]) for key in each)
            values.add_macro((MACRO, metric), each)
    everyone = predictions.filter(pl.col("part") == part).unique("stay_id")
    return Scored(values, tell(everyone, [where], task)[0], labels)


def tell(everyone: pl.DataFrame, groups: Sequence[pl.Expr], task: Task) -> list[Told]:
    """Who is in each of `groups`, apart from each other, of `everyone`, a row a stay: tables stand beside everyone's.

    Of several labels the sum is told, too, under MACRO; length of stay has none.
    """
    groups = [where.fill_null(False) for where in groups]
    inside = [everyone.filter(where) for where in (*groups, ~pl.any_horizontal(groups))]
    stays = [rows.height for rows in inside]
    n = protected(stays, [range(len(stays))])
    if task.kind == "multiclass":
        return [Told(str(count), {MACRO: None}) for count in n[:-1]]
    counts = [[int(rows[label].sum()) for rows in inside] for label in task.labels]
    shown = [parted(stays, each, n)[0] for each in counts]
    found = []
    for i, count in enumerate(n[:-1]):
        by_label = [each[i] for each in counts]
        texts = [each[i] for each in shown]
        if len(texts) > 1:  # their sum is told
            texts = protected(by_label, [range(len(texts))], [isinstance(text, str) for text in texts])
        positives = dict(zip(task.labels, map(str, texts), strict=True))
        if len(texts) > 1:
            positives[MACRO] = str(count if isinstance(count, str) else sum(by_label))
        found.append(Told(str(count), positives))
    return found


def _labels(
    rows: pl.DataFrame, validation: pl.DataFrame, task: Task, draws: SubjectDraws, bins: int
) -> dict[tuple[str, str], Floats]:
    """Metrics of each label of one run."""
    at = draws.rows(rows["subject_id"].to_numpy())
    cut = thresholds(validation, task)
    found: dict[tuple[str, str], Floats] = {}
    for label in task.labels:
        truth = rows[label].cast(pl.Boolean).to_numpy()
        metrics = binary_metrics(rows[f"p_{label}"].to_numpy(), truth, cut[label], at, draws, bins)
        found |= {(label, name): metrics[name] for name in BINARY}
    return found


def _multiclass(
    rows: pl.DataFrame, _: pl.DataFrame, task: Task, draws: SubjectDraws, bins: int
) -> dict[tuple[str, str], Floats]:
    """Each class against the rest, and the metrics of the whole under MACRO, of one run."""
    at = draws.rows(rows["subject_id"].to_numpy())
    scores = rows.select(f"p_{name}" for name in task.outputs).to_numpy()
    truth = rows[task.labels[0]].cast(pl.Int64).to_numpy()
    found = {(MACRO, name): each for name, each in multiclass_metrics(scores, truth, at, draws, bins).items()}
    for i, name in enumerate(task.outputs):
        found[name, "auroc"], found[name, "auprc"] = rank_metrics(scores[:, i], truth == i, at, draws)
    return found
