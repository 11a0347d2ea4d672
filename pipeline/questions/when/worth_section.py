"""What fusion is worth, for people: the tables and figures on the page, and worth.csv, worth.md and defer.csv."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.presentation.answers import AnswerFigure, AnswerTable, Value
from pipeline.presentation.differences import Row, forest
from pipeline.presentation.figures import PALETTE, WIDTH, as_svg, band, canvas, legend_below
from pipeline.presentation.findings import by_series
from pipeline.presentation.tables import Cell, short_title
from pipeline.presentation.text import markdown_table, number, percent
from pipeline.questions.when.section_tables import STAGE
from pipeline.questions.when.source import ONE_RUN
from pipeline.questions.when.tables import OWN
from pipeline.questions.when.worth import AREA, DEFERRED_IMAGE, DEFERRED_OUTCOME, RISK, SAVED, Worth

SOURCE, DEFER = "tables/worth.csv", "tables/defer.csv"
LESS = ("less_single", "less_all", "less_none")
NET_BENEFIT = (
    "Net benefit: true alarms per patient less false ones at the odds of the threshold. Fusion and the single modality "
    "are those of the verdicts, taken at the probabilities that they say. Exploratory, unadjusted."
)
DEFERRAL = (
    "Kept are the stays of which a strategy expects the smallest Brier score; risk is the one that they turn out to "
    "have. Saved: the risk of all stays less the mean over coverages; below 0 the sure are wrong more often. "
    "Exploratory, unadjusted."
)
QUANTITIES = {
    AREA: "Mean risk over coverages",
    SAVED: "Saved by deferring the least sure",
    DEFERRED_IMAGE: "Deferred, of stays with an image",
    DEFERRED_OUTCOME: "Deferred, of stays with the outcome",
}
HEADER = ("Task", "Cohort", "Threshold", "Fusion", "Compared with", "Less single", "Less acting on all", "Less on none")
DEFER_HEADER = ("Task", "Cohort", "Quantity", "Fusion", "Single modality", "Difference")


def cell(row: dict[str, float | None], name: str) -> Cell:
    """An estimate with its interval."""
    return Cell(row[name], row[f"{name}_low"], row[f"{name}_high"])


def at(threshold: float | None) -> str:
    """A threshold in words."""
    return "mean over all" if threshold is None else f"{threshold:g}"


def tables_of(benefit: pl.DataFrame, defer: pl.DataFrame) -> list[AnswerTable]:
    """Those that have rows: of the tasks' own labels."""
    own = benefit.filter(pl.col("label").is_in(OWN)).sort("threshold", nulls_last=False, maintain_order=True)
    order = own["task"].unique(maintain_order=True).to_list()
    rows: list[tuple[Value, ...]] = [
        (
            short_title(row["task"]),
            row["cohort"],
            at(row["threshold"]),
            row["strategy"],
            row["single"],
            *(cell(row, name) for name in LESS),
        )
        for task in order
        for row in own.filter(task=task).iter_rows(named=True)
    ]
    told: list[tuple[Value, ...]] = [
        (
            short_title(row["task"]),
            row["cohort"],
            QUANTITIES[row["quantity"]],
            *(cell(row, name) for name in ("value", "single_value", "difference")),
        )
        for row in defer.filter(pl.col("quantity") != RISK).iter_rows(named=True)
    ]
    one = f" {ONE_RUN.capitalize()}." if ONE_RUN in {*benefit["note"], *defer["note"]} else ""
    made = (
        AnswerTable("What acting on it is worth", NET_BENEFIT + one, HEADER, tuple(rows), SOURCE, STAGE),
        AnswerTable("Deferring the least sure", DEFERRAL + one, DEFER_HEADER, tuple(told), DEFER, STAGE),
    )
    return [each for each in made if each.rows]


def figures(benefit: pl.DataFrame, defer: pl.DataFrame) -> list[AnswerFigure]:
    """A task: fusion less the better single modality by threshold; risk by coverage."""
    drawn = []
    own = benefit.filter(pl.col("label").is_in(OWN) & pl.col("threshold").is_not_null())
    for task in own["task"].unique(maintain_order=True):
        of = own.filter(task=task)
        cohorts = of["cohort"].unique(maintain_order=True).to_list()
        rows = []
        for threshold in of["threshold"].unique().sort():
            each = {
                row["cohort"]: cell(row, "less_single") for row in of.filter(threshold=threshold).iter_rows(named=True)
            }
            rows.append(Row(f"acting from {threshold:g} on", tuple(each.get(cohort) for cohort in cohorts)))
        name, title = f"when_worth_{task}", f"{short_title(task)}: net benefit, fusion less the better single modality"
        svg = forest(rows, [f"{each} cohort" for each in cohorts], "Difference of net benefit", name, title, 0.0)
        drawn.append(AnswerFigure(name, svg, NET_BENEFIT, SOURCE))
    for task in defer["task"].unique(maintain_order=True):
        name, title = f"when_defer_{task}", f"{short_title(task)}: risk of the stays that are kept"
        drawn.append(AnswerFigure(name, _curves(defer.filter(task=task, quantity=RISK), name, title), DEFERRAL, DEFER))
    return drawn


def _curves(rows: pl.DataFrame, name: str, title: str) -> str:
    """Risk by coverage, a colour a cohort: fusion solid in its interval, the single modality dashed."""
    told = {}
    with canvas(WIDTH, 3.4) as (figure, (axes,)):
        for i, (cohort,) in enumerate(rows.select("cohort").unique(maintain_order=True).iter_rows()):
            curve = rows.filter(cohort=cohort).drop_nulls("value").sort("coverage")
            inside = curve.drop_nulls(("value_low", "value_high"))
            band(axes, inside["coverage"], inside["value_low"], inside["value_high"], PALETTE[i])
            kept = {"all kept": curve["coverage"].max(), "fewest kept": curve["coverage"].min()}
            told[f"{cohort} cohort"] = "; ".join(
                f"{when}, fusion {number(row['value'])}, single modality {number(row['single_value'])}"
                for when, share in kept.items()
                for row in curve.filter(coverage=share).iter_rows(named=True)
            )
            axes.plot(curve["coverage"], curve["value"], color=PALETTE[i], label=f"fusion, {cohort}")
            axes.plot(
                curve["coverage"],
                curve["single_value"],
                color=PALETTE[i],
                linestyle=(0, (5, 1.5)),
                label=f"single modality, {cohort}",
            )
        axes.set_xlabel("Share of stays kept, the surest first")
        axes.set_ylabel("Brier score")
        legend_below(figure, axes)
        return as_svg(figure, name, title, by_series(told))


def worth_markdown(found: Worth, confidence: float) -> str:
    """worth.md: net benefit of the tasks' own labels, then deferral."""
    lines = ["# What fusion is worth", "", f"{percent(confidence)} intervals.", ""]
    for each in tables_of(found.benefit, found.defer):
        lines += [f"## {each.title}", "", each.note, ""]
        body = [[value.text if isinstance(value, Cell) else value for value in row] for row in each.rows]
        lines.append(markdown_table(list(each.header), body, numbers_from=3))
    return "\n".join(lines)


def write(found: Worth, tables: Path, confidence: float) -> None:
    """Writes worth.csv, worth.md and defer.csv."""
    files.write_csv(found.benefit, tables / "worth.csv")
    files.write_csv(found.defer, tables / "defer.csv")
    files.write_text(worth_markdown(found, confidence), tables / "worth.md")
