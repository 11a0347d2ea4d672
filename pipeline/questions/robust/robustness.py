"""The stage `robustness`: what missing modalities cost each strategy, and whether what is built for them loses less.

Images and records are removed from the test stays with an image (the matched cohort), whatever cohort a model was
trained on; differences are paired, draw by draw. The EHR-only reference is chosen on validation, once per task and
cohort of training, and compared under the same removal (that of images changes nothing for it).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.disclosure import part_of, parted, protected, suppressed
from pipeline.estimation.bootstrap import Floats, difference_interval
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.scores import Sampler, metric_interval, metrics_of
from pipeline.params import Evaluation, Grid, ProbeScale, TrainingScale
from pipeline.questions.robust.cells import Cell, read_cells, reference_of
from pipeline.questions.robust.removal import NOTHING, Removal, area, stops_paying
from pipeline.tasks import Task, get_task

DIGITS = 12
# Groups of the natural stays within base, and the places of those that make up base, or all without an image.
PARTS = ("matched", "no image", "not_taken", "not_collectable")
SUMS = ((0, 1), (2, 3), (0, 2, 3))
KIND = {"train_cohort": pl.String, "train_missing": pl.Float64, "train_mechanism": pl.String}
REMOVED = {"modality": pl.String, "mechanism": pl.String, "rate": pl.Float64}


def _bounded(name: str) -> dict[str, Any]:
    return {f"{name}{suffix}": pl.Float64 for suffix in ("", "_low", "_high")}


CURVES: dict[str, Any] = {
    "task": pl.String,
    "strategy": pl.String,
    **KIND,
    **REMOVED,
    "metric": pl.String,
    **_bounded("value"),
    **_bounded("change"),
    "reference": pl.String,
    **_bounded("lead"),
    **_bounded("gain"),
    "n": pl.String,
    "runs": pl.Int64,
}
SUMMARY: dict[str, Any] = {
    "task": pl.String,
    "strategy": pl.String,
    "missing": pl.String,
    **KIND,
    "modality": pl.String,
    "mechanism": pl.String,
    "metric": pl.String,
    **_bounded("area"),
    **_bounded("loss"),
    "reference": pl.String,
    "pays": pl.String,
    **_bounded("stops"),
}
NATURAL: dict[str, Any] = {
    "task": pl.String,
    "strategy": pl.String,
    **KIND,
    "group": pl.String,
    "metric": pl.String,
    **_bounded("value"),
    "reference": pl.String,
    **_bounded("lead"),
    "n": pl.String,
    "positives": pl.String,
}
FAMILIES: dict[str, Any] = {
    "task": pl.String,
    **KIND,
    **REMOVED,
    "metric": pl.String,
    "family": pl.String,
    "strategies": pl.Int64,
    **_bounded("value"),
    **_bounded("loss"),
}


class Tables:
    """The four tables, row by row."""

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence
        self.curves: list[dict[str, Any]] = []
        self.summary: list[dict[str, Any]] = []
        self.natural: list[dict[str, Any]] = []
        self.families: list[dict[str, Any]] = []

    def _number(self, name: str, draws: Floats | None, metric: str | None = None) -> dict[str, float | None]:
        """A score, of which `metric` is the name, or a difference of two, with its interval."""
        if draws is None or np.isnan(draws[0]):
            return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
        draws = np.round(draws, DIGITS) + 0.0  # a difference that is rounding is none
        if metric is None:
            low, high = difference_interval(draws, self.confidence)
        else:
            low, high = metric_interval(metric, draws, self.confidence)
        return {name: float(draws[0]), f"{name}_low": low, f"{name}_high": high}

    def add(self, task: Task, cell: Cell, reference: Cell | None, whole: Cell | None) -> None:
        """The rows of one cell; `whole` is the same strategy trained with nothing removed, where `cell` was not."""
        about = {"task": task.name, "strategy": cell.strategy, **cell.kind}
        if reference is cell:
            reference = None
        name = None if reference is None else reference.strategy
        told = _told(cell)
        for metric in metrics_of(task):
            for removal, scores in cell.removed.items():
                own = scores[metric]
                lead = None if reference is None else own - reference.removed[removal][metric]
                self.curves.append(
                    {
                        **about,
                        **removal._asdict(),
                        "metric": metric,
                        **self._number("value", own, metric),
                        **self._number("change", None if removal == NOTHING else own - cell.removed[NOTHING][metric]),
                        "reference": name,
                        **self._number("lead", lead),
                        **self._number("gain", None if whole is None else own - whole.removed[removal][metric]),
                        "n": told["matched"][0],
                        "runs": cell.runs,
                    }
                )
            for group, scores in cell.natural.items():
                lead = None if reference is None else scores[metric] - reference.natural[group][metric]
                stays, positives = told[group]
                self.natural.append(
                    {
                        **about,
                        "group": group,
                        "metric": metric,
                        **self._number("value", scores[metric], metric),
                        "reference": name,
                        **self._number("lead", lead),
                        "n": stays,
                        "positives": positives,
                    }
                )
            self._summarise(about, cell, reference, metric)

    def _summarise(self, about: dict[str, Any], cell: Cell, reference: Cell | None, metric: str) -> None:
        for (modality, mechanism), steps in _lines(cell).items():
            values = [cell.removed[step][metric] for step in steps]
            rates = [step.rate for step in steps]
            stops = None
            if reference is not None and cell.card.kind == "fusion" and modality == "cxr":
                lead = [cell.removed[step][metric] - reference.removed[step][metric] for step in steps]
                stops = stops_paying(lead, rates)
            self.summary.append(
                {
                    **about,
                    "missing": cell.card.missing if cell.card.kind == "fusion" else None,
                    "modality": modality,
                    "mechanism": mechanism,
                    "metric": metric,
                    **self._number("area", area(values, rates), metric),
                    **self._number("loss", values[0] - values[-1]),
                    "reference": None if reference is None else reference.strategy,
                    **_stops(stops, self.confidence),
                }
            )

    def add_families(self, task: Task, cells: list[Cell]) -> None:
        """Fusion strategies with a mechanism of their own against those without, where images are removed."""
        kinds = list(dict.fromkeys(tuple(cell.kind.values()) for cell in cells))
        for kind in kinds:
            of_kind = [cell for cell in cells if cell.card.kind == "fusion" and tuple(cell.kind.values()) == kind]
            by_family = {name: [c for c in of_kind if c.card.missing == name] for name in ("native", "complete")}
            for metric in metrics_of(task):
                for removal in of_kind[0].removed if of_kind else ():
                    values = {
                        name: _mean([c.removed[removal][metric] for c in each]) for name, each in by_family.items()
                    }
                    first = {
                        name: _mean([c.removed[NOTHING][metric] for c in each]) for name, each in by_family.items()
                    }
                    losses = {name: first[name] - values[name] for name in values}
                    count = {name: len(each) for name, each in by_family.items()}
                    values["difference"] = values["native"] - values["complete"]
                    losses["difference"] = losses["native"] - losses["complete"]
                    count["difference"] = len(of_kind)
                    for family, draws in values.items():
                        loss = None if removal == NOTHING else losses[family]
                        self.families.append(
                            {
                                "task": task.name,
                                **dict(zip(KIND, kind, strict=True)),
                                **removal._asdict(),
                                "metric": metric,
                                "family": family,
                                "strategies": count[family],
                                **self._number("value", draws, None if family == "difference" else metric),
                                **self._number("loss", loss),
                            }
                        )


def _told(cell: Cell) -> dict[str, tuple[str, str | None]]:
    """Stays and positives of each group as a table may tell them: those without an image are of two kinds."""
    (stays, positives), *parts = (cell.counts[group] for group in ("base", *PARTS))
    wholes = [part[0] for part in parts]
    shown = protected(wholes, SUMS)
    found: dict[str, tuple[str, str | None]] = {
        "base": (str(suppressed(stays)), None if positives is None else str(part_of(stays, positives)))
    }
    if positives is None:
        return found | {group: (str(n), None) for group, n in zip(PARTS, shown, strict=True)}
    some = parted(wholes, [part[1] or 0 for part in parts], shown, SUMS)[0]
    return found | {group: (str(n), str(each)) for group, n, each in zip(PARTS, shown, some, strict=True)}


def _mean(draws: list[Floats]) -> Floats:
    """Mean over strategies, [1 + D], of those whose estimate is estimable; NaN of none."""
    known = [each for each in draws if not np.isnan(each[0])]
    return np.mean(known, axis=0) if known else np.full(1, np.nan)


def _lines(cell: Cell) -> dict[tuple[str, str], list[Removal]]:
    """By modality and mechanism the steps of a degradation curve, from nothing to everything removed."""
    found: dict[tuple[str, str], list[Removal]] = {}
    for removal in cell.removed:
        if removal != NOTHING and removal.mechanism != "last_hours":
            found.setdefault((removal.modality, removal.mechanism), [NOTHING]).append(removal)
    return found


def _stops(draws: Floats | None, confidence: float) -> dict[str, Any]:
    """When fusion stops paying: `pays` (no, until, always), the rate, and its interval; empty bounds lie beyond 1.

    The interval is one of order statistics, since a draw may have no such rate.
    """
    nothing = dict.fromkeys(("pays", "stops", "stops_low", "stops_high"))
    if draws is None or np.isnan(draws[0]):
        return nothing
    known = draws[1:][~np.isnan(draws[1:])]
    pays = "no" if draws[0] == 0 else "until" if np.isfinite(draws[0]) else "always"
    found = {"pays": pays, "stops": float(draws[0])}
    tail = (1 - confidence) / 2
    for name, share in (("stops_low", tail), ("stops_high", 1 - tail)):
        found[name] = float(np.quantile(known, share, method="inverted_cdf")) if len(known) else np.inf
    return {key: None if isinstance(value, float) and np.isinf(value) else value for key, value in found.items()}


def robustness(
    data: Path, grid: Grid, training: TrainingScale, probe: ProbeScale, evaluation: Evaluation, draws: int
) -> dict[str, pl.DataFrame]:
    """The tables robustness, robustness_summary, robustness_natural and robustness_families, by name."""
    tasks = [get_task(name) for name in grid.tasks]
    people = read_people(data, tasks, training.folds)
    status = pl.read_parquet(data / "cohort/stays.parquet", columns=["stay_id", "cxr_status"]).with_columns(
        pl.col("stay_id").cast(pl.Int64)
    )
    sampler = Sampler(people, draws, evaluation.seed)
    tables = Tables(evaluation.confidence)
    for task in tasks:
        cells = list(read_cells(data, task, grid, training, probe, people, status, sampler))
        reference = {cohort: reference_of(cells, cohort) for cohort in training.cohorts}
        plain = {(cell.strategy, cell.kind["train_cohort"]): cell for cell in cells if not cell.kind["train_missing"]}
        for cell in cells:
            cohort = cell.kind["train_cohort"]
            whole = plain.get((cell.strategy, cohort)) if cell.kind["train_missing"] else None
            tables.add(task, cell, reference[cohort], whole)
        tables.add_families(task, cells)
    return {
        "robustness": pl.DataFrame(tables.curves, schema=CURVES, orient="row"),
        "robustness_summary": pl.DataFrame(tables.summary, schema=SUMMARY, orient="row"),
        "robustness_natural": pl.DataFrame(tables.natural, schema=NATURAL, orient="row"),
        "robustness_families": pl.DataFrame(tables.families, schema=FAMILIES, orient="row"),
    }
