"""The weights of one run's components on one kind of stay, learned on validation, and their rows in the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from numpy.typing import NDArray

from pipeline.ensembles.search import Floats, Found, Trial, Weights, alone, first_best, greedy, mean, score, tpe
from pipeline.params import Ensemble
from pipeline.tasks import Task

SINGLE, EQUAL = "best_single", "unweighted_mean"
SEARCHES = ("greedy", "tpe")
LINES = (SINGLE, EQUAL, *SEARCHES)  # of ensemble.csv, beside the components
PRESENCES = {"image": True, "no_image": False}  # by has_cxr
ABOUT: dict[str, Any] = {
    "ensemble": pl.String,
    "task": pl.String,
    "cohort": pl.String,
    "fold": pl.Int64,
    "seed": pl.Int64,
    "presence": pl.String,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "ensemble": ABOUT
    | {"component": pl.String, "weight": pl.Float64, "used": pl.Boolean, "metric": pl.String}
    | dict.fromkeys(("validation", "test", "optimism"), pl.Float64)
    | {"stays_validation": pl.String, "stays_test": pl.String},
    "search": ABOUT
    | {"search": pl.String, "trial": pl.Int64, "weights": pl.String, "validation": pl.Float64, "best": pl.Float64},
}


@dataclass(frozen=True)
class Learned:
    """Weights of all components by line (LINES); `used` is the line that predicts."""

    used: str
    lines: dict[str, Weights]
    searches: dict[str, Found]

    @property
    def weights(self) -> Weights:
        """Those that predict."""
        return self.lines[self.used]


def learn(
    task: Task, knobs: Ensemble, truth: NDArray[Any], p: Floats, among: Sequence[int], searches: Sequence[str]
) -> Learned:
    """Weights of the components `among` all, from validation stays: truth [n, labels], p [components, n, outputs].

    `searches`: those to make, `knobs.search` among them. Where nothing is estimable (no stay, or no positive), the
    weights are equal.
    """

    def of(weights: Sequence[int]) -> float | None:
        return score(task, knobs.metric, truth, mean(p, weights))

    equal = tuple(int(i in among) for i in range(len(p)))
    singles = [Trial(weights, of(weights)) for weights in alone(len(p), among)]
    if any(single.score is None for single in singles):
        return Learned(EQUAL, {EQUAL: equal}, {})
    best = sorted(range(len(among)), key=lambda i: -(singles[i].score or 0.0))  # stable: the first of equals
    kept = sorted(among[i] for i in best[: knobs.top or None])
    found: dict[str, Found] = {}
    if "greedy" in searches:
        found["greedy"] = greedy(of, len(p), kept, knobs.trials)
    if "tpe" in searches:
        found["tpe"] = tpe(of, len(p), kept, knobs.trials, knobs.seed)
    lines = {SINGLE: first_best(singles).weights, EQUAL: equal}
    return Learned(knobs.search, lines | {name: each.best.weights for name, each in found.items()}, found)


def weight_rows(
    learned: Learned,
    names: Sequence[str],
    among: Sequence[int],
    task: Task,
    metric: str,
    parts: dict[str, tuple[NDArray[Any], Floats]],
) -> Iterator[dict[str, Any]]:
    """Rows of ensemble.csv: each component alone with its weight, then LINES. `parts`: (truth, p) by part."""
    total = sum(learned.weights)
    shown = [
        (names[i], weights, learned.weights[i] / total)
        for i, weights in zip(among, alone(len(names), among), strict=True)
    ]
    for name, weights, share in [*shown, *((name, weights, None) for name, weights in learned.lines.items())]:
        validation, test = (score(task, metric, truth, mean(p, weights)) for truth, p in parts.values())
        optimism = None if validation is None or test is None else validation - test
        row = {"component": name, "weight": share, "used": name == learned.used, "metric": metric}
        yield row | {"validation": validation, "test": test, "optimism": optimism}


def trial_rows(learned: Learned, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of search.csv: what each search tried, in order, and the best so far."""
    for search, found in learned.searches.items():
        for number in range(1, len(found.trials) + 1):
            weights, validation = found.trials[number - 1]
            text = ", ".join(f"{name} {weight}" for name, weight in zip(names, weights, strict=True) if weight)
            best = first_best(found.trials[:number]).score
            about = {"search": search, "trial": number, "weights": text or "none"}
            yield about | {"validation": validation, "best": best}
