"""The known-answer tables for people, and writing them all."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.presentation.text import markdown_table, number, plural, with_interval
from pipeline.questions.known.known import Answers, counted, kind_grid, kinds_right, single_labels
from pipeline.questions.known.rules import RULES
from pipeline.questions.known.truth import STAY

COUNTS = {  # of known_rules, and their titles
    "labels": "Labels",
    "attainable": "Attainable",
    "gain_right": "Gains, right",
    "gain_wrong": "Gains, wrong",
    "none_right": "No gains, right",
    "none_wrong": "No gains, wrong",
    "silent": "Says nothing",
}
HEADER = (
    "Label",
    "Kind",
    "Named",
    "Planted",
    "Oracle, EHR",
    "Oracle, image",
    "Oracle, both",
    "Attainable",
    "Found",
    "Verdict",
    "",
)
CEILINGS = ("planted", "oracle_ehr", "oracle_image", "oracle_both", "attainable")


def write(answers: Answers, tables: Path) -> None:
    """Writes known, known_kinds and known_rules as CSV, and known.md."""
    files.write_csv(answers.by_label, tables / "known.csv")
    files.write_csv(answers.kinds, tables / "known_kinds.csv")
    files.write_csv(answers.rules, tables / "known_rules.csv")
    files.write_text(known_markdown(answers), tables / "known.md")


def known_markdown(answers: Answers) -> str:
    """known.md: a table a cohort by label and one by kind, the shares of right and wrong verdicts, and the rules."""
    by_label = answers.by_label
    lines = ["# Known answers", ""]
    if not by_label.height:
        return "\n".join([*lines, "Only on the synthetic hospital are the answers known.", ""])
    for cohort in by_label["cohort"].unique(maintain_order=True):
        rows = by_label.filter(cohort=cohort)
        single = single_labels(rows)
        lines += [
            f"## {cohort.capitalize()} cohort",
            "",
            f"Verdicts on {plural(single.height, 'label')}: {counted(single)}.",
            "",
        ]
        if "phenotype" in rows["task"]:
            lines += [f"Information names the planted kind of {kinds_right(rows)}.", ""]
        body = [
            [
                STAY if row["task"] == STAY else row["label"],
                row["kind"],
                row["named"] or number(None),
                *(number(row[name]) for name in CEILINGS),
                with_interval(row["found"], row["low"], row["high"]),
                row["verdict"] or number(None),
                row["judgement"] or number(None),
            ]
            for row in rows.iter_rows(named=True)
        ]
        lines += [markdown_table(HEADER, body, numbers_from=3)]
        header, of_kinds = kind_grid(answers.kinds, cohort)
        lines += [markdown_table(header, [[row[0], *(each.text for each in row[1])] for row in of_kinds])]
        lines += ["The field's usual rules, on the same predictions:", "", rules_markdown(answers.rules, cohort)]
    return "\n".join(lines)


def rules_markdown(rules: pl.DataFrame, cohort: str) -> str:
    """What each rule says, right and wrong, in one cohort."""
    body = [
        [RULES[row["rule"]], *(row[name] for name in COUNTS)]
        for row in rules.filter(cohort=cohort).iter_rows(named=True)
    ]
    return markdown_table(["Rule", *COUNTS.values()], body)
