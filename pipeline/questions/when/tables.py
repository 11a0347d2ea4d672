"""The tables of question 1 for people: Markdown, prevalence by ICD version and image, and writing them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import files
from pipeline.disclosure import groups, parted, share
from pipeline.evaluation.paired import ALL
from pipeline.evaluation.scores import MACRO
from pipeline.params import Verdicts
from pipeline.presentation.tables import METRIC_TITLES, TASK_TITLES, Cell, preferred
from pipeline.presentation.text import NOT_ESTIMABLE, markdown_table, number, percent, with_interval
from pipeline.questions.when.gain import CONFIRMATORY, Gain
from pipeline.strict import read_yaml
from pipeline.tasks import PHENOTYPES_FILE

ICD_SCHEMA: dict[str, Any] = {
    "phenotype": pl.String,
    "icd_version": pl.Int64,
    "has_cxr": pl.Boolean,
    "n": pl.String,
    "positives": pl.String,
    "prevalence": pl.Float64,
}


def icd(people: pl.DataFrame, labels: Iterable[str]) -> pl.DataFrame:
    """Prevalence of each phenotype by ICD version and image: of all stays, `people` a row a stay and fold.

    Columns phenotype, icd_version, has_cxr, n, positives, prevalence, as pipeline.disclosure lets them be told.
    """
    stays = people.unique("stay_id").sort("stay_id")
    key = ("icd_version", "has_cxr")
    versions = stays.group_by("icd_version").agg(pl.len(), pl.col("has_cxr").sum()).sort("icd_version")
    _, with_image, without = groups(versions["len"].to_list(), versions["has_cxr"].to_list())
    place = {version: i for i, version in enumerate(versions["icd_version"])}
    rows = []
    for label in labels:
        cells = stays.group_by(key).agg(pl.len(), pl.col(label).cast(pl.Int64).sum()).sort(key)
        n = [(with_image if image else without)[place[version]] for version, image in cells.select(key).iter_rows()]
        positives, _ = parted(cells["len"].to_list(), cells[label].to_list(), n)
        for of, count, some in zip(cells.select(key).iter_rows(), n, positives, strict=True):
            rows.append((label, *of, str(count), str(some), share(some, count)))
    return pl.DataFrame(rows, schema=ICD_SCHEMA, orient="row")


def label_title(label: str) -> str:
    """A label for people: a phenotype's HCUP name."""
    names = {row["slug"]: row["label"] for row in read_yaml(PHENOTYPES_FILE)["phenotypes"]}
    return str({**names, MACRO: "all labels", "icu_mortality": "ICU mortality"}.get(label, label))


def rule_in_words(rule: Verdicts) -> str:
    """What the verdicts mean."""
    return (
        f"gain: the lower bound of the {percent(rule.confidence)} interval is above 0; no gain: the "
        f"{percent(rule.equivalence_confidence)} interval lies within ±{rule.margins.auroc:g}, and the features of an "
        f"image-only strategy rank both findings of the positive control with an "
        f"AUROC of {rule.control_auroc:g} or more; otherwise undetermined"
    )


def difference(row: dict[str, Any]) -> Cell:
    """The difference with its interval."""
    return Cell(row["difference"], row["low"], row["high"])


def probability(p: float | None) -> str:
    """0.042, or <0.001; blank where it was not asked for, or is not estimable."""
    return "" if p is None else "<0.001" if p < 0.001 else number(p)


def confirmatory(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of gain.csv that were declared beforehand."""
    return table.filter(family=CONFIRMATORY)


def headline_rows(table: pl.DataFrame, task: str, cohort: str, metric: str) -> pl.DataFrame:
    """The rows of every fusion strategy for a task's own label, over all stays."""
    rows = table.filter(task=task, cohort=cohort, metric=metric, stratum=ALL[0])
    return rows.filter(pl.col("label").is_in([MACRO, "icu_mortality"]))


def gain_markdown(found: Gain, rule: Verdicts) -> str:
    """gain.md: the confirmatory family, then every fusion strategy by task and cohort."""
    lines = [
        "# When does fusion help?",
        "",
        "Fusion less the best unimodal strategy, both chosen on validation; test folds. "
        f"Verdicts: {rule_in_words(rule)}. "
        "p: approximate randomisation; in the confirmatory family after Holm over all of it.",
        "",
        "## Confirmatory",
        "",
    ]
    header = ["Task", "Cohort", "Label", "Fusion", "Unimodal", "Metric", "Difference", "p (Holm)", "Verdict"]
    body = [
        [
            *(row[name] for name in ("task", "cohort")),
            label_title(row["label"]),
            *(row[name] for name in ("strategy", "unimodal")),
            METRIC_TITLES[row["metric"]],
            difference(row).text,
            probability(row["p_holm"]),
            row["verdict"] or NOT_ESTIMABLE,
        ]
        for row in confirmatory(found.table).iter_rows(named=True)
    ]
    lines += [markdown_table(header, body, numbers_from=6), "## Exploratory: every fusion strategy", ""]
    for task, cohort, metric in found.table.select("task", "cohort", "metric").unique(maintain_order=True).iter_rows():
        rows = headline_rows(found.table, task, cohort, metric)
        of = rows["unimodal"][0] if rows.height else ""
        lines += [f"### {TASK_TITLES[task]}, {cohort} cohort, {METRIC_TITLES[metric]}, less {of}", ""]
        body = [
            [row["strategy"], difference(row).text, probability(row["p"]), row["verdict"] or NOT_ESTIMABLE]
            for row in rows.iter_rows(named=True)
        ]
        lines += [markdown_table(["Strategy", "Difference", "p", "Verdict"], body)]
    return "\n".join(lines)


def ladder_markdown(ladder: pl.DataFrame) -> str:
    """ladder.md: the rungs of each task and cohort."""
    lines = ["# What the image adds, step by step", ""]
    own = ladder.filter(pl.col("label").is_in([MACRO, "icu_mortality"]))
    for task, cohort, metric in own.select("task", "cohort", "metric").unique(maintain_order=True).iter_rows():
        rows = own.filter(task=task, cohort=cohort, metric=metric)
        lines += [f"## {TASK_TITLES[task]}, {cohort} cohort, {METRIC_TITLES[metric]}", ""]
        body = [
            [
                row["rung"],
                row["strategy"] or "",
                row["left_out"] or Cell(row["value"], row["low"], row["high"]).text,
                row["against"] or "",
                Cell(row["difference"], row["difference_low"], row["difference_high"]).text if row["against"] else "",
                row["verdict"] or "",
            ]
            for row in rows.iter_rows(named=True)
        ]
        lines += [
            markdown_table(["Rung", "Strategy", "Score", "Against", "Difference", "Verdict"], body, numbers_from=2)
        ]
    return "\n".join(lines)


def icd_markdown(prevalence: pl.DataFrame) -> str:
    """icd.md: a row a phenotype, a column an ICD version with and without image."""
    coded = prevalence.select("icd_version", "has_cxr").unique().sort("icd_version", "has_cxr").rows()
    header = ["Phenotype", *(f"ICD-{version}, {'image' if image else 'no image'}" for version, image in coded)]
    body = []
    for label in prevalence["phenotype"].unique(maintain_order=True):
        each = {row[1:3]: row for row in prevalence.filter(phenotype=label).iter_rows()}
        cells = [f"{number(each[group][5])} ({each[group][4]} of {each[group][3]})" for group in coded]
        body.append([label_title(label), *cells])
    return "\n".join(["# Prevalence by ICD version and image", "", markdown_table(header, body)])


def write(found: Gain, ladder: pl.DataFrame, prevalence: pl.DataFrame, rule: Verdicts, tables: Path) -> None:
    """Writes gain, chosen, ladder and icd: CSV each, and Markdown for people."""
    for name, table in {
        "gain": found.table,
        "chosen": found.chosen,
        "ladder": ladder,
        "icd": prevalence,
    }.items():
        files.write_csv(table, tables / f"{name}.csv")
    files.write_text(gain_markdown(found, rule), tables / "gain.md")
    files.write_text(ladder_markdown(ladder), tables / "ladder.md")
    files.write_text(icd_markdown(prevalence), tables / "icd.md")


def reliance_markdown(table: pl.DataFrame, control: pl.DataFrame, confidence: float) -> str:
    """A table a task: score, additive projection, Shapley values; and the image encoders' control."""
    lines = [
        "# What the scores rest on",
        "",
        f"Over the probed test stays; in brackets the {percent(confidence)} interval of a bootstrap over subjects.",
        "",
    ]
    titles = {
        "full": "Score",
        "emap": "Additive projection",
        "interaction": "Interaction",
        "shapley_ehr": "Shapley EHR",
        "shapley_cxr": "Shapley image",
    }
    shown = preferred(table)
    for task in shown["task"].unique(maintain_order=True):
        rows = shown.filter(task=task)
        body = [
            [strategy, *_quantities(rows.filter(strategy=strategy), list(titles))]
            for strategy in rows["strategy"].unique(maintain_order=True)
        ]
        lines += [
            f"## {TASK_TITLES.get(task, task)}: {METRIC_TITLES[rows['metric'][0]]}",
            "",
            markdown_table(["Strategy", *titles.values()], body),
        ]
    rows = preferred(control)
    body = [
        [
            row["finding"],
            row["strategy"],
            row["task"],
            with_interval(row["auroc"], row["low"], row["high"]),
            row["stays"],
        ]
        for row in rows.iter_rows(named=True)
    ]
    header = ["Finding", "Strategy", "Task it was trained on", "AUROC", "Stays"]
    lines += ["## Findings told from the image features", "", markdown_table(header, body, numbers_from=3)]
    return "\n".join(lines)


def _quantities(rows: pl.DataFrame, names: Sequence[str]) -> list[str]:
    found = {row["quantity"]: row for row in rows.iter_rows(named=True)}
    return [
        with_interval(found[name]["value"], found[name]["low"], found[name]["high"]) if name in found else ""
        for name in names
    ]
