"""Question 1 on the page: when does fusion help? Verdicts, the sentences beside them, and what must be known.

From the tables of the stage `gain`. Only confirmatory verdicts are put in words; what is exploratory has intervals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.estimation.verdicts import GAINS, LOSES, NOT_TESTABLE, WORDS
from pipeline.evaluation.reading import read_table
from pipeline.evaluation.scores import metrics_of
from pipeline.params import Verdicts
from pipeline.presentation.answers import Answer, AnswerTable, Link, Value
from pipeline.presentation.tables import METRIC_TITLES, short_title, title_inside
from pipeline.presentation.text import joined, plural, verb
from pipeline.questions.when import control as controls
from pipeline.questions.when import information as informations
from pipeline.questions.when import ladder as ladders
from pipeline.questions.when import tables as texts
from pipeline.questions.when import target as targets
from pipeline.questions.when import worth_section as worths
from pipeline.questions.when.contest import SCHEMA, VARIANCE_SCHEMA
from pipeline.questions.when.figures import figures
from pipeline.questions.when.gain import CHOSEN_SCHEMA
from pipeline.questions.when.section_tables import STAGE, row_of, tables_of
from pipeline.questions.when.source import ONE_RUN
from pipeline.questions.when.tables import OWN
from pipeline.questions.when.worth import DEFER_SCHEMA, WORTH_SCHEMA
from pipeline.tasks import get_task

KEY, QUESTION = "when", "When does fusion help?"
ROLE_TITLES = {"ehr": "EHR-only strategy", "image": "image-only strategy", "fusion": "strategy of verdicts.fusion"}


def answer(tables: Path, rule: Verdicts) -> Answer:
    """The section. Raises InputError where a table is missing or of another shape."""
    table = read_table(tables / "gain.csv", SCHEMA)
    chosen = read_table(tables / "chosen.csv", CHOSEN_SCHEMA)
    variance = read_table(tables / "variance.csv", VARIANCE_SCHEMA)
    use = read_table(tables / "image_use.csv", controls.USE_SCHEMA)
    ladder = read_table(tables / "ladder.csv", ladders.SCHEMA)
    prevalence = read_table(tables / "icd.csv", texts.ICD_SCHEMA)
    information = read_table(tables / "information.csv", informations.SCHEMA)
    target = read_table(tables / "target.csv", targets.SCHEMA)
    benefit = read_table(tables / "worth.csv", WORTH_SCHEMA)
    defer = read_table(tables / "defer.csv", DEFER_SCHEMA)
    family = texts.confirmatory(table)
    return Answer(
        key=KEY,
        question=QUESTION,
        sentence=sentence(family, chosen, use),
        notes=notes(family, chosen, ladder, rule),
        figures=(*figures(table, family, ladder, rule), *worths.figures(benefit, defer)),
        tables=(
            *tables_of(table, family, chosen, variance, use, ladder, prevalence, information, target, rule),
            *worths.tables_of(benefit, defer),
        ),
        verdicts=verdicts(family, rule),
        brief=brief(family, chosen),
    )


def anchor(row: dict[str, Any]) -> str:
    """The id of a task's and cohort's row among the verdicts, to which the matrix leads."""
    return f"verdict-{row['task']}-{row['cohort']}"


def verdicts(family: pl.DataFrame, rule: Verdicts) -> AnswerTable | None:
    """The table that leads: the tasks' own labels, a row a task and cohort; None without any."""
    rows = list(family.filter(pl.col("label").is_in(OWN)).iter_rows(named=True))
    if not rows:
        return None
    body = tuple(
        (
            f"{short_title(row['task'])}, {row['cohort']}",
            texts.chip(row, rule),
            texts.told(row),
            METRIC_TITLES[row["metric"]],
            row["strategy"] or "",
            row[texts.opponent(row)] or "",
            row["n"],
            row["positives"] or "",
            Link("label by label", row_of(row)),
            _figure(row),
        )
        for row in rows
    )
    header = (
        "Task, cohort",
        "Verdict",
        "Difference",
        "Metric",
        "Fusion",
        "Compared with",
        "Stays",
        "Positives",
        "Rows",
        "Figure",
    )
    note = (
        "A verdict is on fusion against the record alone and against the image alone, and allows for the number of "
        f"comparisons made. {texts.ADJUSTED}{_one_run(family)}"
    )
    anchors = tuple(map(anchor, rows))
    return AnswerTable("Verdicts", note, header, body, "tables/gain.csv", STAGE, folded=False, anchors=anchors)


def _figure(row: dict[str, Any]) -> Value:
    """Where the difference is drawn; nothing where no fusion strategy was chosen."""
    name = "when_phenotypes" if row["task"] == "phenotype" else f"when_{row['task']}"
    return Link("figure", f"figure-{name}") if row["strategy"] else ""


def _one_run(family: pl.DataFrame) -> str:
    return f" {ONE_RUN.capitalize()}." if ONE_RUN in family["note"] else ""


def sentence(family: pl.DataFrame, chosen: pl.DataFrame, use: pl.DataFrame) -> str:
    """What the verdicts say, by what the tasks' scores differ, and how many strategies use the image."""
    own = list(family.filter(pl.col("label").is_in(OWN)).iter_rows(named=True))
    if not own:
        return f"Not answered: {_why_nothing(chosen)}."
    return f"{brief(family, chosen)} {_differences(own)} {_use(use)}"


def brief(family: pl.DataFrame, chosen: pl.DataFrame) -> str:
    """What the verdicts say, and how those on single phenotypes are counted."""
    own = list(family.filter(pl.col("label").is_in(OWN)).iter_rows(named=True))
    if not own:
        return f"Not answered: {_why_nothing(chosen)}."
    text = _lead(own)
    single = family.filter(~pl.col("label").is_in(OWN))
    if single.height:
        counted = {word: single.filter(verdict=word).height for word in WORDS}
        words = [f"{count} “{word}”" for word, count in counted.items() if count]
        text += f" Verdicts on single phenotypes: {joined(words)}."
    return text


def _lead(own: list[dict[str, Any]]) -> str:
    said = {word: _places([row for row in own if row["verdict"] == word]) for word in WORDS}
    if all(row["verdict"] == NOT_TESTABLE for row in own):
        why = _why(own) or "too few test stays with the rarer outcome"
        return f"Whether fusion helps is not testable here: {why}."
    clauses = [f"{word} for {joined(said[word])}" for word in (GAINS, LOSES) if said[word]]
    rest = [f"{word} for {joined(said[word])}" for word in WORDS[2:] if said[word]]
    if not clauses:
        return f"Nowhere does fusion gain or lose for certain: it is {'; '.join(rest)}."
    held = "Held against the record alone and the image alone, and with all comparisons allowed for, fusion"
    return f"{held} {joined(clauses)}" + (f"; it is {'; '.join(rest)}." if rest else ".")


def _places(rows: list[dict[str, Any]]) -> list[str]:
    """ICU mortality (base cohort); phenotypes (base and matched cohorts)."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        cohorts = [row["cohort"] for row in rows if row["task"] == task]
        found.append(f"{title_inside(task)} ({joined(cohorts)} {verb(len(cohorts), 'cohort', 'cohorts')})")
    return found


def _why(own: list[dict[str, Any]]) -> str:
    columns = dict.fromkeys(("task", "cohort", "note"), pl.String)
    return "; ".join(texts.notes_told(pl.DataFrame([{name: row[name] for name in columns} for row in own], columns)))


def _differences(own: list[dict[str, Any]]) -> str:
    each = []
    for task in dict.fromkeys(row["task"] for row in own):
        rows = [row for row in own if row["task"] == task]
        values = joined([f"{_signed(row)} in the {row['cohort']} cohort" for row in rows])
        each.append(f"{short_title(task)} ({METRIC_TITLES[rows[0]['metric']]}) {values}")
    return f"Fusion's score less that of the better one of record and image: {'; '.join(each)}."


def _signed(row: dict[str, Any]) -> str:
    return ("+" if (texts.told(row).value or 0) > 0 else "") + texts.told_text(row)


def _why_nothing(chosen: pl.DataFrame) -> str:
    for role, title in ROLE_TITLES.items():
        rows = chosen.filter(role=role)
        if not rows.height:
            return f"the grid has no {title}"
        if not rows["validation"].is_not_null().any():
            return f"no {title} could be scored on validation, so that none was chosen"
    return "nothing could be compared"


def _use(use: pl.DataFrame) -> str:
    """How many strategies use the image on any task, as the control asks."""
    if not use.height:
        return "Whether a strategy uses the image is not known: there is no probe of one."
    names = use["strategy"].unique().sort().to_list()
    using = use.filter(pl.col("passed"))["strategy"].unique().sort().to_list()
    if not using:
        of = f"the one fusion strategy, {names[0]}," if len(names) == 1 else f"any of {len(names)} fusion strategies"
        return f"That {of} uses the image at all is not shown on any task and cohort."
    if len(names) == 1:
        return f"That the one fusion strategy, {names[0]}, uses the image is shown on some task and cohort."
    return (
        f"That a fusion strategy uses the image is shown, on some task and cohort, for {len(using)} of {len(names)}: "
        f"{joined(using)}."
    )


def notes(family: pl.DataFrame, chosen: pl.DataFrame, ladder: pl.DataFrame, rule: Verdicts) -> tuple[str, ...]:
    """What must be known before the tables are read."""
    margins = {metrics_of(get_task(task))[0] for task in chosen["task"].unique()}
    told = ", ".join(f"{METRIC_TITLES[name]} {rule.margin(name):g}" for name in sorted(margins))
    found = [f"The rule was fixed before the run: {texts.rule_in_words(rule)}. Margins: {told}."]
    sizes = {role: chosen.filter(role=role)["strategy"].n_unique() for role in ROLE_TITLES}
    if family.height:
        found.append(
            f"The confirmatory family has {plural(family.height, 'comparison')}, one a task, cohort and label, of the "
            f"fusion strategy that validation chose ({plural(sizes['fusion'], 'candidate')}, declared in "
            f"verdicts.fusion) with the best on the record ({plural(sizes['ehr'], 'candidate')}) and the best on the "
            f"image ({plural(sizes['image'], 'candidate')}). As many candidates stand on either side, since the best "
            "of many looks better by chance: docs/reading-the-report.md shows by how much in simulation. All the rest "
            "of the grid is exploratory, has intervals of its own and no verdict."
        )
    if ONE_RUN in family["note"]:
        found.append(f"{ONE_RUN.capitalize()}: intervals are of the patients tested alone, and nothing is confirmed.")
    found.append(
        "“No relevant gain” is said only of a strategy that is known to use the image: its encoder tells findings of "
        "the radiology reports better than untrained, and images of other patients cost it something."
    )
    found.append(
        "Phenotypes are discharge codes of the whole admission: the task is retrospective phenotyping, and coding "
        "changed with the years in which images were taken (prevalence by ICD version and image below)."
    )
    reasons = ladder.filter(pl.col("left_out").is_not_null())["left_out"].unique(maintain_order=True)
    if len(reasons):
        found.append(f"The ladder lacks rungs in places: {joined(reasons.to_list())}.")
    return tuple(found)
