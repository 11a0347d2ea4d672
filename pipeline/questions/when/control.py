"""The control: does a strategy use the image at all?

"No relevant gain" tells of images only where the strategy could have shown a gain. Two things are asked of each that
sees pixels. *Its encoder has learned*: a logistic regression on its frozen features tells findings of the
radiology reports (pipeline.training.image_control) better than on those of the same encoder untrained; random filters
tell a good deal already. *Its answer depends on the image*: it scores worse when images are permuted among patients. A
strategy passes where the lower bounds of both differences are above 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.disclosure import suppressed
from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.metrics import rank_metrics
from pipeline.estimation.variance import NOTHING, Estimate, estimate, macro_runs, moderated
from pipeline.evaluation.reading import read_probe
from pipeline.evaluation.scores import Sampler, estimate_interval
from pipeline.questions.when import swaps
from pipeline.questions.when.source import ONE_RUN, Source, number, share_tested
from pipeline.tasks import get_task

ENCODERS = ("trained", "untrained")
BOUNDED = ("", "_low", "_high")
QUANTITIES = ("auroc", "untrained", "difference")
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("finding", "strategy", "task", "train_cohort"), pl.String),
    **{f"{name}{end}": pl.Float64 for name in QUANTITIES for end in BOUNDED},
    "stays": pl.String,
    "runs": pl.Int64,
}
USE_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "strategy"), pl.String),
    **{f"{name}{end}": pl.Float64 for name in ("learned", "cost") for end in BOUNDED},
    "metric": pl.String,
    "passed": pl.Boolean,
    "stays": pl.String,
    "runs": pl.Int64,
    "note": pl.String,
}


class Told(NamedTuple):
    """How well an encoder tells a finding: draws of AUROC by encoder, [R, 1 + D], and what an estimate needs."""

    values: Mapping[str, Floats]
    folds: tuple[int, ...]
    stays: int


def told(scores: pl.DataFrame, people: pl.DataFrame, sampler: Sampler) -> Iterator[tuple[tuple[str, str, str], Told]]:
    """((finding, task, cohort of training), Told) of image_control.parquet; `people`: a row a stay and fold."""
    rows = scores.join(people.select("fold", "stay_id", "subject_id"), on=["fold", "stay_id"], how="left")
    for (finding, task, cohort), of in rows.group_by("finding", "task", "train_cohort", maintain_order=True):
        runs = of.select("fold", "seed").unique().sort("fold", "seed").rows()
        each = of.partition_by("encoder", "fold", "seed", as_dict=True)
        values = {name: np.array([_ranked(each[name, *run], sampler) for run in runs]) for name in ENCODERS}
        folds, stays = tuple(fold for fold, _ in runs), of["stay_id"].n_unique()
        yield (str(finding), str(task), str(cohort)), Told(values, folds, stays)


def _ranked(rows: pl.DataFrame, sampler: Sampler) -> Floats:
    drawn = sampler.subjects("test", rows["fold"][0])
    at = drawn.rows(rows["subject_id"].to_numpy())
    return rank_metrics(rows["score"].to_numpy(), rows["present"].to_numpy(), at, drawn)[0]


def image_control(
    strategies: Iterable[tuple[str, pl.DataFrame]], people: pl.DataFrame, sampler: Sampler, confidence: float
) -> pl.DataFrame:
    """The table image_control: a row a finding, strategy, task and cohort of training, AUROC with interval.

    `strategies`, in the order of the table, with their image_control.parquet (`reading.read_probe`).
    """
    rows = []
    for place, (strategy, scores) in enumerate(strategies):
        for key, each in told(scores, people, sampler):
            row: dict[str, Any] = dict(zip(("finding", "task", "train_cohort"), key, strict=True))
            row["strategy"] = strategy
            share = share_tested(people, key[2])
            trained, untrained = (each.values[name] for name in ENCODERS)
            for name, values in (("auroc", trained), ("untrained", untrained), ("difference", trained - untrained)):
                found = estimate(values, each.folds, share)
                row |= bounded(name, found, confidence, None if name == "difference" else "auroc")
            rows.append(row | {"stays": suppressed(each.stays), "runs": len(each.folds), "place": place})
    table = pl.DataFrame(rows, schema=SCHEMA | {"place": pl.Int64}, orient="row")
    return table.sort("finding", "place", "task", "train_cohort").drop("place")


def bounded(name: str, found: Estimate, confidence: float, metric: str | None = None) -> dict[str, float | None]:
    """name, name_low, name_high of a metric, or of a difference."""
    ends = found.interval(confidence) if metric is None else estimate_interval(metric, found, confidence)
    return dict(zip((f"{name}{end}" for end in BOUNDED), (number(found.value), *ends), strict=True))


def image_use(known: Source) -> pl.DataFrame:
    """The table image_use: of every fusion strategy, by task and cohort, both differences and whether both are there.

    `learned` is the mean over the findings of the trained encoder's AUROC less the untrained one's, `cost` the score of
    the probed pairs less that with images permuted. All strategies' runs tell of luck together (`variance.moderated`).
    Raises InputError where a probe has left nothing.
    """
    rows: list[dict[str, Any]] = []
    both: dict[str, list[Estimate]] = {"learned": [], "cost": []}
    probes = {name: _findings(known, name) for name in known.fusion()}
    for task in map(get_task, known.grid.tasks):
        swapped = {name: swaps.read_swaps(known.data, name, task, known.people) for name in probes}
        for cohort in map(str, known.training.cohorts):
            share = share_tested(known.people, cohort)
            for strategy, found in probes.items():
                row: dict[str, Any] = {
                    "task": task.name,
                    "cohort": cohort,
                    "strategy": strategy,
                    "metric": swaps.metric_of(task),
                }
                cost, stays = NOTHING, None
                if cohort in swapped[strategy]:
                    of = swaps.scored(swapped[strategy][cohort], task, known.sampler)
                    cost = of.estimate(of.values["full"] - of.values["cxr_permuted"], share)
                    stays = suppressed(of.stays)
                both["learned"].append(_learned(found.get((task.name, cohort), []), share))
                both["cost"].append(cost)
                rows.append(row | {"metric": swaps.metric_of(task), "stays": stays})
    pairs = zip(*(moderated(each) for each in both.values()), strict=True)
    for written, pair in zip(rows, pairs, strict=True):
        for name, each in zip(both, pair, strict=True):
            written |= bounded(name, each, known.rule.confidence)
        written["passed"] = all(low is not None and low > 0 for low in (written["learned_low"], written["cost_low"]))
        written["runs"] = max(each.runs for each in pair)
        written["note"] = ONE_RUN if written["runs"] == 1 else None
    return pl.DataFrame(rows, schema=USE_SCHEMA, orient="row")


def _findings(known: Source, strategy: str) -> dict[tuple[str, str], list[Told]]:
    """By task and cohort of training, how well a strategy's encoder tells each finding."""
    found: dict[tuple[str, str], list[Told]] = {}
    for (_, task, cohort), each in told(read_probe(known.data, strategy, "image_control"), known.people, known.sampler):
        found.setdefault((task, cohort), []).append(each)
    return found


def _learned(findings: list[Told], share: float) -> Estimate:
    """What training added to an encoder, the mean over findings; all of them are told of the same runs."""
    if not findings or len({each.folds for each in findings}) > 1:
        return NOTHING
    apart = np.array([each.values["trained"] - each.values["untrained"] for each in findings])
    values = macro_runs(apart) if len(apart) > 1 else apart[0]
    return estimate(values, findings[0].folds, share)


def passed(use: pl.DataFrame, task: str, cohort: str) -> dict[str, bool]:
    """By strategy, whether the control is passed on a task and cohort."""
    return dict(use.filter(task=task, cohort=cohort).select("strategy", "passed").iter_rows())
