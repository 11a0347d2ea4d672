"""The tables of question 1 on the page, from those of the stage `gain`."""

from __future__ import annotations

from typing import Any

import polars as pl

from pipeline.params import Verdicts
from pipeline.presentation.answers import AnswerTable, Link, Value
from pipeline.presentation.tables import METRIC_TITLES, Cell, short_title
from pipeline.questions.when import tables as texts
from pipeline.questions.when.source import ROLES
from pipeline.questions.when.strata import SAW
from pipeline.questions.when.tables import OWN

STAGE = "gain"
FIRST = ("auroc", "accuracy")  # metrics that verdicts are about
RUNG_TITLES = {
    "ehr": "EHR",
    "presence": "+ whether there is an image",
    "metadata": "+ its hour, view and number",
    "pixels": "+ its pixels",
    "permuted": "pixels of another patient",
}


def tables_of(
    table: pl.DataFrame,
    family: pl.DataFrame,
    chosen: pl.DataFrame,
    variance: pl.DataFrame,
    use: pl.DataFrame,
    ladder: pl.DataFrame,
    prevalence: pl.DataFrame,
    information: pl.DataFrame,
    target: pl.DataFrame,
    rule: Verdicts,
) -> list[AnswerTable]:
    """Those that have rows."""
    made = [
        _confirmatory(family, rule),
        _variance(variance),
        _use(use),
        _target(target),
        _information(information),
        _strata(table),
        _every(table),
        _ladder(ladder),
        _chosen(chosen),
        _prevalence(prevalence),
    ]
    return [each for each in made if each.rows]


def label_of(row: dict[str, str]) -> str:
    """A task's title for its own label, a phenotype's name for the others."""
    return short_title(row["task"]) if row["label"] in OWN else texts.label_title(row["label"])


def row_of(row: dict[str, Any]) -> str:
    """The id of a label's row in the confirmatory family."""
    return f"row-{row['task']}-{row['cohort']}-{row['label']}"


def _scores(row: dict[str, Any]) -> Link:
    """Where every strategy's scores on the label stand."""
    own = row["label"] in OWN
    return Link("scores", f"results-{row['task']}" if own else f"auroc-{row['cohort']}-{row['label']}")


def _confirmatory(family: pl.DataFrame, rule: Verdicts) -> AnswerTable:
    header = (
        "Label",
        "Cohort",
        "Verdict",
        "Fusion",
        "EHR only",
        "Less EHR only",
        "Image only",
        "Less image only",
        "p (gains)",
        "p (loses)",
        "Stays",
        "Positives",
        "All strategies",
    )
    rows = tuple(
        (
            label_of(row),
            row["cohort"],
            texts.chip(row, rule),
            row["strategy"] or "",
            row["ehr"] or "",
            texts.difference(row, "ehr"),
            row["image"] or "",
            texts.difference(row, "image"),
            texts.probability(row["p_gain"]),
            texts.probability(row["p_loss"]),
            row["n"],
            row["positives"] or "",
            _scores(row),
        )
        for row in family.iter_rows(named=True)
    )
    note = (
        "Paired differences on the test folds, all strategies chosen on validation; intervals unadjusted, p one-sided "
        "and adjusted for the family. A mean over labels must also gain over the better one of each label."
    )
    anchors = tuple(map(row_of, family.iter_rows(named=True)))
    title = "The confirmatory family"
    return AnswerTable(title, note, header, rows, "tables/gain.csv", STAGE, folded=False, anchors=anchors)


def _variance(variance: pl.DataFrame) -> AnswerTable:
    rows = variance.filter(pl.col("label").is_in(OWN))
    body: tuple[tuple[Value, ...], ...] = tuple(
        (
            short_title(row["task"]),
            row["cohort"],
            texts.AGAINST_TITLES[row["against"]],
            Cell(row["difference"], None, None),
            Cell(row["error"], None, None),
            *texts.shares(row),
            row["runs"],
            row["note"] or "",
        )
        for row in rows.iter_rows(named=True)
    )
    header = ("Task", "Cohort", "Less", "Difference", "Standard error", "Patients", "Seed", "Split", "Runs", "")
    note = "Shares of the squared standard error: who was tested, the luck of a seed, and of what was trained on."
    return AnswerTable("Where the uncertainty comes from", note, header, body, "tables/variance.csv", STAGE)


def _use(use: pl.DataFrame) -> AnswerTable:
    body: tuple[tuple[Value, ...], ...] = tuple(
        (
            row["strategy"],
            short_title(row["task"]),
            row["cohort"],
            "yes" if row["passed"] else "not shown",
            Cell(row["learned"], row["learned_low"], row["learned_high"]),
            Cell(row["cost"], row["cost_low"], row["cost_high"]),
            row["stays"] or "",
            row["note"] or "",
        )
        for row in use.iter_rows(named=True)
    )
    header = (
        "Strategy",
        "Task",
        "Cohort",
        "Uses the image",
        "Findings told: trained less untrained",
        "Cost of others' images",
        "Stays probed",
        "",
    )
    note = (
        "AUROC of findings of the radiology reports, from the frozen features of the strategy's own encoder, less that "
        "of the same encoder untrained; and what the score loses when images are permuted among the probed patients. "
        "“Yes”: both lower bounds are above 0."
    )
    return AnswerTable("Is the image used at all?", note, header, body, "tables/image_use.csv", STAGE)


def _target(target: pl.DataFrame) -> AnswerTable:
    """The tasks' own labels."""
    rows = target.filter(pl.col("label").is_in(OWN))
    body: tuple[tuple[Value, ...], ...] = tuple(
        (
            short_title(row["task"]),
            texts.AGAINST_TITLES[row["against"]],
            *texts.target_cells(row),
            row["n"],
            f"{row['effective']:.0f}",
            row["population"],
            row["note"] or "",
        )
        for row in rows.iter_rows(named=True)
    )
    note = (
        "Exploratory. Paired differences of strategies trained on the matched cohort: among test stays with an image, "
        "and weighted by 1 / P(image | record at admission and first hours) for all of whom one could have been taken."
    )
    if rows.height:
        note += f" {texts.target_words(rows)}."
    header = ("Task", *texts.TARGET_HEADER, "Stays", "Effective", "Population", "")
    return AnswerTable("Who had the image", note, header, body, "tables/target.csv", STAGE)


def _information(information: pl.DataFrame) -> AnswerTable:
    body: tuple[tuple[Value, ...], ...] = tuple(
        (
            label_of(row),
            row["cohort"],
            *texts.information_cells(row),
            texts.kind_title(row["kind"]),
            row["n"],
            row["positives"] or "",
            row["note"] or "",
        )
        for row in information.iter_rows(named=True)
    )
    note = (
        "Exploratory. Mutual information with the label in bits, of the scores that validation chose on the record "
        "alone, on the image alone, and of the fusion strategy, each in quarters of the test stays; less the bias of "
        "small counts, so that it may lie below 0. “Nothing shown” is no proof that there is nothing."
    )
    header = ("Label", "Cohort", *texts.INFORMATION_HEADER, "Stays", "Positives", "")
    title = "What record and image tell, without a strategy's architecture"
    return AnswerTable(title, note, header, body, "tables/information.csv", STAGE)


def _strata(table: pl.DataFrame) -> AnswerTable:
    """The chosen fusion strategy by image, coding, type and prevalence."""
    rows = table.filter(
        pl.col("chosen") & pl.col("strategy").is_not_null() & pl.col("label").is_in(OWN) & pl.col("metric").is_in(FIRST)
    )
    body = tuple(
        (
            f"{row['stratum'].replace('_', ' ')}: {row['group']}" if row["stratum"] != "all" else "all",
            short_title(row["task"]),
            row["cohort"],
            row["strategy"],
            *(texts.difference(row, name) for name in ("ehr", "image", "")),
            row["n"],
            row["positives"] or "",
        )
        for row in rows.iter_rows(named=True)
    )
    note = "Exploratory. By image and ICD version of stays, by type and tercile of prevalence of phenotypes."
    if SAW in rows["stratum"]:
        note += " Whom the frozen image encoder has not seen before stand under “encoder saw: no”."
    header = (
        "Stratum",
        "Task",
        "Cohort",
        "Fusion",
        "Less EHR only",
        "Less image only",
        "Less the better one",
        "Stays",
        "Positives",
    )
    return AnswerTable("Where the difference lies", note, header, body, "tables/gain.csv", STAGE)


def _every(table: pl.DataFrame) -> AnswerTable:
    """Every fusion strategy, a column a task, cohort and metric."""
    rows = table.filter(~pl.col("chosen") & pl.col("label").is_in(OWN), stratum="all")
    columns = rows.select("task", "cohort", "metric").unique(maintain_order=True).rows()
    body = []
    for strategy in rows["strategy"].unique(maintain_order=True):
        each = {
            (row["task"], row["cohort"], row["metric"]): texts.difference(row)
            for row in rows.filter(strategy=strategy).iter_rows(named=True)
        }
        body.append((strategy, *(each.get(column) for column in columns), Link("card", f"card-{strategy}")))
    header = (
        "Strategy",
        *(f"{short_title(task)}, {cohort}, {METRIC_TITLES[metric]}" for task, cohort, metric in columns),
        "What it is",
    )
    note = "Exploratory: each less the better single modality that validation chose, label by label."
    anchors = tuple(f"every-{row[0]}" for row in body)
    return AnswerTable("Every fusion strategy", note, header, tuple(body), "tables/gain.csv", STAGE, anchors=anchors)


def _ladder(ladder: pl.DataFrame) -> AnswerTable:
    own = ladder.filter(pl.col("label").is_in(OWN) & pl.col("metric").is_in(FIRST))
    body = []
    for row in own.iter_rows(named=True):
        step: tuple[Value, ...] = ("", row["left_out"] or "")
        if row["against"] is not None:
            step = (RUNG_TITLES[row["against"]], Cell(row["difference"], row["difference_low"], row["difference_high"]))
        score: Value = "" if row["left_out"] else Cell(row["value"], row["low"], row["high"])
        body.append(
            (RUNG_TITLES[row["rung"]], short_title(row["task"]), row["cohort"], row["strategy"] or "", score, *step)
        )
    header = ("Rung", "Task", "Cohort", "Strategy", "Score", "Less", "Difference")
    note = (
        "Exploratory. All rungs have one architecture; with training.start unimodal those above the record go on from "
        "its weights, so that the first step is a second training's, too. What the pixels add to the metadata is what "
        "the image itself adds. Of another patient: among the patients who have an image."
    )
    return AnswerTable("The ladder", note, header, tuple(body), "tables/ladder.csv", STAGE)


def _chosen(chosen: pl.DataFrame) -> AnswerTable:
    """A row a task, cohort and label: whom validation chose in each role, and its score there."""
    picked = chosen.filter("chosen")
    body = []
    for (task, cohort, label), rows in picked.group_by("task", "cohort", "label", maintain_order=True):
        each = {row["role"]: row for row in rows.iter_rows(named=True)}
        cells: list[Value] = []
        for role in ROLES:
            row = each.get(role)
            cells += [row["strategy"], Cell(row["validation"], None, None)] if row else ["", ""]
        body.append((label_of({"task": str(task), "label": str(label)}), str(cohort), *cells))
    note = (
        "The highest mean over runs of AUROC (length of stay: accuracy) on validation stays of the cohort; of "
        "equals the lower log loss, then the name. A label without a positive there takes its task's choice."
    )
    header = ("Label", "Cohort", "EHR only", "Validation", "Image only", "Validation", "Fusion", "Validation")
    return AnswerTable("What validation chose", note, header, tuple(body), "tables/chosen.csv", STAGE)


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
