"""How the strategies were tuned: budget, choice and expected best score, from what the stage `tune` left.

The curve is the expected best score on dev among k of the n trials (Dodge et al., EMNLP 2019, arXiv 1909.03004), drawn
without replacement, which is unbiased (Tang et al., ACL 2020, arXiv 2004.13705).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import InputError
from pipeline.evaluation.reading import read_table, there
from pipeline.params import Grid, TrainingScale, TuningScale
from pipeline.training.trials import HOURS, TRIALS, TRIALS_SCHEMA

Rows = list[dict[str, Any]]


def tuning(folder: Path, grid: Grid, training: TrainingScale, judged: TuningScale) -> tuple[Rows, Rows]:
    """Rows of tuning.csv and of tuning_curve.csv, from trials.csv and hours.json in `folder`; none without trials.

    The strategies of the grid in its order, then those that they start from. Raises InputError where a file is missing
    or cannot be read, where trials of a strategy are missing, or its hours.
    """
    path = folder / TRIALS
    trials, hours = read_table(path, TRIALS_SCHEMA).sort("strategy", "task", "trial"), _hours(folder / HOURS)
    judges = {"cohorts": "+".join(judged.cohorts), "seeds": len(training.seeds[: judged.seeds])}
    told: Rows = []
    curves: Rows = []
    for task in grid.tasks:
        found = trials.filter(task=task).partition_by("strategy", as_dict=True, maintain_order=True)
        for strategy in dict.fromkeys((*grid.strategies, *(name for (name,) in found))):
            if (strategy,) not in found:
                continue
            rows = found[strategy,].to_dicts()
            chosen = [row for row in rows if row["chosen"]]
            if [row["trial"] for row in rows] != list(range(1, len(rows) + 1)) or len(chosen) != 1:
                raise InputError(f"{path}: {strategy} on {task}: trials are not 1 to {len(rows)}, one of them chosen")
            if task not in hours.get(strategy, {}):
                raise InputError(f"{folder / HOURS}: no hours of {strategy} on {task}")
            key = {"task": task, "strategy": strategy}
            told.append(
                {
                    **key,
                    "trials": len(rows),
                    "default_score": rows[0]["score"],
                    "trial": chosen[0]["trial"],
                    "score": chosen[0]["score"],
                    # the same settings are the same runs, made once
                    "epochs": sum({row["settings"]: row["epochs"] for row in rows}.values()),
                    "hours": float(f"{hours[strategy][task]:.2g}"),
                    "differs": _differs(rows[0]["settings"], chosen[0]["settings"]),
                    **judges,
                }
            )
            curve = enumerate(expected_best([row["score"] for row in rows]), 1)
            curves += [{**key, "k": k, "score": score} for k, score in curve]
    return told, curves


def _hours(path: Path) -> dict[str, dict[str, float]]:
    try:
        found: dict[str, dict[str, float]] = json.loads(there(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    return found


def _differs(default: str, chosen: str) -> str:
    """`lr 0.002, depth 4`: the chosen settings where they are not the default ones; both are JSON of trials.csv."""
    before, after = json.loads(default), json.loads(chosen)
    pairs = [(name, value, before["hyper"].get(name)) for name, value in after["hyper"].items()]
    pairs += [(name, after[name], before[name]) for name in ("dropout", "weight_decay")]
    return ", ".join(f"{name} {value}" for name, value, first in pairs if value != first)


def expected_best(scores: Sequence[float | None]) -> list[float | None]:
    """The expected best of k = 1 … n of the n scores: Σ s₍ᵢ₎ C(i−1, k−1) / C(n, k) over the ascending scores.

    A score that is not estimable (None) is below all others and never chosen; None as long as k may hold no other.
    """
    known, n = sorted(score for score in scores if score is not None), len(scores)
    lost = n - len(known)
    return [
        None
        if k <= lost
        else math.fsum(score * (math.comb(i, k - 1) / math.comb(n, k)) for i, score in enumerate(known, lost))
        for k in range(1, n + 1)
    ]


def budget(table: pl.DataFrame, grid: Grid) -> int | None:
    """The trials that every strategy of the grid had on every task, by tuning.csv: 0 untuned, None if they differ.

    Strategies are tuned, and an order of them means something, only where this is above 0.
    """
    trials = {(row["strategy"], row["task"]): int(row["trials"]) for row in table.iter_rows(named=True)}
    found = {trials.get((strategy, task), 0) for strategy in grid.strategies for task in grid.tasks}
    return found.pop() if len(found) == 1 else None
