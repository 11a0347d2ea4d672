"""One strategy in one cohort, group by group: the draws of its metrics, and the gaps under shuffled groups.

Scored are the test stays of the cohort of training. Every label becomes a yes or no: length of stay is asked whether
the stay is a long one. A macro mean over phenotypes is over labels for which every group is large enough, so that
groups are compared on the same labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats, SubjectDraws, average_labels
from pipeline.estimation.gaps import (
    ALERT_RATE,
    KEYS,
    VALIDATION,
    GroupSums,
    Key,
    Null,
    Scores,
    above,
    against_null,
    at_rate,
    exchanges,
    gaps,
    memberships,
)
from pipeline.estimation.metrics import Bools, Ints, best_threshold
from pipeline.estimation.recalibration import pooled_slope
from pipeline.estimation.studentised import GroupArea, mean_area, studentised_gap
from pipeline.evaluation.scores import MACRO, Sampler, in_cohort
from pipeline.params import Fairness, FairnessScale
from pipeline.questions.fair.subgroups import (
    WHOLE,
    Grouping,
    Sizes,
    common_labels,
    enough,
    grouping,
    sizes,
)
from pipeline.tasks import LOS_EDGES, Task

SLOPE: Key = ("slope", "")  # of calibration: told of groups, no gap of it is tested
SHUFFLES = 3  # a stream of random numbers of its own, beside those of bootstrap.py


@dataclass(frozen=True)
class Labels:
    """The yes-or-no labels of a task: what is asked of each group. `name` heads their rows: a label, or MACRO."""

    task: Task
    names: tuple[str, ...]
    name: str
    long_stay: int = 0  # the first class that counts as a long stay

    def truth(self, rows: pl.DataFrame) -> Bools:
        """[n, L]."""
        if self.task.kind == "multiclass":
            return np.asarray(rows[self.task.labels[0]].to_numpy() >= self.long_stay)[:, None]
        return rows.select(pl.col(self.names).cast(pl.Boolean)).to_numpy()

    def probabilities(self, rows: pl.DataFrame) -> Floats:
        """[n, L]."""
        p = rows.select(f"p_{name}" for name in self.task.outputs).to_numpy()
        return p[:, self.long_stay :].sum(axis=1, keepdims=True) if self.task.kind == "multiclass" else p


def labels_of(task: Task, long_stay_days: int) -> Labels:
    """Mortality and phenotypes as they are; length of stay as one label, a stay of `long_stay_days` or more."""
    if task.kind == "multiclass":
        name = f"los_{long_stay_days}_days"
        return Labels(task, (name,), name, LOS_EDGES.index(long_stay_days))
    return Labels(task, task.labels, task.labels[0] if task.kind == "binary" else MACRO)


@dataclass(frozen=True)
class Fold:
    """The test stays of a cohort in a fold, sorted: subjects, truth [n, L] and their places in the cohort's rows."""

    number: int
    stays: Ints
    subjects: Ints
    truth: Bools
    places: Ints
    index: Ints  # exchanges of groups, [n, 1 + P]


@dataclass(frozen=True)
class Side:
    """A task in a cohort: groupings over all its test stays, their sizes, and which are large enough, [G, L]."""

    labels: Labels
    cohort: str
    folds: tuple[Fold, ...]
    groupings: tuple[Grouping, ...]
    sizes: Mapping[str, Sizes]
    large: Mapping[str, Bools]
    prevalence: Floats  # of each label


@dataclass
class Found:
    """A strategy's draws by attribute: metrics of the groups kept [G', 1 + D] and the gaps' null, where it was made."""

    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    values: dict[str, dict[Key, Floats]] = field(default_factory=dict)
    null: dict[str, dict[Key, Null | None]] = field(default_factory=dict)
    singly: dict[tuple[str, str], tuple[tuple[int, ...], dict[Key, Floats]]] = field(default_factory=dict)


def side(
    people: pl.DataFrame, labels: Labels, cohort: str, knobs: Fairness, names: Sequence[str], shuffles: int, seed: int
) -> Side:
    """Groups and shuffles of the test stays of `people` in a cohort."""
    rows = people.filter((pl.col("part") == "test") & in_cohort(cohort))
    truth, subjects = labels.truth(rows), rows["subject_id"].to_numpy()
    outcome = truth[:, 0].astype(np.int64)
    if truth.shape[1] > 1 and rows.height:  # many labels: alike is who has about as many of them
        burden = truth.sum(axis=1)
        outcome = np.searchsorted(np.quantile(burden, [0.25, 0.5, 0.75]), burden).astype(np.int64)
    folds = []
    for number in rows["fold"].unique().sort():
        places = np.flatnonzero(rows["fold"].to_numpy() == number)
        random = np.random.default_rng([seed, SHUFFLES, number])
        index = exchanges(subjects[places], outcome[places], shuffles, random)
        folds.append(Fold(number, rows["stay_id"].to_numpy()[places], subjects[places], truth[places], places, index))
    groupings = tuple(grouping(rows, name, knobs.age_edges) for name in names)
    sized = {each.name: sizes(each, subjects, truth) for each in groupings}
    large = {name: enough(each, knobs.least_positives, knobs.least_negatives) for name, each in sized.items()}
    prevalence = truth.mean(axis=0) if len(truth) else np.full(truth.shape[1], np.nan)
    return Side(labels, cohort, tuple(folds), groupings, sized, large, prevalence)


def runs_of(predictions: pl.DataFrame, of: Side, alert_rate: float) -> Iterator[tuple[Fold, int, list[Scores]]]:
    """(fold, seed, scores of each label) of every run; thresholds from its validation stays."""
    labels, cohort = of.labels, in_cohort(of.cohort)
    folds = {fold.number: fold for fold in of.folds}
    for run in predictions.filter(cohort).partition_by("fold", "seed", maintain_order=True):
        if run["fold"][0] not in folds:  # no test stay of the cohort in it
            continue
        fold = folds[run["fold"][0]]
        test, validation = (run.filter(pl.col("part") == part).sort("stay_id") for part in ("test", "val"))
        p, seen, known = labels.probabilities(test), labels.probabilities(validation), labels.truth(validation)
        scores = []
        for i in range(p.shape[1]):
            alerts = {
                VALIDATION: above(p[:, i], best_threshold(seen[:, i], known[:, i])),
                ALERT_RATE: at_rate(p[:, i], alert_rate * float(fold.truth[:, i].mean())),
            }
            scores.append(Scores(p[:, i], fold.truth[:, i], alerts))
        yield fold, run["seed"][0], scores


def measure(
    runs: Sequence[tuple[Fold, int, list[Scores]]],
    of: Side,
    name: str,
    label: int,
    groups: Ints,
    sampler: Sampler,
    columns: int,
) -> dict[Key, Floats]:
    """Metrics of one label in `groups` of an attribute, and SLOPE, [G', 1 + D]."""
    found = GroupSums(len(groups), columns)
    codes = _codes(of, name, groups)
    parts: list[list[tuple[Floats, Bools, Ints, SubjectDraws]]] = [[] for _ in groups]
    for fold, _, scores in runs:
        draws = sampler.subjects("test", fold.number)
        rows = draws.rows(fold.subjects)
        found.add(scores[label], codes[fold.places], rows, draws, float(of.prevalence[label]))
        for group, own in enumerate(parts):
            inside = codes[fold.places] == group
            own.append((scores[label].p[inside], scores[label].truth[inside], rows[inside], draws))
    return found.values() | {SLOPE: np.array([pooled_slope(each, columns) for each in parts])}


def under_shuffles(
    runs: Sequence[tuple[Fold, int, list[Scores]]],
    of: Side,
    name: str,
    labels: Sequence[int],
    groups: Ints,
    studentise: bool,
) -> tuple[list[dict[Key, Floats]], Floats | None]:
    """(the same metrics of each of `labels`, [G', 1 + P], the studentised gap of AUROC, [1 + P]) under the shuffles."""
    codes = _codes(of, name, groups)
    each: list[list[dict[Key, Floats]]] = [[] for _ in labels]
    areas = []
    for group in range(len(groups)):
        members = {fold.number: memberships(codes[fold.places][fold.index], group) for fold in of.folds}
        columns = of.folds[0].index.shape[1]
        found, ranked = [GroupSums(1, columns) for _ in labels], [GroupArea(columns) for _ in labels]
        for fold, _, scores in runs:
            together, rows = np.zeros(len(fold.stays), dtype=np.int64), np.arange(len(fold.stays))
            inside = np.concatenate(members[fold.number].blocks, axis=1)
            for sums, area, label in zip(found, ranked, labels, strict=True):
                sums.add(scores[label], together, rows, members[fold.number], float(of.prevalence[label]))
                if studentise:
                    area.add(fold.number, fold.subjects, scores[label].p, scores[label].truth, inside)
        for values, sums in zip(each, found, strict=True):
            values.append(sums.values())
        areas += [mean_area([area.values() for area in ranked])] if studentise else []
    metrics = [{key: np.concatenate([one[key] for one in values]) for key in KEYS} for values in each]
    return metrics, studentised_gap(areas) if studentise else None


def _codes(of: Side, name: str, groups: Ints) -> Ints:
    """Each stay's place among the groups that are kept, or −1."""
    grouped = next(each for each in of.groupings if each.name == name)
    place = np.full(len(grouped.groups), -1, dtype=np.int64)
    place[groups] = np.arange(len(groups))
    return np.asarray(place[grouped.codes])


def macro(each: Sequence[dict[Key, Floats]]) -> dict[Key, Floats]:
    """The mean over labels of every group's metrics."""
    if len(each) == 1:
        return dict(each[0])
    groups = range(len(each[0][KEYS[0]]))
    return {
        key: np.array([average_labels(np.array([values[key][group] for values in each])) for group in groups])
        for key in each[0]
    }


def strategy(
    predictions: pl.DataFrame,
    of: Side,
    sampler: Sampler,
    size: FairnessScale,
    alert_rate: float,
    *,
    crossed: bool,
    null: bool,
    studentise: bool,
    singly: bool,
) -> Found:
    """One strategy in one cohort: pairs of attributes if `crossed`, the null if `null`, each phenotype if `singly`.

    `studentise`: of AUROC by a single attribute, p is that of the studentised gap.
    """
    found = Found()
    runs = list(runs_of(predictions, of, alert_rate))
    for grouped in of.groupings:
        if grouped.crossed and not crossed:
            continue
        name, large = grouped.name, of.large[grouped.name]
        kept, taken = common_labels(large)
        groups, taking = np.flatnonzero(kept), np.flatnonzero(taken).tolist()
        found.groups[name], found.labels[name] = tuple(groups.tolist()), len(taking)
        single = singly and not grouped.crossed and len(of.labels.names) > 1
        each = []
        for label in range(large.shape[1]) if single else taking:
            own = np.flatnonzero(large[:, label]) if single else groups
            if not runs or not len(own):
                continue
            values = measure(runs, of, name, label, own, sampler, 1 + size.draws)
            if single:
                found.singly[name, of.labels.names[label]] = tuple(own.tolist()), values
            if label in taking:  # for which every group that is kept is large enough
                each.append({key: draws[np.searchsorted(own, groups)] for key, draws in values.items()})
        if not each:
            continue
        found.values[name] = macro(each)
        if null and name != WHOLE and len(groups) > 1:
            declared = studentise and not grouped.crossed
            shuffles, statistic = under_shuffles(runs, of, name, taking, groups, declared)
            found.null[name] = {
                key: against_null(values, statistic if key == ("auroc", "") else None)
                for key, values in gaps(macro(shuffles)).items()
            }
    return found
