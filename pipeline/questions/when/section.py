"""Question 1 on the page: when does fusion help? From the tables of the stage `gain`, and the positive control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.estimation.randomisation import ALPHA
from pipeline.estimation.verdicts import GAIN, NO_GAIN, UNDETERMINED
from pipeline.evaluation.reading import read_table
from pipeline.evaluation.scores import MACRO
from pipeline.params import Verdicts
from pipeline.presentation.answers import Answer, AnswerFigure, AnswerTable, Value
from pipeline.presentation.differences import Row, forest
from pipeline.presentation.tables import METRIC_TITLES, Cell, short_title, title_inside
from pipeline.questions.when import control as controls
from pipeline.questions.when import gain as gains
from pipeline.questions.when import ladder as ladders
from pipeline.questions.when import tables as texts

KEY, QUESTION = "when", "When does fusion help?"
STAGE = "gain"
OWN = (MACRO, "icu_mortality")  # labels under which a task's own score stands
RUNG_TITLES = {
    "ehr": "EHR",
    "presence": "+ whether there is an image",
    "metadata": "+ its hour, view and number",
    "pixels": "+ its pixels",
    "permuted": "pixels of another patient",
}


def answer(tables: Path, rule: Verdicts) -> Answer:
    """The section. Raises InputError where a table is missing or of another shape."""
    table = read_table(tables / "gain.csv", gains.SCHEMA)
    chosen = read_table(tables / "chosen.csv", gains.CHOSEN_SCHEMA)
    control = read_table(tables / "image_control.csv", controls.SCHEMA)
    ladder = read_table(tables / "ladder.csv", ladders.SCHEMA)
    prevalence = read_table(tables / "icd.csv", texts.ICD_SCHEMA)
    family = texts.confirmatory(table)
    return Answer(
        key=KEY,
        question=QUESTION,
        sentence=sentence(family, chosen, ladder, rule),
        notes=notes(family, chosen, control, ladder, rule),
        figures=tuple(_figures(table, family, ladder, rule)),
        tables=tuple(_tables(table, family, chosen, ladder, prevalence)),
    )


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def sentence(family: pl.DataFrame, chosen: pl.DataFrame, ladder: pl.DataFrame, rule: Verdicts) -> str:
    """The answer: the tasks' own differences with their intervals, then how the single phenotypes fared."""
    own = family.filter(pl.col("label").is_in(OWN))
    if not own.height:
        return f"Not answered: {_why_nothing(chosen)}."
    gained = [
        f"{title_inside(row['task'])} ({row['cohort']} cohort)"
        for row in own.filter(verdict=GAIN).iter_rows(named=True)
    ]
    if gained:
        lead = f"Fusion beats the best single modality for {_joined(gained)}"
    elif own.filter(verdict=NO_GAIN).height == own.height:  # a null is no "no gain"
        lead = f"Fusion adds nothing that matters (±{rule.margins.auroc:g}) to the best single modality"
    elif own["verdict"].is_null().all():
        lead = "These data are too small to tell whether fusion beats the best single modality"
    else:
        lead = "Whether fusion beats the best single modality cannot be told from these data"
    each = []
    for task in own["task"].unique(maintain_order=True):
        rows = list(own.filter(task=task).iter_rows(named=True))
        values = _joined([f"{_cell(row)} in the {row['cohort']} cohort{_below(row)}" for row in rows])
        each.append(f"{short_title(task)} ({METRIC_TITLES[rows[0]['metric']]}) {values}")
    text = f"{lead}. Fusion less the best single modality: {'; '.join(each)}."
    single = family.filter(~pl.col("label").is_in(OWN))
    if single.height:
        counted = {word: single.filter(verdict=word).height for word in (GAIN, NO_GAIN, UNDETERMINED)}
        counted["not estimable"] = single.height - sum(counted.values())
        words = [f"{count} “{word}”" for word, count in counted.items() if count]
        text += f" Verdicts on single phenotypes: {_joined(words)}."
    return f"{text} {_after_holm(family)} {_image(ladder)}"


def _below(row: dict[str, Any]) -> str:
    return ", where it is worse" if row["high"] is not None and row["high"] < 0 else ""


def _cell(row: dict[str, Any]) -> str:
    cell = texts.difference(row)
    return f"+{cell.told}" if cell.value is not None and cell.value > 0 else cell.told


def _why_nothing(chosen: pl.DataFrame) -> str:
    for role in gains.ROLES:
        rows = chosen.filter(role=role)
        if not rows.height:
            return f"the grid has no {role} strategy"
        if not rows["validation"].is_not_null().any():
            return f"no {role} strategy could be scored on validation, so that none was chosen"
    return "nothing could be compared"


def _after_holm(family: pl.DataFrame) -> str:
    """How much is left of the differences, in either direction, after the adjustment over the whole family."""
    left = family.filter(pl.col("p_holm") < ALPHA)
    up, down = left.filter(pl.col("difference") > 0).height, left.filter(pl.col("difference") < 0).height
    if not up + down:
        return f"After Holm's adjustment over all {family.height} tests no difference has p < {ALPHA:g}."
    return (
        f"After Holm's adjustment over all {family.height} tests p < {ALPHA:g} is left for {up} in which fusion is "
        f"better and {down} in which it is worse."
    )


def _image(ladder: pl.DataFrame) -> str:
    """Whether the pixels beat the metadata, by task."""
    steps = ladder.filter(pl.col("label").is_in(OWN), rung="pixels", against="metadata")
    steps = steps.filter(pl.col("metric").is_in(["auroc", "accuracy"]))
    if not steps.height:
        return "Whether the image itself helps is not known: a rung of the ladder is missing."
    helps = [
        f"{title_inside(row['task'])} ({row['cohort']})" for row in steps.filter(verdict=GAIN).iter_rows(named=True)
    ]
    if helps:
        return f"The image itself helps, pixels beating its metadata, for {_joined(helps)}."
    return "Nowhere do the pixels demonstrably beat the mere metadata of the image."


def notes(
    family: pl.DataFrame, chosen: pl.DataFrame, control: pl.DataFrame, ladder: pl.DataFrame, rule: Verdicts
) -> tuple[str, ...]:
    """What must be known before the tables are read."""
    found = [f"The rule was fixed before the run: {texts.rule_in_words(rule)}."]
    silent = _silent(chosen, control, rule)
    if silent:
        found.append(
            f"“{NO_GAIN}” is not said for {silent}: no image-only strategy has passed the positive control there, so "
            "that an encoder that learned nothing is as good an explanation."
        )
    found.append(
        "Confirmatory is one test a task and phenotype in each cohort: the fusion strategy against the unimodal "
        "one, both chosen on validation. All the rest of the grid is exploratory."
    )
    found.append(
        "Phenotypes are discharge codes of the whole admission: the task is retrospective phenotyping, and coding "
        "changed with the years in which images were taken (prevalence by ICD version and image below)."
    )
    reasons = ladder.filter(pl.col("left_out").is_not_null(), rung="permuted")["left_out"].unique(maintain_order=True)
    if len(reasons):
        found.append(f"The ladder lacks its last rung in places: {_joined(reasons.to_list())}.")
    return tuple(found)


def _silent(chosen: pl.DataFrame, control: pl.DataFrame, rule: Verdicts) -> str:
    """For which tasks and cohorts the positive control is not passed, in words; empty: for none."""
    alone = chosen.filter(role="unimodal")["strategy"].unique()  # of these, only image-only ones are in the control
    asked = chosen.select("task", "cohort").unique(maintain_order=True).rows()
    failed = [(task, of) for task, of in asked if not controls.passed(control, alone, task, of, rule.control_auroc)]
    if failed == asked:
        return "any task" if asked else ""
    cohorts: dict[str, list[str]] = {}
    for task, cohort in failed:
        cohorts.setdefault(task, []).append(cohort)
    words = [f"{title_inside(task)} ({' and '.join(each)})" for task, each in cohorts.items()]
    return _joined(words) if words else ""


def _series(rows: pl.DataFrame) -> list[str]:
    return [name for name in ("base", "matched") if name in rows["cohort"]]


def _forest_rows(rows: pl.DataFrame, by: str, title: Any, cohorts: list[str]) -> list[Row]:
    found = []
    for name in rows[by].unique(maintain_order=True):
        each = {row["cohort"]: texts.difference(row) for row in rows.filter(pl.col(by) == name).iter_rows(named=True)}
        found.append(Row(title(name), tuple(each.get(cohort) for cohort in cohorts)))
    return found


def _figures(table: pl.DataFrame, family: pl.DataFrame, ladder: pl.DataFrame, rule: Verdicts) -> list[AnswerFigure]:
    cohorts = _series(table)
    names = [f"{cohort} cohort" for cohort in cohorts]
    of, axis = "Fusion less the best unimodal strategy", "Difference of AUROC (length of stay: of accuracy)"
    drawn = []

    def add(name: str, rows: list[Row], axis: str, title: str, caption: str) -> None:
        if rows:
            svg = forest(rows, names, axis, name, title, rule.margins.auroc)
            drawn.append(AnswerFigure(name, svg, caption, "tables/gain.csv"))

    band = f"the band is ±{rule.margins.auroc:g}"
    own = family.filter(pl.col("label").is_in(OWN))
    caption = f"Both chosen on validation; intervals from a bootstrap over subjects; {band}."
    add("when_tasks", _forest_rows(own, "task", short_title, cohorts), axis, of, caption)
    single = family.filter(~pl.col("label").is_in(OWN))
    rows = _forest_rows(single, "label", texts.label_title, cohorts)
    add("when_phenotypes", rows, "Difference of AUROC", f"{of}: phenotypes", f"The confirmatory family; {band}.")
    for task in table["task"].unique(maintain_order=True):
        first = "accuracy" if task == "los" else "auroc"
        every = table.filter(pl.col("label").is_in(OWN), task=task, metric=first, stratum="all")
        title = f"{short_title(task)}: every fusion strategy"
        caption = f"Exploratory: less the best unimodal strategy of each cohort; {band}."
        rows = _forest_rows(every, "strategy", str, cohorts)
        add(f"when_{task}", rows, f"Difference of {METRIC_TITLES[first]}", title, caption)
    return [*drawn, *_ladder_figures(ladder, cohorts, names)]


def _ladder_figures(ladder: pl.DataFrame, cohorts: list[str], names: list[str]) -> list[AnswerFigure]:
    drawn = []
    own = ladder.filter(pl.col("label").is_in(OWN) & pl.col("metric").is_in(["auroc", "accuracy"]))
    for task in own["task"].unique(maintain_order=True):
        rows = []
        for rung in own.filter(task=task)["rung"].unique(maintain_order=True):
            each = {
                row["cohort"]: Cell(row["value"], row["low"], row["high"])
                for row in own.filter(task=task, rung=rung).iter_rows(named=True)
            }
            if any(cell.value is not None for cell in each.values()):
                rows.append(Row(RUNG_TITLES[rung], tuple(each.get(cohort) for cohort in cohorts)))
        if rows and cohorts:
            name, title = f"when_ladder_{task}", f"{short_title(task)}: what the image adds, step by step"
            axis = METRIC_TITLES[own.filter(task=task)["metric"][0]]
            caption = "Each rung is told what the one above it is, and more. Intervals of neighbours are paired."
            drawn.append(AnswerFigure(name, forest(rows, names, axis, name, title), caption, "tables/ladder.csv"))
    return drawn


def _tables(
    table: pl.DataFrame,
    family: pl.DataFrame,
    chosen: pl.DataFrame,
    ladder: pl.DataFrame,
    prevalence: pl.DataFrame,
) -> list[AnswerTable]:
    """Those that have rows."""
    made = [
        _confirmatory(family),
        _strata(table),
        _every(table),
        _ladder(ladder),
        _chosen(chosen),
        _prevalence(prevalence),
    ]
    return [each for each in made if each.rows]


def _confirmatory(family: pl.DataFrame) -> AnswerTable:
    header = (
        "Label",
        "Cohort",
        "Fusion",
        "Unimodal",
        "Metric",
        "Difference",
        "p",
        "p (Holm)",
        "Verdict",
        "Stays",
        "Positives",
    )
    rows = tuple(
        (
            short_title(row["task"]) if row["label"] in OWN else texts.label_title(row["label"]),
            row["cohort"],
            row["strategy"],
            row["unimodal"],
            METRIC_TITLES[row["metric"]],
            texts.difference(row),
            texts.probability(row["p"]),
            texts.probability(row["p_holm"]),
            row["verdict"],
            row["n"],
            row["positives"] or "",
        )
        for row in family.iter_rows(named=True)
    )
    note = "Paired differences on the test folds, both strategies chosen on validation; p by approximate randomisation."
    return AnswerTable("The confirmatory family", note, header, rows, "tables/gain.csv", STAGE, folded=False)


def _strata(table: pl.DataFrame) -> AnswerTable:
    """The chosen fusion strategy by image, coding, type and prevalence."""
    rows = table.filter(pl.col("chosen") & pl.col("label").is_in(OWN) & pl.col("metric").is_in(["auroc", "accuracy"]))
    body = tuple(
        (
            f"{row['stratum'].replace('_', ' ')}: {row['group']}" if row["stratum"] != "all" else "all",
            short_title(row["task"]),
            row["cohort"],
            row["strategy"],
            texts.difference(row),
            row["verdict"],
            row["n"],
            row["positives"] or "",
        )
        for row in rows.iter_rows(named=True)
    )
    note = (
        "Exploratory but for “all”. By image and ICD version of stays, by type and tercile of prevalence of phenotypes."
    )
    header = ("Stratum", "Task", "Cohort", "Fusion", "Difference", "Verdict", "Stays", "Positives")
    return AnswerTable("Where the gain lies", note, header, body, "tables/gain.csv", STAGE)


def _every(table: pl.DataFrame) -> AnswerTable:
    """Every fusion strategy, a column a task, cohort and metric."""
    rows = table.filter(pl.col("label").is_in(OWN), stratum="all")
    columns = rows.select("task", "cohort", "metric").unique(maintain_order=True).rows()
    body = []
    for strategy in rows["strategy"].unique(maintain_order=True):
        each = {
            (row["task"], row["cohort"], row["metric"]): texts.difference(row)
            for row in rows.filter(strategy=strategy).iter_rows(named=True)
        }
        body.append((strategy, *(each.get(column) for column in columns)))
    header = (
        "Strategy",
        *(f"{short_title(task)}, {cohort}, {METRIC_TITLES[metric]}" for task, cohort, metric in columns),
    )
    note = "Exploratory: each less the unimodal strategy that validation chose for the task and cohort."
    return AnswerTable("Every fusion strategy", note, header, tuple(body), "tables/gain.csv", STAGE)


def _ladder(ladder: pl.DataFrame) -> AnswerTable:
    own = ladder.filter(pl.col("label").is_in(OWN) & pl.col("metric").is_in(["auroc", "accuracy"]))
    body = []
    for row in own.iter_rows(named=True):
        step: tuple[Value, ...] = ("", "", row["left_out"] or "")
        if row["against"] is not None:
            cell = Cell(row["difference"], row["difference_low"], row["difference_high"])
            step = (RUNG_TITLES[row["against"]], cell, row["verdict"] or "")
        score: Value = "" if row["left_out"] else Cell(row["value"], row["low"], row["high"])
        body.append(
            (RUNG_TITLES[row["rung"]], short_title(row["task"]), row["cohort"], row["strategy"] or "", score, *step)
        )
    header = ("Rung", "Task", "Cohort", "Strategy", "Score", "Less", "Difference", "Verdict")
    note = (
        "“The image helps” is said where the pixels beat the metadata. Permuted: among the patients who have an image."
    )
    return AnswerTable("The ladder", note, header, tuple(body), "tables/ladder.csv", STAGE)


def _chosen(chosen: pl.DataFrame) -> AnswerTable:
    body = tuple(
        (
            row["strategy"],
            short_title(row["task"]),
            row["cohort"],
            row["role"],
            METRIC_TITLES[row["metric"]],
            Cell(row["validation"], None, None),
            "yes" if row["chosen"] else "",
        )
        for row in chosen.iter_rows(named=True)
    )
    note = "Mean over folds and seeds of the headline metric on validation stays of the cohort."
    header = ("Strategy", "Task", "Cohort", "Role", "Metric", "Validation", "Chosen")
    return AnswerTable("What validation chose", note, header, body, "tables/chosen.csv", STAGE)


def _prevalence(prevalence: pl.DataFrame) -> AnswerTable:
    groups = prevalence.select("icd_version", "has_cxr").unique().sort("icd_version", "has_cxr").rows()
    body: list[tuple[Value, ...]] = []
    for label in prevalence["phenotype"].unique(maintain_order=True):
        each = {row[1:3]: row for row in prevalence.filter(phenotype=label).iter_rows()}
        body.append(
            (
                texts.label_title(label),
                *(f"{each[group][4]} of {each[group][3]}" for group in groups),
                *(Cell(each[group][5], None, None) for group in groups),
            )
        )
    names = [f"ICD-{version}, {'image' if image else 'no image'}" for version, image in groups]
    header = ("Phenotype", *(f"{name}: stays" for name in names), *(f"{name}: prevalence" for name in names))
    note = "All stays of the base cohort. 0: without a diagnosis; 19: with codes of both versions."
    return AnswerTable("Prevalence by ICD version and image", note, header, tuple(body), "tables/icd.csv", STAGE)
