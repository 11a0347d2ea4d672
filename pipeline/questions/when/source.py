"""What all comparisons of question 1 read from: people, params, cells, the candidates on either side, who is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline import disclosure
from pipeline.errors import InputError
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.choice import read_card
from pipeline.evaluation.paired import ALL, Cell, Stratum, read_cells
from pipeline.evaluation.scores import MACRO, Sampler, Told, in_cohort, tell
from pipeline.params import Evaluation, Grid, TrainingScale, Verdicts
from pipeline.questions.when.strata import SAW, stay_strata
from pipeline.tasks import Task, get_task

TRAITS = ("icd_version", "gender")
ROLES = ("ehr", "image", "fusion")
LOOKS = {"ehr": {"ehr"}, "image": {"cxr"}}  # modalities on the card of an opponent


ONE_RUN = "one run: luck of training not included"


def number(value: float) -> float | None:
    """For a table: None where it is not estimable, or without bound."""
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Source:
    """People with traits, the sampler, params."""

    data: Path
    grid: Grid
    training: TrainingScale
    evaluation: Evaluation
    rule: Verdicts
    people: pl.DataFrame
    sampler: Sampler

    def fusion(self) -> list[str]:
        """All fusion strategies of the grid, in its order."""
        return [name for name in self.grid.strategies if read_card(self.data, name).kind == "fusion"]

    def candidates(self) -> dict[str, list[str]]:
        """By role, those of whom validation chooses: all opponents of the grid, and as many of `verdicts.fusion`.

        As many as look at the record alone (at least one), in the order of the list: the best of more candidates looks
        better by chance. Raises InputError where the list names a strategy of the grid that fuses nothing.
        """
        cards = {name: read_card(self.data, name) for name in self.grid.strategies}
        found = {role: [name for name in cards if cards[name].modalities == seen] for role, seen in LOOKS.items()}
        declared = [name for name in self.rule.fusion if name in cards]
        for name in declared:
            if cards[name].kind != "fusion":
                raise InputError(f"verdicts.fusion: {name} is no fusion strategy")
        return found | {"fusion": declared[: max(1, len(found["ehr"]))]}


def source(
    data: Path,
    grid: Grid,
    training: TrainingScale,
    evaluation: Evaluation,
    rule: Verdicts,
    draws: int,
    saw: pl.DataFrame | None = None,
) -> Source:
    """Reads the people. `saw` has subject_id, saw of those tested, where an encoder is frozen (data/exposure.parquet).

    Raises InputError for a file or column that is missing.
    """
    people = read_people(data, [get_task(name) for name in grid.tasks], training.folds, TRAITS)
    if saw is not None and not saw.is_empty():
        people = people.join(saw.rename({"saw": SAW}), on="subject_id", how="left", maintain_order="left")
    return Source(data, grid, training, evaluation, rule, people, Sampler(people, draws, evaluation.seed))


def share_tested(people: pl.DataFrame, cohort: str) -> float:
    """Test stays per training stay of a cohort, over all folds; `people`: a row a stay and fold."""
    test, train = (people.filter(in_cohort(cohort), part=part).height for part in ("test", "train"))
    return test / max(1, train)


def cells(known: Source, task: Task, strategy: str) -> Iterator[tuple[str, Cell]]:
    """A strategy's cells by cohort."""
    strata = {str(cohort): stay_strata(cohort, known.people) for cohort in known.training.cohorts}
    return read_cells(known.data, task, strategy, known.training, known.people, known.sampler, strata)


def strata_told(people: pl.DataFrame, task: Task, cohort: str) -> dict[Stratum, Told]:
    """Who is in each stratum of the test stays of a cohort; `people`: a row a stay and fold."""
    tested = people.filter(part="test").unique("stay_id")
    found = {ALL: tell(tested, [in_cohort(cohort)], task)[0]}
    strata = stay_strata(cohort, people)
    for stratum in dict.fromkeys(name for name, _ in strata if name != ALL[0]):
        groups = {key: where for key, where in strata.items() if key[0] == stratum}
        of_groups = tell(tested.filter(in_cohort(cohort)), list(groups.values()), task)
        found |= dict(zip(groups, of_groups, strict=True))
    return found


def rarer(people: pl.DataFrame, task: Task, cohort: str, where: pl.Expr) -> dict[str, int]:
    """By label, the test stays of a cohort and stratum with the rarer outcome; `people`: a row a stay and fold.

    Under MACRO everybody: a mean over labels cannot rest on more, and length of stay is of all classes.
    """
    rows = people.filter(part="test").unique("stay_id").filter(in_cohort(cohort) & where.fill_null(False))
    binary = task.labels if task.kind != "multiclass" else ()
    positives = {label: int(rows[label].sum()) for label in binary}
    return {label: min(count, rows.height - count) for label, count in positives.items()} | {MACRO: rows.height}


def summed(positives: Mapping[str, str | None], labels: Iterable[str]) -> str:
    """The sum over some of the labels, hidden where one of them is not told: it would say more of that one."""
    each = [disclosure.known(positives[label]) for label in labels]
    return disclosure.HIDDEN if None in each else str(sum(filter(None, each)))
