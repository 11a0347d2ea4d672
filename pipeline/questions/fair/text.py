"""The tables of the stage `fairness` for people: compact forms that Markdown and the page share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.presentation.tables import Cell, short_title, title_inside
from pipeline.presentation.text import markdown_table, number, percent
from pipeline.questions.fair.subgroups import WHOLE
from pipeline.questions.fair.tables import CONFIRMATORY

Value = str | int | Cell | None

ATTRIBUTE_TITLES = {
    "age": "age",
    "gender": "gender",
    "race": "race",
    "admission": "admission type",
    "insurance": "insurance",
    "has_cxr": "image present",
}
METRIC_TITLES = {
    "auroc": "AUROC",
    "auprc_adjusted": "AUPRC, prevalence-adjusted",
    "calibration": "Calibration in the large",
    "equal_opportunity": "Equal opportunity (TPR, missed diagnoses)",
    "fpr": "False positive rate",
    "equalised_odds": "Equalised odds",
    "demographic_parity": "Demographic parity (share alerted)",
}
RULE_TITLES = {"validation": "threshold from validation", "alert_rate": "equal alert rates"}


class Compact(NamedTuple):
    """A table for people."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


def attribute_title(name: str) -> str:
    """`age+gender` -> age × gender."""
    return " × ".join(ATTRIBUTE_TITLES.get(each, each) for each in name.split("+"))


def task_title(task: str, label: str) -> str:
    """ICU mortality; Phenotypes; Length of stay (7 days or more)."""
    return short_title(task) + _days(task, label)


def task_inside(task: str, label: str) -> str:
    """`task_title` for the middle of a sentence."""
    return title_inside(task) + _days(task, label)


def _days(task: str, label: str) -> str:
    return f" ({label.split('_')[1]} days or more)" if task == "los" else ""


def _cell(row: dict[str, Any], name: str = "", value: str = "gap") -> Cell:
    """The estimate with its bounds: columns NAME, NAME_low, NAME_high, or `value`, low, high."""
    names = (name, f"{name}_low", f"{name}_high") if name else (value, "low", "high")
    return Cell(*(row[each] for each in names))


def heads(table: pl.DataFrame) -> list[tuple[str, str, str]]:
    """(task, label, cohort) of the tasks' own labels, in order: the first label of a task is its own."""
    found: dict[tuple[str, str], tuple[str, str, str]] = {}
    for task, label, cohort in table.select("task", "label", "cohort").unique(maintain_order=True).iter_rows():
        found.setdefault((task, cohort), (task, label, cohort))
    return list(found.values())


def worst_groups(groups: pl.DataFrame, gaps: pl.DataFrame) -> list[Compact]:
    """By task and cohort: the worst and the best group's AUROC and misses, of the strategies that validation chose.

    Missed diagnoses are those at equal alert rates. Single attributes with two groups that are large enough.
    """
    header = (
        "Strategy",
        "Attribute",
        "Lowest AUROC",
        "in",
        "Highest AUROC",
        "in",
        "Most missed",
        "in",
        "Least missed",
        "in",
        "Groups too small",
    )
    found = []
    single = ~pl.col("attribute").str.contains("+", literal=True)
    for task, label, cohort in heads(groups):
        rows: list[tuple[Value, ...]] = []
        here = gaps.filter(
            (pl.col("task") == task) & (pl.col("cohort") == cohort) & pl.col("chosen") & (pl.col("groups") > 1) & single
        )
        mine = groups.filter((pl.col("task") == task) & (pl.col("label") == label) & (pl.col("cohort") == cohort))
        for gap in here.filter(pl.col("metric") == "auroc").iter_rows(named=True):
            inside = mine.filter((pl.col("strategy") == gap["strategy"]) & (pl.col("attribute") == gap["attribute"]))
            ends: list[Value] = []
            for metric, worst_is_high in (("auroc", False), ("fnr_alert_rate", True)):
                for descending in (worst_is_high, not worst_is_high):
                    end = inside.sort(metric, descending=descending, nulls_last=True, maintain_order=True)
                    row = end.row(0, named=True)
                    ends += [_cell(row, metric), row["group"]]
            rows.append((gap["strategy"], ATTRIBUTE_TITLES[gap["attribute"]], *ends, gap["too_small"]))
        found.append(Compact(f"{task_title(task, label)}, {cohort} cohort", header, tuple(rows)))
    return found


def declared_family(gaps: pl.DataFrame) -> Compact:
    """The declared tests: AUROC gap by attribute, against shuffled groups, with Holm's p."""
    header = ("Task", "Cohort", "Strategy", "Attribute", "Gap", "By chance", "Excess", "p", "p (Holm)", "Comes from")
    rows = []
    for row in gaps.filter(pl.col("family") == CONFIRMATORY).iter_rows(named=True):
        same = gaps.filter(
            (pl.col("task") == row["task"])
            & (pl.col("cohort") == row["cohort"])
            & (pl.col("strategy") == row["strategy"])
            & (pl.col("attribute") == row["attribute"])
        )
        rows.append(
            (
                task_title(row["task"], row["label"]),
                row["cohort"],
                row["strategy"],
                ATTRIBUTE_TITLES[row["attribute"]],
                _cell(row),
                number(row["null_mean"]),
                number(row["excess"]),
                number(row["p"]),
                number(row["p_holm"]),
                next(iter(same["origin"].drop_nulls()), None),
            )
        )
    return Compact("AUROC gaps of the fusion strategy that validation chose", header, tuple(rows))


def all_gaps(gaps: pl.DataFrame) -> list[Compact]:
    """By task and cohort, every gap of the strategies that validation chose."""
    header = ("Strategy", "Attribute", "Metric", "Threshold", "Gap", "By chance", "Excess", "p", "Lowest", "Highest")
    found = []
    for task, label, cohort in heads(gaps):
        rows = []
        here = gaps.filter((pl.col("task") == task) & (pl.col("cohort") == cohort) & pl.col("chosen"))
        for row in here.drop_nulls("gap").iter_rows(named=True):
            ends = [
                f"{row[name + '_group']}: {number(row[name])}" if row[name] is not None else "—"
                for name in ("lowest", "highest")
            ]
            rows.append(
                (
                    row["strategy"],
                    attribute_title(row["attribute"]),
                    METRIC_TITLES[row["metric"]],
                    RULE_TITLES.get(row["threshold"], "—"),
                    _cell(row),
                    number(row["null_mean"]),
                    number(row["excess"]),
                    number(row["p"]),
                    *ends,
                )
            )
        found.append(Compact(f"{task_title(task, label)}, {cohort} cohort", header, tuple(rows)))
    return found


def fusion_gaps(fusion: pl.DataFrame, metric: str, threshold: str | None) -> list[Compact]:
    """By task and cohort, a row a fusion strategy: its gap less the unimodal one's, a column an attribute."""
    found = []
    rule = pl.col("threshold").is_null() if threshold is None else pl.col("threshold") == threshold
    single = fusion.filter((pl.col("metric") == metric) & rule & ~pl.col("attribute").str.contains("+", literal=True))
    for task, label, cohort in heads(single):
        here = single.filter((pl.col("task") == task) & (pl.col("cohort") == cohort))
        attributes = here["attribute"].unique(maintain_order=True).to_list()
        rows: list[tuple[Value, ...]] = []
        for strategy in here["strategy"].unique(maintain_order=True):
            each = {row["attribute"]: row for row in here.filter(pl.col("strategy") == strategy).iter_rows(named=True)}
            rows.append((strategy, *(_cell(each[name], value="difference") for name in attributes)))
        what = f"{METRIC_TITLES[metric]} gap less that of {here['unimodal'][0]}"
        title = f"{task_title(task, label)}, {cohort} cohort: {what}"
        found.append(Compact(title, ("Strategy", *(ATTRIBUTE_TITLES[name] for name in attributes)), tuple(rows)))
    return found


def slopes(groups: pl.DataFrame, gaps: pl.DataFrame) -> list[Compact]:
    """By task and cohort: calibration slope by group of a single attribute, a column a strategy that validation chose.

    The whole cohort leads.
    """
    found = []
    for task, label, cohort in heads(groups):
        chosen = gaps.filter("chosen", task=task, cohort=cohort)["strategy"].unique(maintain_order=True).to_list()
        here = groups.filter(
            ~pl.col("attribute").str.contains("+", literal=True), task=task, label=label, cohort=cohort
        )
        here = here.filter(pl.col("strategy").is_in(chosen)).drop_nulls("slope")
        rows: list[tuple[Value, ...]] = []
        for attribute, group in here.select("attribute", "group").unique(maintain_order=True).iter_rows():
            each = {row["strategy"]: row for row in here.filter(attribute=attribute, group=group).iter_rows(named=True)}
            cells = (_cell(each[name], "slope") if name in each else None for name in chosen)
            rows.append((ATTRIBUTE_TITLES.get(attribute, "all"), group, *cells))
        found.append(
            Compact(f"{task_title(task, label)}, {cohort} cohort", ("Attribute", "Group", *chosen), tuple(rows))
        )
    return found


def group_sizes(groups: pl.DataFrame) -> list[Compact]:
    """By task and cohort, stays and positives of every group, and whether it is too small."""
    found = []
    for task, label, cohort in heads(groups):
        here = groups.filter(
            (pl.col("task") == task)
            & (pl.col("label") == label)
            & (pl.col("cohort") == cohort)
            & (pl.col("attribute") != WHOLE)
        ).unique(["attribute", "group"], keep="first", maintain_order=True)
        rows = [
            (
                attribute_title(row["attribute"]),
                row["group"],
                row["stays"],
                row["positives"] or "—",
                row["status"] or "",
            )
            for row in here.iter_rows(named=True)
        ]
        header = ("Attribute", "Group", "Stays", "Positives", "")
        found.append(Compact(f"{task_title(task, label)}, {cohort} cohort", header, tuple(rows)))
    return found


def _markdown(compact: Compact, numbers_from: int) -> list[str]:
    body = [
        [each.text if isinstance(each, Cell) else "—" if each is None else each for each in row] for row in compact.rows
    ]
    table = (
        markdown_table(compact.header, body, numbers_from)
        if body
        else "Nothing is estimable: every group is too small.\n"
    )
    return [f"### {compact.title}", "", table]


def _document(title: str, about: str, parts: Sequence[tuple[str, Sequence[Compact], int]]) -> str:
    lines = [f"# {title}", "", f"{about} n. e.: not estimable.", ""]
    for heading, tables, numbers_from in parts:
        lines += [f"## {heading}", ""]
        for each in tables:
            lines += _markdown(each, numbers_from)
    return "\n".join(lines)


def groups_markdown(groups: pl.DataFrame, gaps: pl.DataFrame, confidence: float) -> str:
    """fairness_groups.md: the worst groups, calibration slopes, then the size of every group."""
    about = (
        f"In brackets the {percent(confidence)} interval of a bootstrap over subjects; the worst of several groups "
        "looks worse than it is. Missed: share of the positives without an alert, at equal alert rates. "
        "All numbers of all strategies stand in fairness_groups.csv."
    )
    parts = [
        ("Worst groups", worst_groups(groups, gaps), 11),
        ("Calibration slope", slopes(groups, gaps), 2),
        ("Sizes", group_sizes(groups), 5),
    ]
    return _document("Subgroups", about, parts)


def gaps_markdown(gaps: pl.DataFrame, confidence: float) -> str:
    """fairness_gaps.md: the declared family, then all gaps of the strategies that validation chose."""
    about = (
        f"Gap: highest less lowest group, in brackets its {percent(confidence)} interval; by chance: the mean gap when "
        "groups are shuffled; excess: what the gap has more."
    )
    parts = [("Declared family", [declared_family(gaps)], 10), ("Exploratory", all_gaps(gaps), 10)]
    return _document("Gaps between groups", about, parts)


def fusion_markdown(fusion: pl.DataFrame, confidence: float) -> str:
    """fairness_fusion.md: the change of the AUROC gap, and of equalised odds at equal alert rates."""
    about = (
        "Gap of each fusion strategy less that of the unimodal strategy that validation chose, on the same draws: "
        f"above 0 fusion widens it. In brackets the {percent(confidence)} interval."
    )
    parts = [
        ("AUROC", fusion_gaps(fusion, "auroc", None), 1),
        ("Equalised odds at equal alert rates", fusion_gaps(fusion, "equalised_odds", "alert_rate"), 1),
    ]
    return _document("Does fusion widen the gaps?", about, parts)
