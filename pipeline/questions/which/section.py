"""Question 2, "Which strategy?": the answer from the tables of the stage `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.disclosure import known
from pipeline.evaluation.reading import read_table
from pipeline.params import Compare, Evaluation, Grid
from pipeline.presentation.answers import Answer, AnswerFigure, AnswerTable, Value
from pipeline.presentation.figures import Looks
from pipeline.presentation.tables import short_title, title_inside
from pipeline.presentation.text import joined, percent, plural, sentence_case
from pipeline.questions.which import figures
from pipeline.questions.which.compare import SCHEMAS
from pipeline.questions.which.ensembles import ensemble_tables
from pipeline.questions.which.own import own_tables
from pipeline.questions.which.text import (
    BENEFIT,
    CALIBRATED,
    COST,
    EXPECTED,
    RANKS,
    REFERENCES,
    TITLES,
    WHOLE,
    bounded,
    budget_note,
    calibration_rows,
    cost_rows,
    days_note,
    decision_rows,
    facts,
    groups,
    los_rows,
    monitor_title,
    ranking_rows,
    title_of,
    tuning_rows,
    unranked,
    untuned,
)
from pipeline.questions.which.tuning import budget

NO_TASK = "There is no task to compare strategies on."
KEY, QUESTION, STAGE = "which", "Which strategy?", "compare"
LEAST = (
    50  # stays, and positives, from which on the sentence trusts the draws (measured by estimation/test_coverage.py)
)


def answer(tables: Path, grid: Grid, evaluation: Evaluation, settings: Compare) -> Answer:
    """The section of question 2, from the tables of SCHEMAS in `tables`.

    Raises InputError where one of them is missing or cannot be read.
    """
    read = {name: read_table(tables / f"{name}.csv", schema) for name, schema in SCHEMAS.items()}
    trials = budget(read["tuning"], grid)
    shown = pl.col("strategy").is_in([*grid.scored, *REFERENCES])
    # those that others start from were tuned, too, and are part of what it cost
    read = {name: table if name == "tuning" else table.filter(shown) for name, table in read.items()}
    confidence = percent(evaluation.confidence)
    notes = [budget_note(read["tuning"], trials)] if trials else untuned(trials)
    notes += [
        RANKS.format(confidence),
        "Sets and intervals hold for one strategy, task and metric at a time; all of them together are exploratory.",
        *unranked(read["ranking"]),
        *_tempered(read["calibration"].filter(pl.col("strategy").is_in(grid.strategies))),
    ]
    drawn, told = _figures(read, Looks(grid.scored)), _tables(read, settings)
    if trials:
        drawn += _tuning_figures(read["tuning_curve"])
        told += _tuning_tables(read["tuning"])
    told += ensemble_tables(tables, grid) + own_tables(tables, grid)
    return Answer(
        KEY,
        QUESTION,
        sentence(read["ranking"], trials),
        tuple(notes),
        tuple(drawn),
        tuple(told),
        brief=brief(read["ranking"], trials),
    )


def trials_of_each(tables: Path, grid: Grid) -> int | None:
    """`tuning.budget` of tuning.csv in `tables`. Raises InputError where it is missing or cannot be read."""
    return budget(read_table(tables / "tuning.csv", SCHEMAS["tuning"]), grid)


def sentence(ranking: pl.DataFrame, trials: int | None) -> str:
    """The answer: for each task's first metric, who may be the best, in the base cohort if it is there.

    `trials`: tuning.budget.
    """
    headline = _headline(ranking)
    clauses = [f"{short_title(task)}: {_clause(rows)}" for (task,), rows in groups(headline, "task")]
    if not clauses:
        return NO_TASK
    cohort = headline["cohort"][0]
    settings = "Settings were tuned unequally" if trials is None else "Settings were tuned for no strategy"
    lead = "" if trials else f"{settings}: nothing is claimed about which is better. "
    return f"{lead}In the {cohort} cohort: {' '.join(f'{clause}.' for clause in clauses)}"


def _headline(ranking: pl.DataFrame) -> pl.DataFrame:
    """Of each task its first metric, in the base cohort if it is there."""
    rows = ranking.filter(pl.col("metric") == pl.col("metric").first().over("task"))
    return rows.filter(pl.col("cohort") == pl.col("cohort").sort().first().over("task"))


def brief(ranking: pl.DataFrame, trials: int | None) -> str:
    """On which tasks a best strategy can be told, and who has the highest scores."""
    headline = _headline(ranking)
    if not headline.height:
        return NO_TASK
    told: list[str] = []
    open_ones: list[str] = []
    highest: dict[str, list[str]] = {}
    for (task,), rows in groups(headline, "task"):
        ranked = rows.drop_nulls("rank")
        sure = ranked.height > 1 and _enough(ranked.row(0, named=True)) and ranked["set_high"][0] == 1
        if ranked.height:
            score = f"{title_inside(task)} ({TITLES[rows['metric'][0]]} {bounded(ranked.row(0, named=True)).estimate})"
            highest.setdefault(ranked["strategy"][0], []).append(score)
        if sure:
            told.append(f"on {title_inside(task)} {ranked['strategy'][0]} scores highest for certain")
        else:
            open_ones.append(title_inside(task))
    if open_ones:
        told.append(f"the data are too small to tell which strategy is best on {joined(open_ones)}")
    untuned_ones = "unequally" if trials is None else "for no strategy"
    claim = "" if trials else f"; settings were tuned {untuned_ones}, so that nothing is claimed about which is better"
    scores = ", ".join(f"{name}'s on {joined(of)}" for name, of in highest.items())
    second = f" In the {headline['cohort'][0]} cohort the highest score is {scores}{claim}." if scores else ""
    return f"{sentence_case('; '.join(told))}.{second}"


def _enough(top: dict[str, Any]) -> bool:
    """Whether the draws may be trusted: what is not told is too few, or leaves too few."""
    events = min(known(top[name]) or 0 for name in ("n", "positives") if top[name] is not None)
    return top["set_low"] is not None and events >= LEAST


def _clause(rows: pl.DataFrame) -> str:
    """What the draws say of one task: only a confidence set of one place, of enough people, names a best strategy."""
    title = TITLES[rows["metric"][0]]
    ranked = rows.drop_nulls("rank")
    if not ranked.height:
        return f"{title} is not estimable on {plural(rows['n'][0], 'test stay')}"
    top = ranked.row(0, named=True)
    score = f"{title} {bounded(top).told}"
    if ranked.height == 1:
        return f"{top['strategy']} alone was scored, {score}"
    if not _enough(top):
        return f"too small to tell on {plural(top['n'], 'test stay')}; the highest is {top['strategy']}, {score}"
    others = ranked.height - 1
    if top["set_high"] == 1:
        rest = "the one other" if others == 1 else f"all {others} others"
        return f"{top['strategy']} scores higher than {rest}, {score}"
    first = ranked.filter(pl.col("set_low") == 1).height
    who = f"any of {first}" if first == ranked.height else f"{first} of {ranked.height}"
    return f"too small to tell, {who} strategies may be first; the highest is {top['strategy']}, {score}"


def _tempered(calibration: pl.DataFrame) -> list[str]:
    """How often one temperature, fitted on validation, lowered the Brier score, a sentence."""
    keys = ["task", "cohort", "label", "strategy"]
    whole = calibration.filter(pl.col("label").is_in(WHOLE)).select(*keys, "scaling", "brier")
    both = whole.filter(scaling="none").join(whole.filter(scaling="temperature"), on=keys, suffix="_after")
    both = both.drop_nulls(["brier", "brier_after"])
    if not both.height:
        return []
    clauses = [
        f"{int((rows['brier_after'] < rows['brier']).sum())} of {plural(rows.height, 'strategy')} ({title_of(*key)})"
        for key, rows in groups(both, "task", "cohort")
    ]
    return [f"A temperature fitted on validation lowered the test Brier score of {joined(clauses)}."]


def _figures(read: dict[str, pl.DataFrame], looks: Looks) -> list[AnswerFigure]:
    """Ranks lead, by each task's first metric; cost and calibration are of the base cohort where it is there."""
    found = []
    one = pl.col("cohort") == pl.col("cohort").sort().first().over("task")
    first = pl.col("metric") == pl.col("metric").first().over("task")
    for key, rows in groups(read["ranking"].filter(first), "task", "cohort"):
        name, title = f"ranking_{key[0]}_{key[1]}", f"{title_of(*key)}: {TITLES[rows['metric'][0]]}"
        caption = "Rank, drawn ranks and confidence set of each strategy."
        found.append(AnswerFigure(name, figures.rank_figure(rows, name, title), caption, "tables/ranking.csv"))
    for key, rows in groups(read["score_cost"].filter(one), "task", "cohort"):
        name, title = f"cost_{key[0]}_{key[1]}", f"{title_of(*key)}: score against cost"
        svg = figures.cost_figure(rows, looks, name, title)
        found.append(AnswerFigure(name, svg, f"{COST} Fitted models have no FLOPs.", "tables/score_cost.csv"))
    for key, rows in groups(read["reliability"].filter(one), "task", "cohort"):
        name, title = f"reliability_{key[0]}_{key[1]}", f"{title_of(*key)}: calibration"
        svg = figures.calibration_figure(rows, name, title)
        caption = "Observed share by predicted probability, as said and at the temperature of validation."
        found.append(AnswerFigure(name, svg, caption, "tables/reliability.csv"))
    for key, rows in groups(read["decision"], "task", "cohort"):
        name, title = f"decision_{key[1]}", f"{title_of(*key)}: decision curves"
        svg = figures.decision_figure(rows, name, title)
        found.append(AnswerFigure(name, svg, BENEFIT, "tables/decision.csv"))
    if read["los"].height:
        name, title = "los_days", "Length of stay: days missed"
        svg = figures.days_figure(read["los"], name, title)
        caption = "Dashed: guessing the median of validation for everybody."
        found.append(AnswerFigure(name, svg, caption, "tables/los.csv"))
    return found


def _tuning_figures(curve: pl.DataFrame) -> list[AnswerFigure]:
    found = []
    for (task,), rows in groups(curve, "task"):
        name, title = f"tuning_{task}", f"{short_title(task)}: best of so many trials"
        svg = figures.tuning_figure(rows, monitor_title(task), name, title)
        found.append(AnswerFigure(name, svg, EXPECTED, "tables/tuning_curve.csv"))
    return found


def _tuning_tables(table: pl.DataFrame) -> list[AnswerTable]:
    found = []
    for (task,), rows in groups(table, "task"):
        header, body = tuning_rows(rows)
        title, note = f"Tuning: {short_title(task)}", "Scores are of dev stays; epochs and hours of all trials."
        found.append(AnswerTable(title, note, header, tuple(body), "tables/tuning.csv", STAGE))
    return found


def _tables(read: dict[str, pl.DataFrame], settings: Compare) -> list[AnswerTable]:
    found: list[AnswerTable] = []

    def add(name: str, title: str, note: str, table: tuple[tuple[str, ...], Sequence[tuple[Value, ...]]]) -> None:
        header, body = table
        found.append(AnswerTable(title, note, header, tuple(body), f"tables/{name}.csv", STAGE))

    for (task, cohort, metric), rows in groups(read["ranking"], "task", "cohort", "metric"):
        note = facts(rows.row(0, named=True))
        add("ranking", f"Ranking: {title_of(task, cohort)}, {TITLES[metric]}", note, ranking_rows(rows))
    for key, rows in groups(read["score_cost"], "task", "cohort"):
        add("score_cost", f"Score against cost: {title_of(*key)}", COST, cost_rows(rows))
    whole = read["calibration"].filter(pl.col("label").is_in(WHOLE))
    for key, rows in groups(whole, "task", "cohort"):
        add("calibration", f"Calibration: {title_of(*key)}", CALIBRATED, calibration_rows(rows))
    for key, rows in groups(read["decision"], "task", "cohort"):
        add("decision", f"Net benefit: {title_of(*key)}", BENEFIT, decision_rows(rows))
    for (cohort,), rows in groups(read["los"], "cohort"):
        note = days_note(settings.los_cap_days)
        add("los", f"Days: {title_of('los', cohort)}", note, los_rows(rows))
    return found
