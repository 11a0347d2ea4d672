"""The figures of question 1: forests of differences, the ladder, and what each modality adds to a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from pipeline.params import Verdicts
from pipeline.presentation.answers import AnswerFigure
from pipeline.presentation.differences import Row, forest
from pipeline.presentation.figures import MARKERS, MUTED, PALETTE, WIDTH, as_svg, canvas, legend_below
from pipeline.presentation.findings import by_series, extremes
from pipeline.presentation.tables import METRIC_TITLES, Cell, short_title
from pipeline.questions.when import tables as texts
from pipeline.questions.when.section_tables import FIRST, RUNG_TITLES
from pipeline.questions.when.tables import OWN

COHORTS = ("base", "matched")
SOURCE, LADDER = "tables/gain.csv", "tables/ladder.csv"


def figures(table: pl.DataFrame, family: pl.DataFrame, ladder: pl.DataFrame, rule: Verdicts) -> list[AnswerFigure]:
    """Forests of the family and of every fusion strategy, then the ladder; `family` is a part of `table`, gain.csv."""
    cohorts = [name for name in COHORTS if name in table["cohort"]]
    names = [f"{cohort} cohort" for cohort in cohorts]
    drawn = []

    def add(name: str, rows: list[Row], metric: str, axis: str, title: str, caption: str) -> None:
        if rows:
            margin = rule.margin(metric)
            svg = forest(rows, names, f"Difference of {axis}", name, title, margin)
            drawn.append(AnswerFigure(name, svg, f"{caption} the band is ±{margin:g}.", SOURCE))

    of = "Fusion less the better single modality"
    own = family.filter(pl.col("label").is_in(OWN))
    caption = f"Both chosen on validation, label by label. {texts.ADJUSTED.rstrip('.')};"
    rows = _rows(own, "task", short_title, cohorts, judged=True)
    add("when_tasks", rows, "auroc", "AUROC (length of stay: of accuracy)", of, caption)
    rows = _rows(family.filter(~pl.col("label").is_in(OWN)), "label", texts.label_title, cohorts, judged=True)
    add("when_phenotypes", rows, "auroc", "AUROC", f"{of}: phenotypes", f"{texts.ADJUSTED.rstrip('.')};")
    for task in table["task"].unique(maintain_order=True):
        every = table.filter(
            ~pl.col("chosen") & pl.col("label").is_in(OWN) & pl.col("metric").is_in(FIRST), task=task, stratum="all"
        )
        if every.height:
            metric, title = every["metric"][0], f"{short_title(task)}: every fusion strategy"
            rows = _rows(every, "strategy", str, cohorts)
            add(
                f"when_{task}",
                rows,
                metric,
                METRIC_TITLES[metric],
                title,
                "Exploratory: less the better single modality;",
            )
    return [*drawn, *_ladder(ladder, cohorts, names)]


def _rows(
    rows: pl.DataFrame, by: str, title: Callable[[str], str], cohorts: list[str], judged: bool = False
) -> list[Row]:
    """`judged`: in the intervals by which verdicts were told."""
    cell = texts.told if judged else texts.difference
    found = []
    for name in rows[by].unique(maintain_order=True):
        each = {row["cohort"]: cell(row) for row in rows.filter(pl.col(by) == name).iter_rows(named=True)}
        found.append(Row(title(name), tuple(each.get(cohort) for cohort in cohorts)))
    return found


def _ladder(ladder: pl.DataFrame, cohorts: list[str], names: list[str]) -> list[AnswerFigure]:
    drawn = []
    own = ladder.filter(pl.col("label").is_in(OWN) & pl.col("metric").is_in(FIRST))
    for task in own["task"].unique(maintain_order=True):
        rows = []
        for rung in own.filter(task=task)["rung"].unique(maintain_order=True):
            each = {
                row["cohort"]: Cell(row["value"], row["low"], row["high"])
                for row in own.filter(task=task, rung=rung).iter_rows(named=True)
            }
            if any(cell.value is not None for cell in each.values()):
                rows.append(Row(RUNG_TITLES[rung], tuple(each.get(cohort) for cohort in cohorts)))
        if rows and cohorts:
            name, title = f"when_ladder_{task}", f"{short_title(task)}: what the image adds, step by step"
            axis = METRIC_TITLES[own.filter(task=task)["metric"][0]]
            caption = "Each rung is told what the one above it is, and more. Differences of neighbours are paired."
            drawn.append(AnswerFigure(name, forest(rows, names, axis, name, title), caption, LADDER))
    return drawn


def shapley(rows: pl.DataFrame, metric: str, name: str, title: str) -> str:
    """What each modality adds to the score of each fusion strategy; `rows` of reliance.csv of one task and cohort."""
    strategies = rows["strategy"].unique(maintain_order=True).to_list()
    with canvas(WIDTH, 1.15 + 0.3 * len(strategies)) as (figure, (axes,)):
        for i, (quantity, label) in enumerate((("shapley_ehr", "EHR"), ("shapley_cxr", "image"))):
            _points(axes, rows.filter(quantity=quantity), strategies, 0.15 if i else -0.15, i, label)
        axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(strategies)), strategies)
        axes.set_ylim(len(strategies) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{metric} that each modality adds (Shapley value)")
        legend_below(figure, axes)
        names = {"EHR": "shapley_ehr", "image": "shapley_cxr"}
        told = {
            label: extremes(dict(rows.filter(quantity=quantity).select("strategy", "value").iter_rows()))
            for label, quantity in names.items()
        }
        return as_svg(figure, name, title, by_series(told))


def _points(axes: Axes, rows: pl.DataFrame, strategies: Sequence[str], shift: float, look: int, label: str) -> None:
    shown = rows.filter(pl.col("value").is_not_null())
    if not shown.height:
        return
    low, high = (shown[end].fill_null(shown["value"]).to_numpy() for end in ("low", "high"))
    values = shown["value"].to_numpy()
    axes.errorbar(
        values,
        [strategies.index(strategy) + shift for strategy in shown["strategy"]],
        xerr=np.maximum(0.0, np.array([values - low, high - values])),
        fmt=MARKERS[look],
        color=PALETTE[look],
        markersize=4.5,
        elinewidth=1.3,
        label=label,
    )
