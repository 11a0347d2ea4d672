"""What the page tells of single strategies: the table of each that shows what its paper is about, from its CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.evaluation.reading import read_table
from pipeline.forgetting.tables import JOINT, KEPT, PLAIN
from pipeline.forgetting.tables import SCHEMAS as FORGETTING
from pipeline.params import Grid
from pipeline.presentation.answers import AnswerTable, Value
from pipeline.presentation.tables import METRIC_TITLES, Cell
from pipeline.questions.which import curriculum, distillation
from pipeline.questions.which.text import groups, title_of

CURRICULUM = (
    "Rows differ in the curriculum alone: {0} as it is; classes drawn evenly at first and then as they are (inverse "
    "frequency); a pace between the two, every stay of a class alike (unmeasured); {1}, which draws a class's telling "
    "stays first. Test scores; behind each what it is more than that of {0}."
)
STRATA = {
    "all": "all",
    "rare": "rare third of the phenotypes",
    "middle": "middle third",
    "common": "common third",
    "short": "stays below 6 days",
    "long": "stays of 6 days and more",
}
DRAWN = (
    "Validation score after each epoch, and what the next one draws; means over the runs that came so far. Progress: "
    "from classes drawn evenly (0) to ordinary training (1), where shares drawn are the data's own. Rarest class: a "
    "stay with several labels is of its rarest. Pairs: draws with an image; each class keeps its share of them. "
    "Scores: how sure single modalities are of the truth, and how they complement each other; of that class, of all."
)
TAUGHT = (
    "A student with teachers, less its twin without, at each size; then the teachers: the mean probability of networks "
    "of several sizes, on the record, on the image, and the mean of both; their parameters are those of all of them. "
    "Test scores. Heads: validation score of a modality's own head at the chosen epoch. From the teachers: how far a "
    "test probability is from the mean of both, on average."
)
ARRIVED = (
    "Groups of {1} arrive one after another. {0} of each, on the test stays: right after it was learned, at the end, "
    "and what was lost between, with its interval (paired, over patients and runs). PAL: its recursion. Descent: the "
    "network behind the same frozen encoders learns on, from the new group alone. All at once: from all groups, as "
    "long. Means over runs."
)
ALIGNED = (
    "Pairs of modalities (groups of the record's variables, by number, and the image) are aligned one after another on "
    "frozen encoders, each for as many epochs as the run had. How often a test stay's two sides find each other first, "
    "or among five, of all: when the pair was just aligned, and at the end; what was lost between, with its interval "
    "(paired, over patients and runs). Drift: how far its similarities have moved between, at most, relative to the "
    "largest. Directions taken: the share in which the pair's maps could not move, for the sake of earlier pairs. "
    "CMCL: projected. Plain: not. Means over runs."
)
ANSWERS = {
    "mind": "mind",
    "teachers_transformer": "(teachers of the record)",
    "teachers_resnet": "(teachers of the image)",
    "teachers": "(mean of both)",
}
NAMES = {"forgetting_pal": {KEPT: "PAL", PLAIN: "descent"}, "forgetting_cmcl": {KEPT: "CMCL", PLAIN: "plain"}}
Row = tuple[Value, ...]


def own_tables(tables: Path, grid: Grid) -> list[AnswerTable]:
    """The tables of the grid's strategies that have one. Raises InputError where one is missing or cannot be read."""
    return [table for name in grid.strategies for table in (TABLES[name](tables) if name in TABLES else ())]


def _table(title: str, note: str, header: Iterable[str], rows: Iterable[Row], name: str, stage: str) -> AnswerTable:
    return AnswerTable(title, note, tuple(header), tuple(rows), f"tables/{name}.csv", stage)


def _score(row: dict[str, Any], name: str = "value") -> Cell:
    bounds = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return Cell(row[name], *(row[each] for each in bounds))


def _curriculum(tables: Path) -> list[AnswerTable]:
    read = {name: read_table(tables / f"{name}.csv", schema) for name, schema in curriculum.SCHEMAS.items()}
    found = []
    for (task, cohort, metric), rows in groups(read["curriculum"], "task", "cohort", "metric"):
        strata, variants = (rows[name].unique(maintain_order=True).to_list() for name in ("stratum", "variant"))
        base = variants[0]  # nothing is compared where the grid lacks it
        less = ["difference"] if rows["difference"].is_not_null().any() else []
        header = ["Variant"]
        for stratum in strata:
            header += [STRATA[stratum].capitalize(), *(f"… less {base}" for _ in less)]
        body = []
        for variant in variants:
            line: list[Value] = [variant.replace("_", " ")]
            for row in rows.filter(variant=variant).iter_rows(named=True):
                line += [_score(row), *("–" if variant == base else _score(row, name) for name in less)]
            body.append(tuple(line))
        title = f"{curriculum.STRATEGY}: {title_of(task, cohort)}, {METRIC_TITLES[metric]}"
        note = CURRICULUM.format(base if less else "its base", curriculum.STRATEGY)
        found.append(_table(title, note, header, body, "curriculum", "mechanisms"))
    own = read["curriculum_epochs"].filter(variant=curriculum.STRATEGY)
    for (task, cohort), rows in groups(own, "task", "cohort"):
        columns = {
            "progress": "Progress",
            "drawn_rarest": "Drawn: rarest class",
            "drawn_pairs": "Drawn: pairs",
            "score_rarest": "Score: rarest class",
            "score": "Score: all",
            "validation": METRIC_TITLES[rows["metric"][0]],
        }
        header = ["Epoch", "Runs", *columns.values()]
        lines: list[Row] = [
            (str(row["epoch"]), row["runs"], *(Cell(row[name], None, None) for name in columns))
            for row in rows.iter_rows(named=True)
        ]
        title = f"{curriculum.STRATEGY}, epoch by epoch: {title_of(task, cohort)}"
        found.append(_table(title, DRAWN, header, lines, "curriculum_epochs", "mechanisms"))
    return found


def _distillation(tables: Path) -> list[AnswerTable]:
    found = []
    for (task, cohort), rows in groups(read_table(tables / "distillation.csv", distillation.SCHEMA), "task", "cohort"):
        metrics = rows["metric"].unique(maintain_order=True).to_list()
        header = ["Answers", "Parameters"]
        for metric in metrics:
            header += [METRIC_TITLES[metric], "… less untaught"]
        header += ["Record's head", "Image's head", "From the teachers"]
        body = []
        for (answers,), each in groups(rows, "answers"):
            first = each.row(0, named=True)
            line: list[Value] = [ANSWERS.get(answers, answers.replace("_", " ")), first["parameters"]]
            for row in each.iter_rows(named=True):
                line += [_score(row), "–" if row["against"] is None else _score(row, "difference")]
            student = first["taught"] is not None
            heads = [Cell(first[name], None, None) for name in ("head_ehr", "head_cxr", "apart")]
            body.append((*line, *(heads if student else ["–"] * 3)))
        title = f"{distillation.STRATEGY}: {title_of(task, cohort)}, students and teachers"
        found.append(_table(title, TAUGHT, header, body, "distillation", "mechanisms"))
    return found


def _forgotten(tables: Path, name: str, time: str, *scores: str) -> list[tuple[str, str, pl.DataFrame]]:
    """(task, cohort, rows): at the end (the last `time`), a row a method and group, and the mean over groups.

    With SCORE_then of each score: what it was when it was learned.
    """
    read = read_table(tables / f"{name}.csv", FORGETTING[name])
    then = [(pl.col(score) + pl.col(f"{score}_lost")).alias(f"{score}_then") for score in scores]
    last = read.filter(pl.col(time) == pl.col(time).max().over("task", "cohort")).with_columns(then)
    return [(task, cohort, rows) for (task, cohort), rows in groups(last, "task", "cohort")]


def _lines(rows: pl.DataFrame, names: dict[str, str], label: str, columns: Iterable[str]) -> list[Row]:
    """A line a row, what was lost with its interval. What is learned all at once has no before, and loses nothing."""
    found: list[Row] = []
    for row in rows.iter_rows(named=True):
        cells: list[Value] = []
        for name in columns:
            if row["method"] == JOINT and name.endswith(("_then", "_lost", "drift", "directions")):
                cells.append("–")
            else:
                cells.append(_score(row, name) if name.endswith("_lost") else Cell(row[name], None, None))
        found.append((f"{names.get(row['method'], 'all at once')}: {row[label]}", *cells))
    return found


def _forgetting_pal(tables: Path) -> list[AnswerTable]:
    found = []
    for task, cohort, rows in _forgotten(tables, "forgetting_pal", "phase", "value"):
        what, metric = "labels" if rows["metric"][0] == "auroc" else "classes", METRIC_TITLES[rows["metric"][0]]
        group = pl.when(pl.col("group") == 0).then(pl.col("outputs")).otherwise(pl.format(f"{what} {{}}", "outputs"))
        columns = ("value_then", "value", "value_lost")
        lines = _lines(rows.with_columns(label=group), NAMES["forgetting_pal"], "label", columns)
        header = ("Group", "When learned", "At the end", "Lost")
        title = f"pal: {title_of(task, cohort)}, what is forgotten"
        found.append(_table(title, ARRIVED.format(metric, what), header, lines, "forgetting_pal", "forgetting"))
    return found


def _forgetting_cmcl(tables: Path) -> list[AnswerTable]:
    columns = {
        "recall_1_then": "First, when aligned",
        "recall_1": "First, at the end",
        "recall_1_lost": "Lost",
        "chance_1": "By chance",
        "recall_5_then": "Among five, when aligned",
        "recall_5": "Among five, at the end",
        "recall_5_lost": "Among five, lost",
        "drift": "Drift",
        "directions": "Directions taken",
    }
    found = []
    for task, cohort, rows in _forgotten(tables, "forgetting_cmcl", "step", "recall_1", "recall_5"):
        lines = _lines(rows, NAMES["forgetting_cmcl"], "pair", columns)
        title = f"cmcl: {title_of(task, cohort)}, what is forgotten"
        found.append(_table(title, ALIGNED, ("Pair", *columns.values()), lines, "forgetting_cmcl", "forgetting"))
    return found


TABLES: dict[str, Callable[[Path], list[AnswerTable]]] = {
    "climd": _curriculum,
    "mind": _distillation,
    "cmcl": _forgetting_cmcl,
    "pal": _forgetting_pal,
}
FILES = {  # of each strategy its tables, below reports/tables
    "climd": ("curriculum", "curriculum_epochs"),
    "mind": ("distillation",),
    "cmcl": ("forgetting_cmcl",),
    "pal": ("forgetting_pal",),
}
