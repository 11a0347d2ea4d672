"""The comparison's tables as Markdown, and the words and rows that Markdown and the page share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipeline.params import Compare, Evaluation
from pipeline.presentation.tables import METRIC_TITLES, ONE_RUN, Cell, short_title
from pipeline.presentation.text import joined, markdown_table, number, percent, plural, verb
from pipeline.tasks import get_task

UNTUNED = "All strategies ran on untuned defaults (tuning.trials in params.yaml is 0)"
UNEQUAL = "Strategies had unequal numbers of trials in tuning (tuning.csv)"
ORDER = "the order below is of these settings, and nothing is claimed about the strategies."
TITLES = METRIC_TITLES | {
    "kappa": "κ",
    "quadratic_kappa": "Quadratic-weighted κ",
    "absolute_days": "Mean absolute error, days",
    "ece_debiased": "ECE, debiased",
    "slope": "Slope",
    "intercept": "Intercept",
    "in_the_large": "In the large",
}
CALIBRATION = ("ece", "ece_debiased", "slope", "intercept", "in_the_large", "brier")
WHOLE = ("icu_mortality", "macro", "top_class")  # the labels under which a task's own calibration stands
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # thresholds of decision curves in tables for people
REFERENCES = {
    "treat_all": "(treat all)",
    "treat_none": "(treat none)",
    "median_of_validation": "(everybody: validation's median)",
}
RANKS = (
    "Drawn ranks: where the strategy stands in the middle {0} of the draws. Confidence set: the places that it may "
    "truly have, by the strategies from which it differs significantly, all its differences at once ({0}). Best in: "
    "share of the draws in which it is first."
)
COST = "FLOPs are of a forward pass over one stay. Frontier: no strategy that costs as little scores higher."
UNRANKED = (
    "What has a score and no rank is an ensemble: it holds strategies that it would be ranked among, and costs what "
    "they cost together."
)
CALIBRATED = (
    "ECE over bins of equal mass, as it is and debiased; intercept (perfect: 0) and slope (1) of the recalibration "
    "logit P = a + b logit p, and the intercept at slope 1 (0). The second row of a strategy: at the temperature that "
    "fits its validation stays best."
)
BENEFIT = "Net benefit per patient of acting from a threshold on, against treating all and none."
EXPECTED = (
    "Expected best score on dev among so many of the trials, drawn without replacement. These stays chose: on others "
    "the best scores lower."
)
Value = str | int | Cell | None


@dataclass(frozen=True)
class About:
    """What the notes of the tables tell besides their rows; `budget`: tuning.budget."""

    evaluation: Evaluation
    settings: Compare
    budget: int | None


def untuned(budget: int | None) -> list[str]:
    """Why an order of the strategies claims nothing; empty where they are tuned."""
    return [] if budget else [f"{UNEQUAL if budget is None else UNTUNED}: {ORDER}"]


def title_of(task: str, cohort: str) -> str:
    """ICU mortality, base cohort."""
    return f"{short_title(task)}, {cohort} cohort"


def groups(table: pl.DataFrame, *keys: str) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    """The rows of each combination of `keys`, in the table's order."""
    yield from table.group_by(keys, maintain_order=True)


def bounded(row: dict[str, Any], name: str = "value") -> Cell:
    """NAME, NAME_low and NAME_high of a row; of `value` low and high."""
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return Cell(row[name], row[low], row[high])


def span(low: float | None, high: float | None) -> str:
    """2–11; 3 where both are the same; n. e."""
    if low is None or high is None:
        return number(None)
    return f"{low:g}" if low == high else f"{low:g}–{high:g}"


def ranking_rows(rows: pl.DataFrame) -> tuple[tuple[str, ...], list[tuple[Value, ...]]]:
    """(header, rows) of one task, cohort and metric of ranking.csv."""
    metric = rows["metric"][0]
    header = ("Strategy", TITLES[metric], "Rank", "Drawn ranks", "Confidence set", "Best in")
    return header, [
        (
            row["strategy"],
            bounded(row),
            number(None) if row["rank"] is None else f"{row['rank']:g}",
            span(row["rank_low"], row["rank_high"]),
            span(row["set_low"], row["set_high"]),
            number(None) if row["share_best"] is None else percent(round(row["share_best"], 3)),
        )
        for row in rows.iter_rows(named=True)
    ]


def cost_rows(rows: pl.DataFrame) -> tuple[tuple[str, ...], list[tuple[Value, ...]]]:
    """(header, rows) of one task and cohort of score_cost.csv."""
    header = ("Strategy", TITLES[rows["metric"][0]], "Parameters", "FLOPs with image", "FLOPs without", "Frontier")
    words = {True: "yes", False: "no", None: "—"}
    counts = ("parameters", "flops_with_image", "flops_without_image")
    return header, [
        (
            row["strategy"],
            bounded(row),
            *("—" if row[name] is None else f"{row[name]:,}" for name in counts),
            words[row["frontier"]],
        )
        for row in rows.iter_rows(named=True)
    ]


def calibration_rows(rows: pl.DataFrame) -> tuple[tuple[str, ...], list[tuple[Value, ...]]]:
    """(header, rows) of one task, cohort and label of calibration.csv; a row a strategy and scaling."""
    header = ("Strategy", "Temperature", *(TITLES[name] for name in CALIBRATION))
    return header, [
        (
            row["strategy"],
            "as said" if row["scaling"] == "none" else number(row["temperature"], 2),
            *(bounded(row, name) for name in CALIBRATION),
        )
        for row in rows.iter_rows(named=True)
    ]


def decision_rows(rows: pl.DataFrame) -> tuple[tuple[str, ...], list[tuple[Value, ...]]]:
    """(header, rows) of one cohort of decision.csv, at the thresholds SHOWN."""
    header = ("Strategy", *(percent(threshold) for threshold in SHOWN))
    found = []
    for (strategy,), each in groups(rows, "strategy"):
        at = {round(row["threshold"], 2): row for row in each.iter_rows(named=True)}
        name = REFERENCES.get(strategy, strategy)
        found.append((name, *(bounded(at[threshold], "net_benefit") for threshold in SHOWN)))
    return header, found


def los_rows(rows: pl.DataFrame) -> tuple[tuple[str, ...], list[tuple[Value, ...]]]:
    """(header, rows) of one cohort of los.csv."""
    names = ("quadratic_kappa", "absolute_days")
    return ("Strategy", *(TITLES[name] for name in names)), [
        (REFERENCES.get(row["strategy"], row["strategy"]), *(bounded(row, name) for name in names))
        for row in rows.iter_rows(named=True)
    ]


def tuning_rows(rows: pl.DataFrame) -> tuple[tuple[str, ...], list[tuple[Value, ...]]]:
    """(header, rows) of one task of tuning.csv."""
    metric = monitor_title(rows["task"][0])
    header = ("Strategy", "Trials", f"{metric} of the defaults", "Chosen trial", f"Its {metric}", "Epochs", "Hours")
    return (*header, "Chosen instead of the defaults"), [
        (
            row["strategy"],
            row["trials"],
            Cell(row["default_score"], None, None),
            row["trial"],
            Cell(row["score"], None, None),
            row["epochs"],
            two_digits(row["hours"]),
            row["differs"] or "—",
        )
        for row in rows.iter_rows(named=True)
    ]


def monitor_title(task: str) -> str:
    """AUPRC: what trials of the task are judged by."""
    return TITLES[get_task(task).monitor]


def two_digits(value: float) -> str:
    """1234 -> 1200, 0.0567 -> 0.057."""
    return f"{float(f'{value:.2g}'):g}"


def budget_note(table: pl.DataFrame, budget: int) -> str:
    """What tuning cost and by whom it was judged, from tuning.csv; `budget` as tuning.budget gives it, above 0."""
    cohorts, seeds = table.select("cohorts", "seeds").row(0)
    names = cohorts.split("+")
    epochs, hours = f"{table['epochs'].sum():,}", two_digits(math.fsum(table["hours"]))
    judges = f"{joined(names)} {verb(len(names), 'cohort', 'cohorts')}, {plural(seeds, 'seed')}, one fold"
    return (
        f"Settings were chosen on dev alone, task by task: {plural(budget, 'trial')} a strategy and task, the first "
        f"with the defaults, each judged by {plural(len(names) * seeds, 'run')} ({judges}). All trials together took "
        f"{plural(epochs, 'epoch')} in {plural(hours, 'hour')}."
    )


def facts(row: dict[str, Any]) -> str:
    """112 test stays, 16 positive labels, 3 runs a strategy."""
    positives = "" if row["positives"] is None else f", {plural(row['positives'], 'positive label')}"
    luck = ONE_RUN if row["runs"] == 1 else ""
    return f"{plural(row['n'], 'test stay')}{positives}, {plural(row['runs'], 'run')} a strategy{luck}."


def _markdown(heading: str, notes: list[str], parts: list[tuple[str, str, Any]]) -> str:
    lines = [f"# {heading}", ""]
    for note in notes:
        lines += [note, ""]
    for title, fact, (header, rows) in parts:
        body = [[cell.text if isinstance(cell, Cell) else cell for cell in row] for row in rows]
        lines += [f"## {title}", "", *([fact, ""] if fact else []), markdown_table(header, body)]
    return "\n".join(lines)


RUNS = "patients and, where there are several, runs"  # what a score's interval is over


def _interval_note(about: About, over: str = "patients alone") -> str:
    confidence = percent(about.evaluation.confidence)
    return f"In brackets the {confidence} interval, over {over}. n. e.: not estimable."


def unranked(ranking: pl.DataFrame) -> list[str]:
    """Why some of ranking.csv have no rank; empty where all have one that have a score."""
    return [UNRANKED] if ranking.filter(pl.col("value").is_not_null() & pl.col("rank").is_null()).height else []


def ranking_markdown(table: pl.DataFrame, about: About) -> str:
    """ranking.md."""
    notes = untuned(about.budget) + unranked(table)
    notes.append(RANKS.format(percent(about.evaluation.confidence)) + " " + _interval_note(about, RUNS))
    parts = [
        (f"{title_of(task, cohort)}: {TITLES[metric]}", facts(rows.row(0, named=True)), ranking_rows(rows))
        for (task, cohort, metric), rows in groups(table, "task", "cohort", "metric")
    ]
    return _markdown("Ranking", notes, parts)


def cost_markdown(table: pl.DataFrame, about: About) -> str:
    """score_cost.md."""
    notes = untuned(about.budget)
    notes.append(f"{COST} {_interval_note(about, RUNS)}")
    parts = [(title_of(*key), "", cost_rows(rows)) for key, rows in groups(table, "task", "cohort")]
    return _markdown("Score against cost", notes, parts)


def calibration_markdown(table: pl.DataFrame, about: About) -> str:
    """calibration.md: each task as a whole; single phenotypes stand in the CSV."""
    whole = table.filter(pl.col("label").is_in(WHOLE))
    parts = [(title_of(*key), "", calibration_rows(rows)) for key, rows in groups(whole, "task", "cohort")]
    return _markdown("Calibration", [f"{CALIBRATED} {_interval_note(about)}"], parts)


def decision_markdown(table: pl.DataFrame, about: About) -> str:
    """decision.md, at the thresholds SHOWN."""
    parts = [(title_of(*key), "", decision_rows(rows)) for key, rows in groups(table, "task", "cohort")]
    return _markdown("Net benefit", [f"{BENEFIT} {_interval_note(about)}"], parts)


def los_markdown(table: pl.DataFrame, about: About) -> str:
    """los.md."""
    parts = [
        (title_of("los", cohort), f"{plural(rows['n'][0], 'test stay')}.", los_rows(rows))
        for (cohort,), rows in groups(table, "cohort")
    ]
    note = f"{days_note(about.settings.los_cap_days)} {_interval_note(about)}"
    return _markdown("Length of stay", [note], parts)


def tuning_markdown(table: pl.DataFrame, about: About) -> str:
    """tuning.md; without trials it says so."""
    why = f"{UNEQUAL if about.budget is None else UNTUNED}."
    parts = [(short_title(task), "", tuning_rows(rows)) for (task,), rows in groups(table, "task")]
    return _markdown("Tuning", [budget_note(table, about.budget) if about.budget else why], parts)


def days_note(cap: float) -> str:
    """What length of stay in days means."""
    return (
        f"Days are the classes' middles (the last class ends at {cap:g} days) weighed by their probabilities; "
        f"true stays beyond {cap:g} days count as {cap:g}."
    )


MARKDOWN: dict[str, Callable[[pl.DataFrame, About], str]] = {
    "ranking": ranking_markdown,
    "score_cost": cost_markdown,
    "calibration": calibration_markdown,
    "decision": decision_markdown,
    "los": los_markdown,
    "tuning": tuning_markdown,
}
