"""Question 4 on the page: how fair? From the tables of the stage `fairness`, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.disclosure import FEW
from pipeline.evaluation.reading import read_table
from pipeline.params import Fairness
from pipeline.presentation.answers import Answer, AnswerFigure, AnswerTable
from pipeline.presentation.tables import Cell
from pipeline.presentation.text import joined, number, percent, plural, sentence_case, verb
from pipeline.questions.fair import figures
from pipeline.questions.fair.subgroups import SMALL, WHOLE
from pipeline.questions.fair.tables import CONFIRMATORY, FUSION_SCHEMA, GAPS_SCHEMA, GROUPS_SCHEMA, LEVEL
from pipeline.questions.fair.text import (
    ATTRIBUTE_TITLES,
    Compact,
    all_gaps,
    declared_family,
    fusion_gaps,
    group_sizes,
    heads,
    slopes,
    task_inside,
    task_title,
    worst_groups,
)

QUESTION = "How fair is it?"
STAGE = "fairness"
GROUPS, GAPS, FUSION = (f"tables/fairness_{name}.csv" for name in ("groups", "gaps", "fusion"))


def answer(tables: Path, knobs: Fairness, confidence: float) -> Answer:
    """The section; `tables` is the folder of the stage's tables.

    Raises InputError where a table is absent or cannot be read.
    """
    groups = read_table(tables / "fairness_groups.csv", GROUPS_SCHEMA)
    gaps = read_table(tables / "fairness_gaps.csv", GAPS_SCHEMA)
    fusion = read_table(tables / "fairness_fusion.csv", FUSION_SCHEMA)
    return Answer(
        key="fair",
        question=QUESTION,
        sentence=sentence(groups, gaps, fusion, knobs),
        notes=_notes(groups, knobs, confidence),
        figures=tuple(_figures(groups, gaps, fusion, knobs)),
        tables=tuple(_tables(groups, gaps, fusion)),
        brief=brief(groups, gaps, knobs),
    )


def _single(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(~pl.col("attribute").str.contains("+", literal=True) & (pl.col("attribute") != WHOLE))


PEOPLE = {("gender", "F"): "women", ("gender", "M"): "men"} | {
    ("has_cxr", "image"): "stays with an image",
    ("has_cxr", "no image"): "stays without an image",
}
MORE_TO_SEE = "With an image there is more to see: a gap between stays with and without one is none between people."


def _people(row: dict[str, Any]) -> str:
    """women; stays with an image; those of race ASIAN."""
    plain = f"those of {ATTRIBUTE_TITLES[row['attribute']]} {row['group']}"
    return PEOPLE.get((row["attribute"], row["group"]), plain)


def _task(row: dict[str, Any]) -> str:
    """ICU mortality with medfuse."""
    return f"{task_inside(row['task'], row['label'])} with {row['strategy']}"


def _where(row: dict[str, Any]) -> str:
    """Between whom, in what, with which strategy."""
    of = ATTRIBUTE_TITLES[row["attribute"]]
    between = "stays with and without an image" if row["attribute"] == "has_cxr" else f"groups of {of}"
    return f"between {between}, {_task(row)}"


def sentence(groups: pl.DataFrame, gaps: pl.DataFrame, fusion: pl.DataFrame, knobs: Fairness) -> str:
    """The worst groups, what of the declared gaps is more than chance, and whether fusion widens them."""
    family = gaps.filter(pl.col("family") == CONFIRMATORY)
    tested = family.drop_nulls("p_holm").to_dicts()
    unchosen = _unchosen(groups, family)
    if not family.height:
        return f"Not to be told: {unchosen}."
    if not tested:
        of = "the one declared test" if family.height == 1 else f"any of {family.height} declared tests"
        return (
            f"Too small to tell: there are no two groups with at least {knobs.least_positives} positives and "
            f"{knobs.least_negatives} negatives in {of} (attribute × task), so that neither fairness nor unfairness is "
            "shown." + (f" Besides, {unchosen}." if unchosen else "")
        )
    lasting = [row for row in tested if row["p_holm"] <= LEVEL]
    parts = [_worst(groups, gaps), women(gaps)]
    count = len(tested)
    what = "more than chance, after Holm's adjustment for all tests"
    if lasting:
        each = "; ".join(f"{_where(row)}: {_gap(row)}, p {number(row['p_holm'])}" for row in lasting)
        who = "The one AUROC gap" if count == 1 else f"{len(lasting)} of {count} AUROC gaps"
        parts.append(f"{who} tested (attribute × task) {verb(len(lasting), 'is', 'are')} {what}: {each}.")
    else:
        widest = max(tested, key=lambda row: (row["high"] or 0.0, row["gap"]))
        who = "The one AUROC gap tested (attribute × task) is not shown to be"
        who = who if count == 1 else f"None of {count} AUROC gaps tested (attribute × task) is shown to be"
        parts.append(f"{who} {what}, which does not show that there is none: {_where(widest)}, it is {_gap(widest)}.")
    if any(row["attribute"] == "has_cxr" for row in tested):
        parts.append(MORE_TO_SEE)
    if family.height > len(tested):
        parts.append(f"{plural(family.height - len(tested), 'more test')} could not be made: the groups are too small.")
    if unchosen:
        parts.append(f"Besides, {unchosen}.")
    parts.append(_fusion_sentence(fusion))
    return " ".join(part for part in parts if part)


def brief(groups: pl.DataFrame, gaps: pl.DataFrame, knobs: Fairness) -> str:
    """How many of the declared gaps are more than chance, and whether women are served worse than men."""
    family = gaps.filter(pl.col("family") == CONFIRMATORY)
    tested = family.drop_nulls("p_holm")
    if not tested.height:
        return sentence(groups, gaps, pl.DataFrame(schema=FUSION_SCHEMA), knobs)
    lasting = tested.filter(pl.col("p_holm") <= LEVEL).height
    of = f"{lasting or 'none'} of {plural(tested.height, 'tested gap')} of AUROC between groups"
    untested = family.height - tested.height
    rest = f"; {untested} more could not be tested, for want of people" if untested else ""
    return f"{sentence_case(of)} {verb(lasting or 1, 'is', 'are')} shown to be more than chance{rest}. {women(gaps)}"


def women(gaps: pl.DataFrame) -> str:
    """AUROC among women and among men, task by task, where the declared gap by gender could be tested."""
    rows = gaps.filter((pl.col("family") == CONFIRMATORY) & (pl.col("attribute") == "gender")).drop_nulls("p_holm")
    if not rows.height:
        return "Whether women are served worse than men could not be tested."
    parts = []
    for row in rows.iter_rows(named=True):
        of = {row[f"{end}_group"]: row[end] for end in ("lowest", "highest")}
        sure = "a gap more than chance" if row["p_holm"] <= LEVEL else "a gap not shown to be more than chance"
        parts.append(f"{number(of.get('F'))} and {number(of.get('M'))} on {_task(row)} ({sure})")
    return f"Among women and among men AUROC is {'; '.join(parts)}."


def _unchosen(groups: pl.DataFrame, family: pl.DataFrame) -> str:
    """The tasks in which no fusion strategy was chosen, so that nothing was declared; empty where there is none."""
    tested = set(family["task"])
    titles = dict.fromkeys(task_title(task, label) for task, label, _ in heads(groups) if task not in tested)
    if not titles:
        return ""
    return (
        f"no fusion strategy was chosen for {joined(list(titles))} (there is none in the grid, or validation has no "
        "positive to choose by)"
    )


def _gap(row: dict[str, Any]) -> str:
    return f"{Cell(row['gap'], row['low'], row['high']).told} where chance gives {number(row['null_mean'])}"


def _worst(groups: pl.DataFrame, gaps: pl.DataFrame) -> str:
    """The group with the lowest AUROC, and the one with the most missed, among those of the declared family."""
    family = gaps.filter((pl.col("family") == CONFIRMATORY) & (pl.col("groups") > 1))
    keys = ["task", "label", "cohort", "strategy", "attribute"]
    rows = groups.join(family.select(keys), on=keys, how="semi", maintain_order="left")
    texts = []
    for metric, text, descending in (
        ("auroc", "The lowest AUROC of a group is {}", False),
        ("fnr_alert_rate", "the largest share of missed diagnoses, at equal alert rates, is {}", True),
    ):
        known = rows.drop_nulls(metric).sort(metric, descending=descending, maintain_order=True)
        if known.height:
            row = known.row(0, named=True)
            cell = Cell(row[metric], row[f"{metric}_low"], row[f"{metric}_high"]).told
            texts.append(f"{text.format(cell)} (of {_people(row)}, {_task(row)})")
    return "; ".join(texts) + "." if texts else ""


def _fusion_sentence(fusion: pl.DataFrame) -> str:
    rows = _single(fusion).filter(pl.col("metric") == "auroc").drop_nulls("finding")
    if not rows.height:
        return ""
    counts = {name: rows.filter(pl.col("finding") == name).height for name in ("wider", "narrower")}
    found = joined([f"{name} in {count}" for name, count in counts.items() if count])
    of = "the one comparison" if rows.height == 1 else f"{rows.height} comparisons"
    told = f"{found} of {of}" if found else f"neither wider nor narrower for certain in {of}"
    told = f"{rows['finding'][0]} in {of}" if found and rows.height == 1 else told
    return (
        f"Against the single-modality strategy that validation chose, fusion makes the AUROC gap {told} "
        "(strategy × attribute × task × cohort; exploratory, not adjusted)."
    )


def _notes(groups: pl.DataFrame, knobs: Fairness, confidence: float) -> tuple[str, ...]:
    own = _single(groups).filter(
        pl.struct("task", "label").is_in([{"task": task, "label": label} for task, label, _ in heads(groups)])
    )
    each = own.unique(["task", "cohort", "attribute", "group"], keep="first", maintain_order=True)
    small = each.filter(pl.col("status") == SMALL).height
    return (
        "Labels may be coded differently by group: a diagnosis is what was billed, a death what was recorded. A model "
        "that follows the coding looks fair where the coding is not, and none of these numbers can tell.",
        f"Too small, with fewer than {knobs.least_positives} positives or {knobs.least_negatives} negatives: {small} "
        f"of {plural(each.height, 'group')} (attribute × task × cohort), listed without a number of theirs. "
        f"Counts below {FEW} are suppressed, and those that would give them away hidden.",
        "Declared before the results: the AUROC gap of the fusion strategy that validation chose, by each attribute "
        f"and task, in the {knobs.cohort} cohort (presence of an image: in base), against shuffled groups, with Holm's "
        "adjustment over all tasks. All else is exploratory.",
        f"A gap is biased upwards, more so with many small groups: look at its {percent(confidence)} interval and at "
        "what it has more than with shuffled groups. Strategies are compared at equal overall alert rates "
        f"({knobs.alert_rate:g} × the prevalence); thresholds otherwise come from validation.",
    )


def _chosen(gaps: pl.DataFrame, task: str, cohort: str) -> list[str]:
    """The fusion and the unimodal strategy that validation chose, in this order."""
    rows = gaps.filter((pl.col("task") == task) & (pl.col("cohort") == cohort) & pl.col("chosen"))
    return rows.sort("kind", maintain_order=True)["strategy"].unique(maintain_order=True).to_list()


def _figures(groups: pl.DataFrame, gaps: pl.DataFrame, fusion: pl.DataFrame, knobs: Fairness) -> list[AnswerFigure]:
    leading: list[AnswerFigure] = []
    others: list[AnswerFigure] = []
    for task, label, cohort in heads(groups):
        here = (pl.col("task") == task) & (pl.col("label") == label) & (pl.col("cohort") == cohort)
        title, ends = task_title(task, label), f"{task}_{cohort}"
        rows, mine = _single(groups.filter(here)), _single(gaps.filter(here & pl.col("chosen")))
        compared = mine.filter(pl.col("groups") > 1)["attribute"].unique().to_list()
        strategies = _chosen(gaps, task, cohort)
        if compared and strategies:
            shown = rows.filter(pl.col("attribute").is_in(compared))
            name = f"fair_groups_{ends}"
            svg = figures.groups(shown, strategies, "auroc", "AUROC", name, f"{title}, {cohort} cohort: AUROC by group")
            leading.append(AnswerFigure(name, svg, "Of the strategies that validation chose.", GROUPS))
            name = f"fair_missed_{ends}"
            text = f"{title}, {cohort} cohort: missed diagnoses"
            svg = figures.groups(shown, strategies, "fnr_alert_rate", "Share of positives missed", name, text)
            others.append(AnswerFigure(name, svg, "At equal overall alert rates.", GROUPS))
            name = f"fair_gaps_{ends}"
            of = mine.filter((pl.col("metric") == "auroc") & (pl.col("strategy") == strategies[0]))
            svg = figures.gaps(of, name, f"{title}, {cohort} cohort: gaps of {strategies[0]}")
            others.append(AnswerFigure(name, svg, "AUROC gaps beside those of shuffled groups.", GAPS))
        change = _single(fusion.filter(here & (pl.col("metric") == "auroc")))
        if change.drop_nulls("difference").height:
            name = f"fair_fusion_{ends}"
            svg = figures.changes(
                change,
                f"AUROC gap less that of {change['unimodal'][0]}",
                name,
                f"{title}, {cohort} cohort: gaps by fusion",
            )
            others.append(AnswerFigure(name, svg, "To the right of 0, fusion widens the gap.", FUSION))
    leading.sort(key=lambda figure: not figure.name.endswith(f"_{knobs.cohort}"))
    if not leading:
        leading = _why_not(groups, knobs)
    return [*leading, *others]


def _why_not(groups: pl.DataFrame, knobs: Fairness) -> list[AnswerFigure]:
    """How many positives the groups have, of the first task with one label and its first cohort."""
    for task, label, cohort in heads(groups):
        rows = _single(
            groups.filter((pl.col("task") == task) & (pl.col("label") == label) & (pl.col("cohort") == cohort))
        )
        if rows["positives"].drop_nulls().len():
            name, title = (
                f"fair_sizes_{task}_{cohort}",
                f"{task_title(task, label)}, {cohort} cohort: size of the groups",
            )
            svg = figures.counts(rows, knobs.least_positives, name, title)
            return [AnswerFigure(name, svg, "No two groups of an attribute are large enough to be compared.", GROUPS)]
    return []


def _tables(groups: pl.DataFrame, gaps: pl.DataFrame, fusion: pl.DataFrame) -> list[AnswerTable]:
    def shown(parts: Sequence[Compact], what: str, note: str, source: str, folded: bool) -> list[AnswerTable]:
        return [
            AnswerTable(f"{what}: {each.title}", note, each.header, each.rows, source, STAGE, folded)
            for each in parts
            if each.rows
        ]

    family = declared_family(gaps)
    declared = AnswerTable(
        family.title,
        "The declared family. By chance: the mean gap when groups are shuffled. Comes from: scores differ between "
        "groups, or one threshold does not suit them all; and in which of sensitivity and specificity it shows.",
        family.header,
        family.rows,
        GAPS,
        STAGE,
        folded=False,
    )
    missed = "Missed: at equal alert rates. The worst of several groups looks worse than it is."
    exploratory = "Exploratory. p values are not adjusted."
    paired = "Paired, on the same draws: above 0 fusion widens the gap. Exploratory."
    slope = (
        "1: probabilities can be taken at their word; below 1 they are too extreme. Of the strategies that "
        "validation chose. Exploratory."
    )
    listed = "Test stays. Hidden: a count that would give a suppressed one away."
    return [
        *shown(worst_groups(groups, gaps), "Worst groups", missed, GROUPS, folded=False),
        *([declared] if family.rows else []),
        *shown(fusion_gaps(fusion, "auroc", None), "Fusion", paired, FUSION, folded=True),
        *shown(fusion_gaps(fusion, "equalised_odds", "alert_rate"), "Fusion", paired, FUSION, folded=True),
        *shown(all_gaps(gaps), "All gaps", exploratory, GAPS, folded=True),
        *shown(slopes(groups, gaps), "Calibration slope", slope, GROUPS, folded=True),
        *shown(group_sizes(groups), "Groups", listed, GROUPS, folded=True),
    ]
