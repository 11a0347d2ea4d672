"""The known answers on the page: on the synthetic hospital, is what was found what was planted?

From the tables of the stage `known`; there is no section where the data are not synthetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.estimation.verdicts import NOT_TESTABLE, UNDETERMINED
from pipeline.evaluation.reading import read_table
from pipeline.params import Verdicts
from pipeline.presentation.answers import Answer, AnswerFigure, AnswerTable, Value
from pipeline.presentation.differences import Block, Point, caterpillar, scatter
from pipeline.presentation.tables import Cell, short_title
from pipeline.presentation.text import joined, number, plural
from pipeline.questions.known import known as answers
from pipeline.questions.known import rules, stay
from pipeline.questions.known.tables import CEILINGS, COUNTS, HEADER
from pipeline.questions.known.truth import STAY
from pipeline.questions.when import tables as texts
from pipeline.questions.when.information import NOISE
from pipeline.questions.when.information import TITLES as KIND_TITLES

KEY, QUESTION = "known", "Is what was planted found?"
STAGE = "known"
TITLES = {**KIND_TITLES, NOISE: "noise"}


def answer(tables: Path, rule: Verdicts) -> Answer | None:
    """The section, or None where the answers are not known. Raises InputError where a table is missing."""
    by_label = read_table(tables / "known.csv", answers.SCHEMA)
    kinds = read_table(tables / "known_kinds.csv", answers.KIND_SCHEMA)
    usual = read_table(tables / "known_rules.csv", rules.SCHEMA)
    if not by_label.height:
        return None
    notes = (
        "Planted are the causes of every label (docs/synthetic-hospital.md). Attainable is what an oracle of both "
        "modalities gains over the better oracle of one: it knows the causes, and sees them as record and radiograph "
        "show them, noise and all; models see hours and pixels.",
        "Right is “gains” where anything is attainable (“by more than the margin” where more than "
        f"{rule.margins.auroc:g} is), and “no relevant gain” or “equivalent” where no more than that is; the other "
        "words say nothing of it. This is one hospital; docs/known-hospitals.md counts verdicts over several.",
    )
    single, cohorts = answers.single_labels(by_label), by_label["cohort"].unique(maintain_order=True).to_list()
    return Answer(
        key=KEY,
        question=QUESTION,
        sentence=sentence(by_label, kinds, rule),
        notes=notes,
        figures=tuple(_figures(single, kinds, cohorts, rule)),
        tables=tuple(_tables(by_label, kinds, usual, cohorts)),
    )


def sentence(by_label: pl.DataFrame, kinds: pl.DataFrame, rule: Verdicts) -> str:
    """How many verdicts are right, the macro mean differences of the chosen strategy by kind, and length of stay."""
    single, parts = answers.single_labels(by_label), []
    if single.height:
        told = plural(single.height, "label")
        parts.append(f"Verdicts were held against the planted truth of {told}: {answers.counted(single)}.")
        open_ones = single.filter(pl.col("judgement").is_in([UNDETERMINED, NOT_TESTABLE])).height
        if open_ones > single.height / 2:
            parts.append("These data are too small to tell more.")
    if single["task"].is_in(["phenotype"]).any():
        parts.append(f"Information names the planted kind of {answers.kinds_right(single)}.")
    for cohort in kinds["cohort"].unique(maintain_order=True):
        rows = kinds.filter("chosen", cohort=cohort).iter_rows(named=True)
        each = [f"{TITLES[row['kind']]} {texts.difference(row).told}" for row in rows]
        parts.append(
            f"Fusion less the better modality, {cohort} cohort, mean difference of AUROC by kind: {'; '.join(each)}."
        )
    return " ".join([*parts, *stay_told(by_label, rule)])


def stay_told(by_label: pl.DataFrame, rule: Verdicts) -> list[str]:
    """One line on length of stay: what is attainable and what was said, by cohort; none where it was not asked."""
    each = [
        f"{number(row['attainable'])} in the {row['cohort']} cohort ({judged(row)})"
        for row in by_label.filter(task=STAY).iter_rows(named=True)
    ]
    if not each:
        return []
    told = f"Of length of stay, accuracy to be gained over the better modality (margin {rule.margin(stay.METRIC):g})"
    return [f"{told}: {joined(each)}."]


def judged(row: dict[str, Any]) -> str:
    """“gains”: right; of a verdict that says nothing of gains, its word alone."""
    said = f"“{row['verdict']}”" if row["verdict"] else "no verdict"
    return f"{said}: {row['judgement']}" if row["judgement"] in (answers.RIGHT, answers.WRONG) else said


def _figures(by_label: pl.DataFrame, kinds: pl.DataFrame, cohorts: list[str], rule: Verdicts) -> list[AnswerFigure]:
    drawn = []
    for cohort in cohorts:
        blocks = []
        for kind in kinds.filter(cohort=cohort)["kind"].unique(maintain_order=True):
            rows = kinds.filter(cohort=cohort, kind=kind)
            cells = [(texts.difference(row), row["chosen"]) for row in rows.iter_rows(named=True)]
            blocks.append(Block(TITLES[kind], tuple(cells), rows["attainable"][0]))
        if blocks:
            name, title = f"known_kinds_{cohort}", f"Gain by kind of truth, {cohort} cohort"
            axis, target = "Macro mean difference of AUROC", "attainable, by the oracle"
            caption = (
                "Each fusion strategy, and the choice by label, less the better modality; "
                f"the band is ±{rule.margins.auroc:g}."
            )
            svg = caterpillar(blocks, axis, target, name, title, rule.margins.auroc)
            drawn.append(AnswerFigure(name, svg, caption, "tables/known_kinds.csv"))
    for cohort in cohorts:
        rows = by_label.filter(cohort=cohort).drop_nulls("attainable")
        points = [
            Point(row["kind"], row["attainable"], Cell(row["found"], row["low"], row["high"]))
            for row in rows.iter_rows(named=True)
        ]
        name, title = f"known_{cohort}", f"Attainable and found, {cohort} cohort"
        groups = [kind for kind in answers.KINDS if kind in rows["kind"]]
        caption = "A label a dot, by the kind of its truth; on the dashed line all that can be gained was."
        drawn.append(AnswerFigure(name, scatter(points, groups, name, title), caption, "tables/known.csv"))
    return drawn


def _tables(by_label: pl.DataFrame, kinds: pl.DataFrame, usual: pl.DataFrame, cohorts: list[str]) -> list[AnswerTable]:
    made = [_rules(usual)] if usual.height else []
    for cohort in cohorts:
        body = tuple(
            (
                short_title(STAY) if row["task"] == STAY else texts.label_title(row["label"]),
                TITLES[row["kind"]],
                texts.kind_title(row["named"]),
                *(Cell(row[name], None, None) for name in CEILINGS),
                Cell(row["found"], row["low"], row["high"]),
                row["verdict"],
                row["judgement"],
            )
            for row in by_label.filter(cohort=cohort).iter_rows(named=True)
        )
        note = (
            "AUROC on the same test stays (of length of stay: the accuracy to be expected): of the planted "
            "probabilities, of the oracles, and the difference found."
        )
        made.append(AnswerTable(f"Label by label, {cohort} cohort", note, HEADER, body, "tables/known.csv", STAGE))
    for cohort in cohorts:
        names, grid = answers.kind_grid(kinds, cohort)
        if grid:
            head = ("Strategy", *(TITLES[kind] for kind in names[1:]))
            by_strategy: tuple[tuple[Value, ...], ...] = tuple((strategy, *cells) for strategy, cells in grid)
            note = "Mean over the phenotypes of a kind of the difference to the better modality of each, AUROC."
            title = f"Kind by kind, {cohort} cohort"
            made.append(AnswerTable(title, note, head, by_strategy, "tables/known_kinds.csv", STAGE))
    return made


def _rules(usual: pl.DataFrame) -> AnswerTable:
    body: tuple[tuple[Value, ...], ...] = tuple(
        (rules.RULES[row["rule"]], row["cohort"], *(row[name] for name in COUNTS))
        for row in usual.iter_rows(named=True)
    )
    note = (
        "What usual rules of claiming a gain would say of the very same predictions, against what is attainable. They "
        "compare the fusion strategy and the single-modality strategy with the best score of the task on validation."
    )
    header = ("Rule", "Cohort", *COUNTS.values())
    return AnswerTable("The field's usual rules", note, header, body, "tables/known_rules.csv", STAGE, folded=False)
