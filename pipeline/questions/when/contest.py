"""Fusion against its opponents on one task and cohort: two differences a label, and what each is made of.

A *side* has one strategy a label, chosen on validation: the best on the record alone (`ehr`), the best on the image
alone (`image`), the one of these two that validation prefers (`single`), and the fusion strategy. Its runs are put
together column by column, so that a side is scored as a strategy is. A single label is held against `ehr` and `image`;
a mean over labels against `single`, too: that each is better than either alone somewhere is no gain of fusion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import average_runs
from pipeline.estimation.simultaneous import Member
from pipeline.estimation.variance import NOTHING, Estimate, estimate, moderated
from pipeline.estimation.verdicts import Case
from pipeline.evaluation.choice import Validation, chosen, chosen_by_label
from pipeline.evaluation.paired import ALL, Cell, Draws, Run, Stratum, over_labels, scored
from pipeline.evaluation.scores import MACRO, headline, metrics_of
from pipeline.params import Verdicts
from pipeline.questions.when.source import ONE_RUN, Source, cells, number, rarer, share_tested, strata_told, summed
from pipeline.questions.when.strata import label_groups, stay_strata
from pipeline.tasks import Task

BY_LABEL = "by label"  # the name of a mean over labels that have different strategies
UNCHOSEN = "no strategy could be scored on validation"
CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"
AGAINST = ("ehr", "image", "single")
KEY = ("task", "cohort", "label", "stratum", "group", "metric", "strategy")
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(KEY, pl.String),
    "chosen": pl.Boolean,
    "family": pl.String,
    **dict.fromkeys(AGAINST, pl.String),
    "value": pl.Float64,
    **{f"{name}_value": pl.Float64 for name in AGAINST[:2]},
    **{f"{quantity}_{name}": pl.Float64 for name in AGAINST[:2] for quantity in ("difference", "low", "high")},
    **dict.fromkeys(("difference", "low", "high", "equivalence_low", "equivalence_high", "p"), pl.Float64),
    **dict.fromkeys(("family_low", "family_high", "p_gain", "p_loss"), pl.Float64),
    "verdict": pl.String,
    "beyond": pl.Boolean,
    "runs": pl.Int64,
    "note": pl.String,
    "n": pl.String,
    "positives": pl.String,
}
VARIANCE_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "label", "metric", "strategy", "against"), pl.String),
    **dict.fromkeys(("difference", "error", "patients", "seed", "split", "freedom", "split_freedom"), pl.Float64),
    "runs": pl.Int64,
    "note": pl.String,
}


@dataclass(frozen=True)
class Side:
    """By label, the strategy; and the runs of all labels together."""

    choice: Mapping[str, str]
    runs: tuple[Run, ...]

    def name(self, labels: Sequence[str]) -> str:
        """The strategy of the labels, or BY_LABEL."""
        found = {self.choice[label] for label in labels}
        return found.pop() if len(found) == 1 else BY_LABEL


def side(found: Mapping[str, Cell], choice: Mapping[str, str], task: Task) -> Side | None:
    """The strategies of `choice` put together; None where there is none."""
    if not choice:
        return None
    whole = found[choice[headline(task)]].runs
    if task.kind == "multiclass":
        return Side(choice, whole)
    of = [found[choice[label]].runs for label in task.labels]
    runs = []
    for i, run in enumerate(whole):
        columns = [each[i].scores[:, j] for j, each in enumerate(of)]
        runs.append(dataclasses.replace(run, scores=np.stack(columns, axis=1)))
    return Side(choice, tuple(runs))


def read_sides(known: Source, task: Task) -> dict[str, tuple[dict[str, Cell], dict[str, Side]]]:
    """By cohort, the candidates' cells by strategy, and the sides that validation makes of them (`sides`)."""
    candidates = known.candidates()
    kept: dict[str, dict[str, Cell]] = {str(cohort): {} for cohort in known.training.cohorts}
    for name in dict.fromkeys(name for names in candidates.values() for name in names):
        for cohort, cell in cells(known, task, name):
            kept[cohort][name] = cell
    return {cohort: (of, sides(of, candidates, task)) for cohort, of in kept.items()}


def sides(of: Mapping[str, Cell], candidates: Mapping[str, Sequence[str]], task: Task) -> dict[str, Side]:
    """By role, and `single`; no key where validation chose none."""
    known = {name: cell.validation for name, cell in of.items()}
    choices = {role: chosen_by_label(known, names, task) for role, names in candidates.items()}
    choices["single"] = _better(known, choices["ehr"], choices["image"])
    found = {role: side(of, choice, task) for role, choice in choices.items()}
    return {role: each for role, each in found.items() if each is not None}


def _better(
    known: Mapping[str, Mapping[str, Validation]], ehr: Mapping[str, str], image: Mapping[str, str]
) -> dict[str, str]:
    """By label, which of the two validation prefers; where it cannot tell, the record."""
    found = {}
    for label in ehr if image else ():
        pair = (ehr[label], image[label])
        found[label] = chosen({name: known[name][label] for name in pair if label in known[name]}, pair) or ehr[label]
    return found


@dataclass
class Entry:
    """A row of gain.csv, what decides its verdict, and its differences by opponent."""

    row: dict[str, Any]
    case: Case
    differences: dict[str, Estimate] = field(default_factory=dict)


def fill(entries: Sequence[Entry], rule: Verdicts) -> None:
    """Writes the differences of some entries with their intervals into the rows; their runs tell of luck together."""
    told = iter(moderated([each for entry in entries for each in entry.differences.values()]))
    for entry in entries:
        entry.differences = {name: next(told) for name in entry.differences}
        for name, found in entry.differences.items():
            end = "" if name == "single" else f"_{name}"
            low, high = found.interval(rule.confidence)
            entry.row |= {f"difference{end}": number(found.value), f"low{end}": low, f"high{end}": high}
            if name == "single":
                inner = found.interval(rule.equivalence_confidence)
                entry.row |= dict(zip(("equivalence_low", "equivalence_high"), inner, strict=True))
                entry.row |= {"p": found.p, "runs": found.runs, "note": ONE_RUN if found.one_run else None}


class Contest:
    """One task and cohort: the opponents, to whom strategies are compared."""

    def __init__(self, known: Source, task: Task, cohort: str, opponents: Mapping[str, Side]) -> None:
        self.known, self.task, self.cohort, self.opponents = known, task, cohort, opponents
        strata = stay_strata(cohort, known.people)
        self._folds = [run.fold for run in opponents["ehr"].runs]
        self._test_share = share_tested(known.people, cohort)
        self._told = strata_told(known.people, task, cohort)
        self._rarer = {name: rarer(known.people, task, cohort, where) for name, where in strata.items()}
        self._groups = label_groups(task, known.people, cohort)
        self._against = {
            name: {stratum: scored(each.runs, task, stratum) for stratum in strata} for name, each in opponents.items()
        }

    def compare(self, own: Side, strategy: str | None, control_passed: Mapping[str, bool]) -> list[Entry]:
        """All rows of a strategy; `strategy` None: of the choice by label. `control_passed` is by strategy."""
        found = []
        for stratum in self._rarer:
            draws = scored(own.runs, self.task, stratum)
            told, count = self._told[stratum], self._rarer[stratum]
            labels = self.task.labels if self.task.kind != "multiclass" else (MACRO,)
            asked: dict[tuple[str, Stratum], Sequence[str]] = {}
            if stratum == ALL:
                asked |= {(label, stratum): (label,) for label in labels}
            if self.task.kind == "multilabel":
                asked |= {(MACRO, stratum): labels}
                asked |= {(MACRO, group): of for group, of in self._groups.items() if stratum == ALL}
            asked |= {} if asked else {(headline(self.task), stratum): labels}
            for (label, about), of in asked.items():
                positives = told.positives[label] if about == stratum else summed(told.positives, of)
                fewer = min(count[MACRO], sum(count[each] for each in of))
                passed = all(control_passed.get(own.choice[each], False) for each in of)
                for metric in metrics_of(self.task):
                    entry = self._entry(own, draws, stratum, of, metric, fewer, passed)
                    names = (self.task.name, self.cohort, label, *about, metric, strategy or own.name(of))
                    entry.row |= dict(zip(KEY, names, strict=True))
                    entry.row |= {"chosen": strategy is None, "n": told.n, "positives": positives}
                    confirmed = strategy is None and about == ALL and metric == metrics_of(self.task)[0]
                    entry.row["family"] = CONFIRMATORY if confirmed else EXPLORATORY
                    found.append(entry)
        return found

    def _entry(
        self, own: Side, draws: Draws, stratum: Stratum, of: Sequence[str], metric: str, fewer: int, passed: bool
    ) -> Entry:
        mine = over_labels(draws, of, metric)
        row: dict[str, Any] = {"value": number(average_runs(mine)[0])}
        differences, members = {}, []
        for name, each in self.opponents.items():
            theirs = over_labels(self._against[name][stratum], of, metric)
            differences[name] = estimate(mine - theirs, self._folds, self._test_share)
            if name != "single" or len(of) > 1:
                members.append(Member(differences[name], average_runs(mine - theirs)))
            row |= {name: each.name(of), f"{name}_value": number(average_runs(theirs)[0])}
        del row["single_value"]
        return Entry(row, Case(tuple(members), metric, fewer, passed), differences)


def unchosen(known: Source, task: Task, cohort: str) -> list[Entry]:
    """The confirmatory entries of a task and cohort in which validation chose nobody: nothing is tested there."""
    told = strata_told(known.people, task, cohort)[ALL]
    found = []
    for label in dict.fromkeys((*(task.labels if task.kind != "multiclass" else ()), headline(task))):
        metric = metrics_of(task)[0]
        row: dict[str, Any] = dict.fromkeys(SCHEMA)
        row |= dict(zip(KEY, (task.name, cohort, label, *ALL, metric, None), strict=True))
        row |= {"chosen": True, "family": CONFIRMATORY, "note": UNCHOSEN, "runs": 0}
        row |= {"n": told.n, "positives": told.positives[label]}
        found.append(Entry(row, Case((), metric, None, control_passed=False)))
    return found


def variance_rows(entry: Entry) -> list[dict[str, Any]]:
    """Rows of variance.csv: of what the squared errors of an entry's differences are made."""
    about = {name: entry.row[name] for name in ("task", "cohort", "label", "metric", "strategy", "note")}
    return [
        {
            **about,
            "against": name,
            "difference": number(found.value),
            "error": number(found.error),
            **{part: number(getattr(found, part)) for part in ("patients", "seed", "split", "freedom")},
            "split_freedom": found.folds.freedom if found.folds else None,
            "runs": found.runs,
        }
        for name, found in entry.differences.items()
        if found is not NOTHING
    ]
