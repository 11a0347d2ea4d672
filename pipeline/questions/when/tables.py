"""The tables of question 1 for people: Markdown, prevalence by ICD version and image, and writing them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import files
from pipeline.disclosure import groups, parted, share
from pipeline.estimation.verdicts import (
    EQUIVALENT,
    GAINS,
    LOSES,
    NO_RELEVANT_GAIN,
    NO_RELEVANT_LOSS,
    NOT_TESTABLE,
    UNDETERMINED,
)
from pipeline.evaluation.paired import ALL
from pipeline.evaluation.scores import MACRO
from pipeline.params import Verdicts
from pipeline.presentation.answers import Chip
from pipeline.presentation.tables import METRIC_TITLES, TASK_TITLES, Cell, preferred
from pipeline.presentation.text import (
    NOT_ESTIMABLE,
    markdown_table,
    number,
    percent,
    plural,
    sentence_case,
    with_interval,
)
from pipeline.questions.when.contest import CONFIRMATORY, UNCHOSEN
from pipeline.questions.when.control import BOUNDED, QUANTITIES
from pipeline.questions.when.gain import Gain
from pipeline.questions.when.information import QUANTITIES as OF_INFORMATION
from pipeline.questions.when.information import TITLES as KIND_TITLES
from pipeline.questions.when.target import QUANTITIES as OF_TARGET
from pipeline.strict import read_yaml
from pipeline.tasks import PHENOTYPES_FILE

OWN = (MACRO, "icu_mortality")  # labels under which a task's own score stands
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


@cache
def _titles() -> dict[str, str]:
    named = {row["slug"]: row["label"] for row in read_yaml(PHENOTYPES_FILE)["phenotypes"]}
    return {**named, MACRO: "all labels", "icu_mortality": "ICU mortality"}


def label_title(label: str) -> str:
    """A label for people: a phenotype's HCUP name."""
    return _titles().get(label, label)


def rule_in_words(rule: Verdicts) -> str:
    """What the verdicts mean."""
    inner = percent(rule.equivalence_confidence)
    return (
        "gains: the lower bounds of both differences are above 0; loses: the upper bound of either is below 0; both "
        f"hold over the whole family at once, {percent((1 - rule.confidence) / 2)} a side; equivalent: the {inner} "
        "interval against the better one lies within the margin; no relevant gain: that interval's upper end against "
        "either is below the margin, and the strategy's own image control is passed; no relevant loss: both lower ends "
        f"are above it; else undetermined; not testable: fewer than {rule.least_positives} test stays with the rarer "
        "outcome, or one run"
    )


SIGNS = {  # a sign and a tone by verdict
    GAINS: ("▲", "up"),
    LOSES: ("▼", "down"),
    EQUIVALENT: ("=", "even"),
    NO_RELEVANT_GAIN: ("≤", "even"),
    NO_RELEVANT_LOSS: ("≥", "even"),
    UNDETERMINED: ("?", "open"),
    NOT_TESTABLE: ("–", "open"),
}


def verdict_text(row: Mapping[str, Any], rule: Verdicts) -> str:
    """The verdict of a row of gain.csv; blank where it has none."""
    beyond = f" by more than {rule.margin(row['metric']):g}" if row["beyond"] else ""
    return f"{row['verdict']}{beyond}" if row["verdict"] else ""


def chip(row: Mapping[str, Any], rule: Verdicts) -> Chip | str:
    """The verdict as the page shows it."""
    return Chip(verdict_text(row, rule), *SIGNS[row["verdict"]]) if row["verdict"] else ""


def difference(row: Mapping[str, Any], against: str = "") -> Cell:
    """The difference with its interval: to the better opponent, or `against` "ehr" or "image"."""
    end = f"_{against}" if against else ""
    return Cell(*(row[f"{name}{end}"] for name in ("difference", "low", "high")))


ADJUSTED = (
    "Beside a verdict stand the difference to the one that scores higher in the test and the interval by which the "
    "verdict was told, adjusted for all comparisons; where nothing was told, the difference to the one that "
    "validation preferred, unadjusted."
)


def adjusted(row: Mapping[str, Any]) -> bool:
    """Whether a verdict was read off bounds; else it is "not testable", or needs none."""
    return row["family_low"] is not None and row["family_high"] is not None


def opponent(row: Mapping[str, Any]) -> str:
    """To whom the difference beside a verdict is (`told`): "ehr", "image", or "single", whom validation preferred.

    A gain is one over all of them, a loss to any, and the bounds are of both: the smallest difference is theirs.
    """
    found = {"single": row["difference"]}
    if adjusted(row):
        found |= {name: row[f"difference_{name}"] for name in ("ehr", "image")}
    known = {name: value for name, value in found.items() if value is not None}
    return min(known, key=lambda name: known[name], default="single")


def told(row: Mapping[str, Any]) -> Cell:
    """The difference with the interval that stands beside its verdict: `adjusted`, or else its own."""
    name = opponent(row)
    cell = difference(row, "" if name == "single" else name)
    return Cell(cell.value, row["family_low"], row["family_high"]) if adjusted(row) else cell


def told_text(row: Mapping[str, Any]) -> str:
    """−0.022 (−0.058 to 0.009); 0.037 (−0.072 to 0.145), unadjusted."""
    cell = told(row)
    return cell.told + (", unadjusted" if cell.interval and not adjusted(row) else "")


def probability(p: float | None) -> str:
    """0.042, or <0.001; blank where it was not asked for, or is not estimable."""
    return "" if p is None else "<0.001" if p < 0.001 else number(p)


def confirmatory(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of gain.csv that were declared beforehand."""
    return table.filter(family=CONFIRMATORY)


def notes_told(rows: pl.DataFrame) -> list[str]:
    """Each note of rows (task, cohort, note) once; where nothing could be chosen, of which task and cohort."""
    found = []
    for note in sorted(rows["note"].drop_nulls().unique()):
        of = rows.filter(note=note).select("task", "cohort").unique(maintain_order=True)
        where = ", ".join(f"{TASK_TITLES[task]} ({cohort})" for task, cohort in of.iter_rows())
        found.append(f"{where}: {note}" if note == UNCHOSEN else note)
    return found


def gain_markdown(found: Gain, rule: Verdicts) -> str:
    """gain.md: the confirmatory family, then every fusion strategy by task and cohort."""
    lines = [
        "# When does fusion help?",
        "",
        "Fusion less the best on the record and less the best on the image, each chosen on validation label by label; "
        f"test folds, {percent(rule.confidence)} intervals. Verdicts: {rule_in_words(rule)}.",
        "",
        *(f"**{sentence_case(note)}.**\n" for note in notes_told(confirmatory(found.table))),
        "## Confirmatory",
        "",
    ]
    header = [
        "Task",
        "Cohort",
        "Label",
        "Fusion",
        "EHR only",
        "Image only",
        "Metric",
        "Less EHR",
        "Less image",
        "Verdict",
    ]
    body = [
        [
            *(row[name] for name in ("task", "cohort")),
            label_title(row["label"]),
            *(row[name] or "" for name in ("strategy", "ehr", "image")),
            METRIC_TITLES[row["metric"]],
            *(difference(row, name).text for name in ("ehr", "image")),
            verdict_text(row, rule),
        ]
        for row in confirmatory(found.table).iter_rows(named=True)
    ]
    lines += [markdown_table(header, body, numbers_from=7), "## Exploratory: every fusion strategy", ""]
    rows = found.table.filter(~pl.col("chosen") & pl.col("label").is_in(OWN), stratum=ALL[0])
    for task, cohort, metric in rows.select("task", "cohort", "metric").unique(maintain_order=True).iter_rows():
        lines += [f"### {TASK_TITLES[task]}, {cohort} cohort, {METRIC_TITLES[metric]}", ""]
        body = [
            [row["strategy"], *(difference(row, name).text for name in ("ehr", "image", ""))]
            for row in rows.filter(task=task, cohort=cohort, metric=metric).iter_rows(named=True)
        ]
        lines += [markdown_table(["Strategy", "Less EHR", "Less image", "Less the better"], body)]
    return "\n".join(lines)


def variance_markdown(variance: pl.DataFrame) -> str:
    """variance.md: the share of patients, seed and split in the squared error of every headline difference."""
    rows = variance.filter(pl.col("label").is_in(OWN))
    body = [
        [
            *(row[name] for name in ("task", "cohort", "against")),
            number(row["difference"]),
            number(row["error"]),
            *shares(row),
            row["runs"],
            row["note"] or "",
        ]
        for row in rows.iter_rows(named=True)
    ]
    header = ["Task", "Cohort", "Less", "Difference", "Standard error", "Patients", "Seed", "Split", "Runs", ""]
    return "\n".join(["# Of what the squared errors are made", "", markdown_table(header, body, numbers_from=3)])


def shares(row: Mapping[str, Any]) -> list[str]:
    """Of a row of variance.csv: the shares of patients, seed and split."""
    if not row["error"]:
        return [NOT_ESTIMABLE] * 3
    return [percent(round(row[part] / row["error"] ** 2, 2)) for part in ("patients", "seed", "split")]


def ladder_markdown(ladder: pl.DataFrame) -> str:
    """ladder.md: the rungs of each task and cohort."""
    lines = ["# What the image adds, step by step", ""]
    own = ladder.filter(pl.col("label").is_in(OWN))
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
                row["note"] or "",
            ]
            for row in rows.iter_rows(named=True)
        ]
        lines += [markdown_table(["Rung", "Strategy", "Score", "Against", "Difference", ""], body, numbers_from=2)]
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


def kind_title(kind: str | None) -> str:
    """What information.csv calls a label, for people."""
    return KIND_TITLES[kind] if kind else NOT_TESTABLE


def information_cells(row: Mapping[str, Any]) -> list[Cell]:
    """Of a row of information.csv: each quantity with its interval, in bits."""
    return [Cell(*(row[f"{name}{end}"] for end in BOUNDED)) for name in OF_INFORMATION]


INFORMATION_HEADER = ("EHR", "Image", "Both", "Unique to EHR", "Unique to image", "Redundant", "Synergistic", "Kind")


def information_markdown(table: pl.DataFrame) -> str:
    """information.md: a table a cohort, a row a label."""
    lines = [
        "# What record and image tell of a label",
        "",
        "Mutual information with the label, in bits, of the scores that validation chose; unadjusted intervals.",
        "",
        *(f"**{note.capitalize()}.**\n" for note in sorted(table["note"].drop_nulls().unique())),
    ]
    for cohort in table["cohort"].unique(maintain_order=True):
        body = [
            [label_title(row["label"]), *(cell.text for cell in information_cells(row)), kind_title(row["kind"])]
            for row in table.filter(cohort=cohort).iter_rows(named=True)
        ]
        lines += [f"## {cohort.capitalize()} cohort", "", markdown_table(["Label", *INFORMATION_HEADER], body)]
    return "\n".join(lines)


AGAINST_TITLES = {"ehr": "EHR only", "image": "image only", "single": "the better one"}
TARGET_HEADER = ("Less", "Those with an image", "Target population", "Apart")


def target_cells(row: Mapping[str, Any]) -> list[Cell]:
    """Of a row of target.csv: the difference among those with an image, in the population, and how far apart."""
    both = [Cell(*(row[f"{name}{end}"] for end in BOUNDED)) for name in OF_TARGET]
    return [*both, Cell(row["shift"], None, None)]


def target_words(table: pl.DataFrame) -> str:
    """For whom how many stand, and where they cannot."""
    row = table.row(0, named=True)
    effective = f"{row['effective']:.0f}"
    return (
        f"Those with an image ({plural(row['n'], 'test stay')}) stand for all of whom one could have been taken "
        f"({row['population']}); weighted, they tell as much as {plural(effective, 'stay')} would. "
        f"{percent(round(row['cut'], 3))} of the weights were cut, and {percent(round(row['outside'], 3))} of the "
        "population are less likely to have an image than nearly all who have"
    )


def target_markdown(table: pl.DataFrame) -> str:
    """target.md: the gain of each task and label, a row an opponent."""
    lines = ["# The gain in the target population", ""]
    if not table.height:
        return "\n".join(
            [*lines, "No weights: nobody with an image was tested, or training tells nothing of who has.", ""]
        )
    body = [
        [row["task"], label_title(row["label"]), AGAINST_TITLES[row["against"]], *(c.text for c in target_cells(row))]
        for row in table.iter_rows(named=True)
    ]
    return "\n".join([*lines, f"{target_words(table)}.", "", markdown_table(["Task", "Label", *TARGET_HEADER], body)])


MARKDOWN: dict[str, Callable[[pl.DataFrame], str]] = {  # of the tables beside those of Gain
    "ladder": ladder_markdown,
    "icd": icd_markdown,
    "information": information_markdown,
    "target": target_markdown,
}


def write(found: Gain, beside: Mapping[str, pl.DataFrame], rule: Verdicts, tables: Path) -> None:
    """Writes gain, chosen, variance, image_use and the tables `beside` them (MARKDOWN), as CSV and Markdown."""
    own = {"gain": found.table, "chosen": found.chosen, "variance": found.variance, "image_use": found.use}
    for name, table in {**own, **beside}.items():
        files.write_csv(table, tables / f"{name}.csv")
    files.write_text(gain_markdown(found, rule), tables / "gain.md")
    files.write_text(variance_markdown(found.variance), tables / "variance.md")
    for name, table in beside.items():
        files.write_text(MARKDOWN[name](table), tables / f"{name}.md")


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
            *(with_interval(*(row[f"{name}{end}"] for end in BOUNDED)) for name in QUANTITIES),
            row["stays"],
        ]
        for row in rows.iter_rows(named=True)
    ]
    header = ["Finding", "Strategy", "Task it was trained on", "AUROC", "Untrained", "Difference", "Stays"]
    lines += ["## Findings told from the image features", "", markdown_table(header, body, numbers_from=3)]
    return "\n".join(lines)


def _quantities(rows: pl.DataFrame, names: Sequence[str]) -> list[str]:
    found = {row["quantity"]: row for row in rows.iter_rows(named=True)}
    return [
        with_interval(found[name]["value"], found[name]["low"], found[name]["high"]) if name in found else ""
        for name in names
    ]
