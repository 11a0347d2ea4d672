"""Who had the image: the gain of fusion in the target population, beside that of those who happen to have an image.

The matched cohort is not the cohort: an image was taken of some, for reasons. Test stays with an image are weighted by
1 / P(image | record at admission and first hours) (pipeline.evaluation.propensity), and so stand for all test stays of
the base cohort of whom an image could have been taken (Horvitz & Thompson 1952, JASA 47; for multimodal data ICYM2I,
arXiv 2505.16953). That is right where nothing but what the model sees decides both on the image and on the gain; what
an image is taken for and the record does not tell, weights do not mend. Weights beyond the 99th percentile of those of
training stays with an image are cut there (Cole & Hernán 2008, American Journal of Epidemiology 168). They count as
known, which errs to the safe side for the weighted gain (Lunceford & Davidian 2004, Statistics in Medicine 23); not for
how far it lies from the other one, which therefore has no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from pipeline.disclosure import protected
from pipeline.estimation.bootstrap import Floats, SubjectDraws
from pipeline.estimation.variance import Estimate, estimate, moderated
from pipeline.evaluation.paired import ALL, Draws, Run, over_labels, scored
from pipeline.evaluation.propensity import could, first_hours, image_chances, in_part
from pipeline.evaluation.reading import there
from pipeline.evaluation.scores import MACRO, headline, metrics_of
from pipeline.questions.when.contest import AGAINST, Side, read_sides
from pipeline.questions.when.source import ONE_RUN, Source, number, share_tested
from pipeline.tasks import Task, get_task

COHORT = "matched"
MOST = 0.99  # percentile of the weights at which they are cut
QUANTITIES = ("matched", "target")
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "label", "against", "strategy", "opponent", "metric"), pl.String),
    **{f"{name}{end}": pl.Float64 for name in QUANTITIES for end in ("", "_low", "_high")},
    "shift": pl.Float64,
    "runs": pl.Int64,
    "note": pl.String,
    **dict.fromkeys(("n", "population"), pl.String),
    **dict.fromkeys(("effective", "cut", "outside"), pl.Float64),
}


@dataclass(frozen=True)
class Weights:
    """Of one fold: `values` [n] of its test stays with an image, by stay_id, each at least 1.

    `cut` are those that were larger; of the `population` (test stays of whom an image could have been taken) `outside`
    are less likely to have one than nearly all who have.
    """

    values: Floats
    cut: int
    population: int
    outside: int

    @property
    def effective(self) -> float:
        """Kish's sample size: as many equal weights would tell as much."""
        return float(self.values.sum() ** 2 / (self.values**2).sum())


def image_weights(known: Source) -> dict[int, Weights]:
    """By fold; {} where the training stays of one allow no model, or nobody tested has an image.

    Raises InputError where data/series/hourly.parquet is absent.
    """
    stays = pl.read_parquet(there(known.data / "cohort" / "stays.parquet")).sort("stay_id")
    splits = pl.read_parquet(there(known.data / "splits.parquet"))
    has_cxr, record = stays["has_cxr"].to_numpy(), first_hours(known.data, stays)
    found = {}
    for fold in known.training.folds:
        train, test = (in_part(stays, splits, fold, part) for part in ("train", "test"))
        chance = image_chances(stays, train, record)
        if chance is None or not (test & has_cxr).any():
            return {}
        most = float(np.quantile(1 / chance[train & has_cxr], MOST))
        own, everyone = 1 / chance[test & has_cxr], 1 / chance[test & could(stays)]
        found[fold] = Weights(
            np.minimum(own, most), int((own > most).sum()), len(everyone), int((everyone > most).sum())
        )
    return found


def weighted(run: Run, weights: Floats) -> Run:
    """The run whose stays count by `weights` [n] in the sample and in every draw."""
    blocks = tuple(block[run.at] * weights[:, None] for block in run.draws.blocks)
    places = np.arange(len(weights))
    return replace(run, at=places, draws=SubjectDraws(places, blocks))


def target(known: Source) -> pl.DataFrame:
    """target.csv: by task, label and opponent, fusion's gain among those with an image, in the population, and apart.

    All strategies are those that validation chose in the matched cohort. Empty where it was not trained on, or where
    there are no weights.
    """
    weights = image_weights(known) if COHORT in known.training.cohorts else {}
    rows: list[dict[str, Any]] = []
    for task in (get_task(name) for name in known.grid.tasks) if weights else ():
        sides = read_sides(known, task)[COHORT][1]
        if {"fusion", "single"} <= set(sides):
            rows += _of_task(known, task, sides, weights)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _of_task(
    known: Source, task: Task, sides: Mapping[str, Side], weights: Mapping[int, Weights]
) -> list[dict[str, Any]]:
    folds = [run.fold for run in sides["fusion"].runs]
    share, metric = share_tested(known.people, COHORT), metrics_of(task)[0]
    plain = {role: scored(each.runs, task, ALL) for role, each in sides.items()}
    heavy = {
        role: scored([weighted(run, weights[run.fold].values) for run in each.runs], task, ALL)
        for role, each in sides.items()
    }
    asked: dict[str, Sequence[str]] = {MACRO: task.labels} if task.kind == "multilabel" else {}
    asked |= {label: (label,) for label in (task.labels if task.kind != "multiclass" else (headline(task),))}
    about = _about(weights)
    rows, estimates = [], []
    for label, of in asked.items():
        for against in AGAINST:
            matched, wanted = (_less(draws, against, of, metric) for draws in (plain, heavy))
            values = zip(QUANTITIES, (matched, wanted), strict=True)
            estimates.append({name: estimate(each, folds, share) for name, each in values})
            names = (task.name, label, against, sides["fusion"].name(of), sides[against].name(of), metric)
            shift = number(estimates[-1]["target"].value - estimates[-1]["matched"].value)
            rows.append(dict(zip(list(SCHEMA)[:6], names, strict=True)) | about | {"shift": shift})
    for name in QUANTITIES:
        told: list[Estimate] = moderated([each[name] for each in estimates])
        for row, found in zip(rows, told, strict=True):
            low, high = found.interval(known.rule.confidence)
            row |= {name: number(found.value), f"{name}_low": low, f"{name}_high": high}
            row |= {"runs": found.runs, "note": ONE_RUN if found.one_run else None}
    return rows


def _less(draws: Mapping[str, Draws], against: str, of: Sequence[str], metric: str) -> Floats:
    return over_labels(draws["fusion"], of, metric) - over_labels(draws[against], of, metric)


def _about(weights: Mapping[int, Weights]) -> dict[str, Any]:
    """Stays over all folds, as pipeline.disclosure lets them be told; shares of those that weigh and stand for."""
    n = sum(len(each.values) for each in weights.values())
    population = sum(each.population for each in weights.values())
    shown = protected([n, population - n], [range(2)])
    return {
        "n": str(shown[0]),
        "population": str(population if shown[0] == n else shown[0]),
        "effective": float(sum(each.effective for each in weights.values())),
        "cut": sum(each.cut for each in weights.values()) / n,
        "outside": sum(each.outside for each in weights.values()) / population,
    }
