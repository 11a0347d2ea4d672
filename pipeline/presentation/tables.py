"""The result tables for people: Markdown, and the wide form (a row a strategy) that Markdown and the page share."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from pipeline.disclosure import Count, share
from pipeline.presentation.text import (
    HOW,
    UNKNOWN,
    bounds,
    latex_row,
    markdown_table,
    number,
    percent,
    plural,
    with_interval,
)

TASK_TITLES = {
    "mortality": "ICU mortality",
    "phenotype": "Phenotypes (retrospective, 25 labels)",
    "los": "Length of stay (7 classes)",
}
HEADLINE_ORDER = ("phenotype", "mortality", "los")  # the figure with the most labels leads
METRIC_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "accuracy": "Accuracy",
    "kappa": "Cohen's κ",
    "brier": "Brier",
    "ece": "ECE",
}
ONE_RUN = "; one run: luck of training not included"
PAIRS = (("base", "base"), ("matched", "matched"), ("matched", "base"), ("base", "matched"))


def short_title(task: str) -> str:
    """Phenotypes."""
    return TASK_TITLES[task].split(" (")[0]


def title_inside(task: str) -> str:
    """phenotypes, ICU mortality: for the middle of a sentence."""
    title = short_title(task)
    return title if title[:2].isupper() else title[0].lower() + title[1:]


def preferred(table: pl.DataFrame) -> pl.DataFrame:
    """Rows of the models that are shown: trained on the matched cohort where there are such, with nothing removed."""
    cohorts = table["train_cohort"].unique().to_list()
    shown = table.filter(train_cohort="matched" if "matched" in cohorts else "base")
    return shown.filter(train_missing=0.0) if "train_missing" in shown.columns else shown


class Cell(NamedTuple):
    """One number of a table with its interval; None is "not estimable"."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def estimate(self) -> str:
        """0.812."""
        return number(self.value)

    @property
    def interval(self) -> str:
        """0.750–0.871, or nothing."""
        return "" if self.low is None or self.high is None else bounds(self.low, self.high)

    @property
    def text(self) -> str:
        """0.812 (0.750–0.871)."""
        return with_interval(self.value, self.low, self.high)

    @property
    def told(self) -> str:
        """The text for a sentence: "not estimable", or why there is no interval where a value has none."""
        if self.value is None:
            return UNKNOWN
        return self.text if self.interval else f"{self.text} (too few stays for an interval)"


class PhenotypeRow(NamedTuple):
    """A phenotype with a cell a strategy; prevalence is its share of the stays scored, if both may be told."""

    slug: str
    name: str
    kind: str
    positives: Count
    prevalence: float | None
    cells: tuple[Cell, ...]

    @property
    def share(self) -> str:
        """Prevalence as 0.120; a dash where it may not be told."""
        return "—" if self.prevalence is None else number(self.prevalence)


class Wide(NamedTuple):
    """A table with a row a strategy and a column a metric, for one task and pair of cohorts.

    `facts` says what it was made from: stays, positives, runs, labels.
    """

    task: str
    train_cohort: str
    eval_cohort: str
    train_missing: float
    train_mechanism: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    facts: str

    @property
    def title(self) -> str:
        """For instance "Trained on base, evaluated on matched"."""
        share, how = percent(self.train_missing), HOW[self.train_mechanism]
        removed = f", {share} of training images removed {how}" if self.train_missing else ""
        return f"Trained on {self.train_cohort}, evaluated on {self.eval_cohort}{removed}"


def wide_tables(table: pl.DataFrame, task: str) -> list[Wide]:
    """The wide tables of a task from the long one (columns of results.csv), the headline pairs first."""
    found = []
    rows = table.filter((pl.col("task") == task) & (pl.col("part") == "test"))
    removals = rows.select("train_missing", "train_mechanism").unique().sort("train_missing", "train_mechanism")
    for removal in removals.to_dicts():
        for train, evaluated in PAIRS:
            chosen = rows.filter(**removal, train_cohort=train, eval_cohort=evaluated)
            if not chosen.height:
                continue
            metrics = tuple(chosen["metric"].unique(maintain_order=True))
            strategies = []
            for strategy in chosen["strategy"].unique(maintain_order=True):
                of_strategy = {row["metric"]: row for row in chosen.filter(strategy=strategy).iter_rows(named=True)}
                cells = tuple(
                    Cell(*(of_strategy[metric][name] for name in ("value", "low", "high"))) for metric in metrics
                )
                strategies.append((strategy, cells))
            facts = _facts(chosen)
            found.append(Wide(task, train, evaluated, **removal, metrics=metrics, rows=tuple(strategies), facts=facts))
    return found


def _facts(rows: pl.DataFrame) -> str:
    first = rows.row(0, named=True)
    parts = [plural(first["n"], "test stay")]
    if first["positives"] is not None:
        parts.append(plural(first["positives"], "death" if first["labels"] is None else "positive label"))
    counted = rows["labels"].drop_nulls().unique().sort().to_list()
    if counted:
        over = counted[0] if len(counted) == 1 else f"{counted[0]} to {counted[-1]}"
        parts.append(f"macro mean over {plural(over, 'estimable label')}")
    parts.append(f"{plural(first['runs'], 'run')} a strategy" + (ONE_RUN if first["runs"] == 1 else ""))
    return ", ".join(parts)


def results_markdown(table: pl.DataFrame, confidence: float) -> str:
    """results.md: a table a task and pair of cohorts."""
    lines = [
        "# Results",
        "",
        "Test folds; metric per fold and seed, then averaged; in brackets the "
        f"{percent(confidence)} interval, over patients and, where there are several, runs. n. e.: not estimable.",
        "",
    ]
    for task in table["task"].unique(maintain_order=True):
        lines += [f"## {TASK_TITLES.get(task, task)}", ""]
        for wide in wide_tables(table, task):
            header = ["Strategy", *(METRIC_TITLES[metric] for metric in wide.metrics)]
            body = [[strategy, *(cell.text for cell in cells)] for strategy, cells in wide.rows]
            lines += [f"### {wide.title}", "", f"{wide.facts}.", "", markdown_table(header, body)]
    return "\n".join(lines)


def results_latex(table: pl.DataFrame, confidence: float) -> str:
    """results.tex: for the package booktabs, a table a task: each cohort's first two metrics with their intervals."""
    lines = [f"% Test folds; in brackets {percent(confidence)} intervals. Needs the package booktabs."]
    for task in table["task"].unique(maintain_order=True):
        wide = [each for each in wide_tables(table, task) if each.train_cohort == each.eval_cohort]
        wide = [each for each in wide if not each.train_missing]
        if not wide:
            continue
        names = [f"{METRIC_TITLES[metric]} ({each.eval_cohort})" for each in wide for metric in each.metrics[:2]]
        lines += [
            "",
            f"% {TASK_TITLES.get(task, task)}. " + " ".join(f"{each.eval_cohort}: {each.facts}." for each in wide),
            rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
            r"\toprule",
            latex_row(["Strategy", *names]),
            r"\midrule",
        ]
        for rows in zip(*(each.rows for each in wide), strict=True):
            lines.append(latex_row([rows[0][0], *(cell.text for _, cells in rows for cell in cells[:2])]))
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def phenotype_markdown(phenotypes: pl.DataFrame, confidence: float) -> str:
    """phenotypes.md: AUROC of each phenotype and strategy, a table a cohort."""
    lines = [
        "# Phenotypes",
        "",
        f"AUROC on the test folds with its {percent(confidence)} interval. n. e.: not estimable.",
        "",
    ]
    for cohort in ("base", "matched"):
        strategies, rows = phenotype_grid(phenotypes, cohort, "auroc")
        if rows:
            header = ["Phenotype", "Type", "Positives", "Prevalence", *strategies]
            body = [[row.name, row.kind, row.positives, row.share, *(cell.text for cell in row.cells)] for row in rows]
            lines += [f"## Trained and evaluated on {cohort}", "", markdown_table(header, body, numbers_from=2)]
    return "\n".join(lines)


def phenotype_grid(phenotypes: pl.DataFrame, cohort: str, metric: str) -> tuple[list[str], list[PhenotypeRow]]:
    """(strategies, rows) of one cohort, trained and evaluated on, with the least removed."""
    rows = phenotypes.filter((pl.col("train_cohort") == cohort) & (pl.col("eval_cohort") == cohort))
    if not rows.height:
        return [], []
    rows = rows.filter(pl.col("train_missing") == pl.col("train_missing").min())
    strategies = rows["strategy"].unique(maintain_order=True).to_list()
    found = []
    for slug in rows["phenotype"].unique(maintain_order=True):
        each = {row["strategy"]: row for row in rows.filter(phenotype=slug).iter_rows(named=True)}
        first = each[strategies[0]]
        cells = tuple(
            Cell(row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
            for row in (each[name] for name in strategies)
        )
        prevalence = share(first["positives"], first["n"])
        found.append(PhenotypeRow(slug, first["name"], first["type"], first["positives"], prevalence, cells))
    return strategies, found
