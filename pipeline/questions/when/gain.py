"""The tables of question 1, when fusion helps: each fusion strategy against the best unimodal one, and what chose it.

The unimodal strategy is chosen once per task and cohort, on validation, by the headline metric; so is the fusion
strategy of the *confirmatory* family: one test per task and phenotype in each cohort. All the rest is exploratory.
Strategies are told apart by the modalities on their cards, networks and plain baselines alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline import disclosure
from pipeline.estimation import randomisation
from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.verdicts import judged
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.choice import Validation, chosen, read_card
from pipeline.evaluation.paired import (
    ALL,
    Cell,
    Draws,
    Stratum,
    macro,
    read_cells,
    scored,
    second_p,
    shares,
    throws,
)
from pipeline.evaluation.reading import read_probe
from pipeline.evaluation.scores import MACRO, Sampler, Told, headline, in_cohort, metrics_of, tell
from pipeline.params import Evaluation, Grid, TrainingScale, Verdicts
from pipeline.questions.when import control
from pipeline.questions.when.strata import label_groups, stay_strata
from pipeline.tasks import Task, get_task

log = logging.getLogger(__name__)

TRAITS = ("icd_version",)
ROLES = ("unimodal", "fusion")
SECOND_THROWS = 1000  # at most, where each throw is computed anew
CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"
KEY = ("task", "cohort", "label", "stratum", "group", "metric", "strategy")
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(KEY, pl.String),
    "unimodal": pl.String,
    "family": pl.String,
    "chosen": pl.Boolean,
    "value": pl.Float64,
    "unimodal_value": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "equivalence_low": pl.Float64,
    "equivalence_high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "verdict": pl.String,
    "n": pl.String,
    "positives": pl.String,
}
CHOSEN_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "role", "strategy", "metric"), pl.String),
    "validation": pl.Float64,
    "chosen": pl.Boolean,
}


@dataclass(frozen=True)
class Gain:
    """The tables gain and chosen (by validation); by task and cohort, whether the positive control is passed."""

    table: pl.DataFrame
    chosen: pl.DataFrame
    passed: dict[tuple[str, str], bool]


@dataclass(frozen=True)
class Source:
    """What all comparisons read from: people with traits, the sampler, params."""

    data: Path
    grid: Grid
    training: TrainingScale
    evaluation: Evaluation
    rule: Verdicts
    people: pl.DataFrame
    sampler: Sampler

    def roles(self) -> tuple[list[str], list[str]]:
        """(unimodal, fusion) strategies of the grid, in its order."""
        kinds = {name: read_card(self.data, name).kind for name in self.grid.strategies}
        unimodal, fusion = ([name for name, kind in kinds.items() if kind == role] for role in ROLES)
        return unimodal, fusion


def source(
    data: Path, grid: Grid, training: TrainingScale, evaluation: Evaluation, rule: Verdicts, draws: int
) -> Source:
    """Reads the people. Raises InputError for a file or column that is missing."""
    people = read_people(data, [get_task(name) for name in grid.tasks], training.folds, TRAITS)
    return Source(data, grid, training, evaluation, rule, people, Sampler(people, draws, evaluation.seed))


def strata_told(people: pl.DataFrame, task: Task, cohort: str) -> dict[Stratum, Told]:
    """Who is in each stratum of the test stays of a cohort; `people`: a row a stay and fold."""
    tested = people.filter(part="test").unique("stay_id")
    found = {ALL: tell(tested, [in_cohort(cohort)], task)[0]}
    strata = stay_strata(cohort)
    for stratum in dict.fromkeys(name for name, _ in strata if name != ALL[0]):
        groups = {key: where for key, where in strata.items() if key[0] == stratum}
        of_groups = tell(tested.filter(in_cohort(cohort)), list(groups.values()), task)
        found |= dict(zip(groups, of_groups, strict=True))
    return found


def summed(positives: Mapping[str, str | None], labels: Iterable[str]) -> str:
    """The sum over some of the labels, hidden where one of them is not told: it would say more of that one."""
    each = [disclosure.known(positives[label]) for label in labels]
    return disclosure.HIDDEN if None in each else str(sum(filter(None, each)))


class Contest:
    """The fusion strategies of one task against the best unimodal one, in one cohort."""

    def __init__(self, known: Source, task: Task, cohort: str, control_passed: bool) -> None:
        self.known, self.task, self.cohort, self.control_passed = known, task, cohort, control_passed
        self.validation: dict[str, dict[str, Validation]] = {role: {} for role in ROLES}
        self.best: Cell | None = None
        self.rows: list[dict[str, Any]] = []
        self._against: dict[Stratum, Draws] = {}
        self._shares: list[Floats | None] = []  # of each row; None where p is not a matter of shares
        self._groups = label_groups(task, known.people, cohort)
        self._people = strata_told(known.people, task, cohort)

    def choice(self, role: str) -> str | None:
        """The strategy with the best headline metric on validation."""
        return chosen(self.validation[role], self.validation[role])

    def enter_unimodal(self, cell: Cell) -> None:
        """Keeps the best one; all enter before the first fusion strategy does."""
        self.validation["unimodal"][cell.strategy] = cell.validation
        if self.choice("unimodal") == cell.strategy:
            self.best = cell
            self._against = {stratum: scored(cell.runs, self.task, stratum) for stratum in stay_strata(self.cohort)}

    def enter_fusion(self, cell: Cell) -> None:
        """Its differences to the best unimodal strategy; none where that is not known."""
        self.validation["fusion"][cell.strategy] = cell.validation
        if self.best is None:
            return
        for stratum, against in self._against.items():
            own = scored(cell.runs, self.task, stratum)
            share = shares(cell.runs, self.best.runs, self.task, stratum)
            n, positives = self._people[stratum]
            for label in positives if stratum == ALL else (headline(self.task),):
                parts = mean_of(share, self.task.labels) if label == MACRO else share.get(label)
                self._add(cell.strategy, label, stratum, own, against, parts, n, positives[label])
            for group, labels in self._groups.items() if stratum == ALL else ():
                metrics = metrics_of(self.task)
                pair = [{(MACRO, each): macro(of, labels, each) for each in metrics} for of in (own, against)]
                count = summed(positives, labels)
                self._add(cell.strategy, MACRO, group, pair[0], pair[1], mean_of(share, labels), n, count)

    def _add(
        self,
        strategy: str,
        label: str,
        stratum: Stratum,
        own: Draws,
        against: Draws,
        parts: Floats | None,
        n: str,
        positives: str | None,
    ) -> None:
        assert self.best is not None
        for i, metric in enumerate(metrics_of(self.task)):
            one, two = own[label, metric], against[label, metric]
            names = (self.task.name, self.cohort, label, *stratum, metric, strategy)
            self.rows.append(
                {
                    **dict(zip(KEY, names, strict=True)),
                    "unimodal": self.best.strategy,
                    "family": EXPLORATORY,
                    "chosen": False,
                    "value": None if np.isnan(one[0]) else float(one[0]),
                    "unimodal_value": None if np.isnan(two[0]) else float(two[0]),
                    **judged(one - two, self.known.rule, self.control_passed, metric),
                    "n": n,
                    "positives": positives,
                }
            )
            self._shares.append(parts if i == 0 else None)

    def finish(self) -> None:
        """p-values, and which rows are the confirmatory ones: those of the strategy that validation chose."""
        rule, seed = self.known.rule, self.known.evaluation.seed
        places = [i for i, parts in enumerate(self._shares) if parts is not None]
        if self.best is not None and places:
            matrix = np.stack([parts for parts in self._shares if parts is not None], axis=1)
            found = randomisation.linear_p(matrix, throws(self.best.runs, rule.permutations, seed))
            for i, p in zip(places, found, strict=True):
                self.rows[i]["p"] = float(p)
        winner = self.choice("fusion")
        if self.best is None or winner is None:
            return
        cell = next(cell for cohort, cell in cells(self.known, self.task, winner) if cohort == self.cohort)
        count = min(rule.permutations, SECOND_THROWS)
        others = second_p(cell.runs, self.best.runs, self.task, ALL, count, seed)
        for row in self.rows:
            row["chosen"] = row["strategy"] == winner
            if row["chosen"] and (row["stratum"], row["group"]) == ALL:
                if row["metric"] == metrics_of(self.task)[0]:
                    row["family"] = CONFIRMATORY
                else:
                    row["p"] = others[row["label"]]


def mean_of(parts: Mapping[str, Floats], labels: Iterable[str]) -> Floats | None:
    """Shares of a mean over labels: those that are estimable, as the mean itself has it."""
    known = [parts[label] for label in labels if label in parts]
    known = known or ([parts[MACRO]] if MACRO in parts else [])
    return np.asarray(np.mean(known, axis=0)) if known else None


def cells(known: Source, task: Task, strategy: str) -> Iterator[tuple[str, Cell]]:
    """A strategy's cells by cohort."""
    strata = {str(cohort): stay_strata(cohort) for cohort in known.training.cohorts}
    return read_cells(known.data, task, strategy, known.training, known.people, known.sampler, strata)


def gain(known: Source) -> Gain:
    """The tables, from the cells that the grid names. Raises InputError as `cells.read_predictions` does."""
    passed = _control(known)
    rows: list[dict[str, Any]] = []
    choices: list[tuple[Any, ...]] = []
    for name in known.grid.tasks:
        task = get_task(name)
        contests = {
            str(cohort): Contest(known, task, cohort, passed[name, str(cohort)]) for cohort in known.training.cohorts
        }
        unimodal, fusion = known.roles()
        for strategy in unimodal:
            for cohort, cell in cells(known, task, strategy):
                contests[cohort].enter_unimodal(cell)
        for strategy in fusion:
            log.info("%s %s", strategy, name)
            for cohort, cell in cells(known, task, strategy):
                contests[cohort].enter_fusion(cell)
        for cohort, contest in contests.items():
            contest.finish()
            rows += contest.rows
            for role in ROLES:
                choices += [
                    (name, cohort, role, strategy, metrics_of(task)[0], value.score, strategy == contest.choice(role))
                    for strategy, value in contest.validation[role].items()
                ]
    _add_holm(rows)
    return Gain(
        pl.DataFrame(rows, schema=SCHEMA, orient="row"),
        pl.DataFrame(choices, schema=CHOSEN_SCHEMA, orient="row"),
        passed,
    )


def _control(known: Source) -> dict[tuple[str, str], bool]:
    """By task and cohort, whether the image-only strategies of the grid pass the positive control; without one, not."""
    tasks = [get_task(name) for name in known.grid.tasks]
    alone = [name for name in known.grid.strategies if read_card(known.data, name).modalities == {"cxr"}]
    told = ((name, read_probe(known.data, name, "image_control")) for name in alone)
    table = control.image_control(told, known.people, known.sampler, known.rule.confidence)
    return {
        (task.name, cohort): control.passed(table, alone, task.name, cohort, known.rule.control_auroc)
        for task in tasks
        for cohort in known.training.cohorts
    }


def _add_holm(rows: list[dict[str, Any]]) -> None:
    """Holm within the confirmatory family, and within each task, cohort, stratum and metric of the exploratory rows."""
    families: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        exploratory = tuple(row[name] for name in ("task", "cohort", "stratum", "group", "metric"))
        families.setdefault((CONFIRMATORY,) if row["family"] == CONFIRMATORY else exploratory, []).append(row)
    for family in families.values():
        for row, adjusted in zip(family, randomisation.holm([row.get("p") for row in family]), strict=True):
            row["p_holm"] = adjusted
