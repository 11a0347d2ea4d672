"""What fusion is worth to somebody who acts on it: net benefit, and risk where the least sure stays are deferred.

Fusion and the better single modality are the sides of the verdicts (contest.py): as validation chose them, label by
label. Differences are paired, over runs, exploratory: nothing is adjusted. Probabilities are taken as they were said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats, average_runs, quotient
from pipeline.estimation.decision import net_benefit
from pipeline.estimation.deferral import COVERAGES, kept, losses
from pipeline.estimation.metrics import weighted_sums
from pipeline.estimation.variance import estimate, macro_runs, moderated
from pipeline.evaluation.paired import ALL, Run
from pipeline.evaluation.scores import MACRO, headline
from pipeline.params import Worth as Knobs
from pipeline.questions.when.contest import Side, read_sides
from pipeline.questions.when.source import ONE_RUN, Source, number, share_tested, strata_told
from pipeline.tasks import Task, get_task

AGAINST = ("single", "all", "none")  # the better single modality; acting on everyone, on no one
RISK, AREA, SAVED = "risk", "area", "saved"
DEFERRED_IMAGE, DEFERRED_OUTCOME = "deferred_with_image", "deferred_with_outcome"
WITH_IMAGE = ("has_cxr", "yes")  # a stratum of the base cohort
ENDS = ("", "_low", "_high")
ABOUT: dict[str, Any] = {"runs": pl.Int64, "note": pl.String, "n": pl.String}
WORTH_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "label"), pl.String),
    "threshold": pl.Float64,
    **dict.fromkeys(("strategy", "single"), pl.String),
    **dict.fromkeys(("value", "single_value", "all_value"), pl.Float64),
    **{f"less_{name}{end}": pl.Float64 for name in AGAINST for end in ENDS},
    **ABOUT,
    "positives": pl.String,
}
DEFER_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "quantity"), pl.String),
    "coverage": pl.Float64,
    **dict.fromkeys(("strategy", "single"), pl.String),
    **{f"{name}{end}": pl.Float64 for name in ("value", "single_value", "difference") for end in ENDS},
    **ABOUT,
}


@dataclass(frozen=True)
class Worth:
    """The tables worth (net benefit by label and threshold) and defer (risk by coverage, and who is deferred)."""

    benefit: pl.DataFrame
    defer: pl.DataFrame


def worth(known: Source, knobs: Knobs) -> Worth:
    """The tables, wherever validation chose both sides. Raises InputError as `cells.read_predictions` does."""
    benefit: list[dict[str, Any]] = []
    defer: list[dict[str, Any]] = []
    for name in known.grid.tasks:
        task = get_task(name)
        for cohort, (_, sides) in read_sides(known, task).items():
            if "fusion" in sides and "single" in sides:
                of = _Compared(known, task, cohort, sides)
                benefit += of.benefit(getattr(knobs.thresholds, name)) if task.kind != "multiclass" else []
                defer += of.defer(knobs.deferred)
    return Worth(
        pl.DataFrame(benefit, schema=WORTH_SCHEMA, orient="row"),
        pl.DataFrame(defer, schema=DEFER_SCHEMA, orient="row"),
    )


class _Compared:
    """Fusion and the better single modality on one task and cohort."""

    def __init__(self, known: Source, task: Task, cohort: str, sides: Mapping[str, Side]) -> None:
        self.task, self.cohort, self.confidence = task, cohort, known.evaluation.confidence
        self.fusion, self.single = sides["fusion"], sides["single"]
        self._folds = [run.fold for run in self.fusion.runs]
        self._test_share = share_tested(known.people, cohort)
        self._told = strata_told(known.people, task, cohort)[ALL]

    def benefit(self, thresholds: Sequence[float]) -> list[dict[str, Any]]:
        """Rows of worth.csv: each label, and the mean over several, at each threshold and (null) their mean."""
        of = {
            "fusion": _benefits(self.fusion.runs, self.task, thresholds),
            "single": _benefits(self.single.runs, self.task, thresholds),
            "all": _benefits(self.fusion.runs, self.task, thresholds, everyone=True),
        }
        of["none"] = {key: np.zeros_like(values) for key, values in of["all"].items()}
        rows = []
        for label, i in of["fusion"]:
            mine = of["fusion"][label, i]
            labels = self.task.labels if label == MACRO else (label,)
            row = {
                "task": self.task.name,
                "cohort": self.cohort,
                "label": label,
                "threshold": None if i is None else thresholds[i],
                "strategy": self.fusion.name(labels),
                "single": self.single.name(labels),
                "n": self._told.n,
                "positives": self._told.positives[label],
            }
            sides = {"value": mine, "single_value": of["single"][label, i], "all_value": of["all"][label, i]}
            row |= {name: number(average_runs(values)[0]) for name, values in sides.items()}
            rows.append((row, {f"less_{name}": mine - of[name][label, i] for name in AGAINST}))
        return self._filled(rows)

    def defer(self, share: float) -> list[dict[str, Any]]:
        """Rows of defer.csv: risk at each coverage, its mean over them, what deferral saves, who is deferred."""
        both = [_deferrals(side.runs, self.task, share) for side in (self.fusion, self.single)]
        labels = self.task.labels if self.task.kind != "multiclass" else (headline(self.task),)
        rows = []
        for quantity, coverage in both[0]:
            mine, theirs = (each[quantity, coverage] for each in both)
            row = {
                "task": self.task.name,
                "cohort": self.cohort,
                "quantity": quantity,
                "coverage": coverage,
                "strategy": self.fusion.name(labels),
                "single": self.single.name(labels),
                "n": self._told.n,
            }
            rows.append((row, {"value": mine, "single_value": theirs, "difference": mine - theirs}))
        return self._filled(rows)

    def _filled(self, rows: Sequence[tuple[dict[str, Any], Mapping[str, Floats]]]) -> list[dict[str, Any]]:
        """The rows with the estimates of their draws [R, 1 + D]; those of a kind tell of luck together."""
        for name in rows[0][1] if rows else ():
            found = self._estimated([draws[name] for _, draws in rows])
            for (row, _), (value, low, high, runs) in zip(rows, found, strict=True):
                row |= {name: number(value), f"{name}_low": low, f"{name}_high": high, "runs": runs}
                row["note"] = ONE_RUN if runs == 1 else None
        return [row for row, _ in rows]

    def _estimated(self, draws: Sequence[Floats]) -> list[tuple[float, float | None, float | None, int]]:
        found = moderated([estimate(each, self._folds, self._test_share) for each in draws])
        return [(each.value, *each.interval(self.confidence), each.runs) for each in found]


def _benefits(
    runs: Sequence[Run], task: Task, thresholds: Sequence[float], *, everyone: bool = False
) -> dict[tuple[str, int | None], Floats]:
    """Net benefit by label (and MACRO of several) and place of the threshold, None for the mean over them: [R, 1 + D].

    `everyone`: of acting on all of them.
    """
    found: dict[tuple[str, int | None], Floats] = {}
    for i, label in enumerate(task.labels):
        each = []
        for run in runs:
            inside = run.inside[ALL]
            p = np.ones(int(inside.sum())) if everyone else run.scores[inside, i]
            each.append(net_benefit(p, run.truth[inside, i] > 0, run.at[inside], run.draws, thresholds))
        values = np.array(each)  # [R, T, 1 + D]
        found |= {(label, place): values[:, place] for place in range(len(thresholds))}
        found[label, None] = values.mean(axis=1)
    if task.kind == "multilabel":
        for place in (*range(len(thresholds)), None):
            found[MACRO, place] = macro_runs(np.array([found[label, place] for label in task.labels]))
    return found


def _deferrals(runs: Sequence[Run], task: Task, share: float) -> dict[tuple[str, float | None], Floats]:
    """[R, 1 + D] by quantity and coverage, null for the mean over COVERAGES.

    RISK: the Brier score of the stays that are kept; AREA: its mean over coverages; SAVED: the risk of all less AREA,
    what deferring the least sure saves against deferring anybody. At coverage 1 − `share`, the share that is deferred
    of the stays with an image (base cohort) and of those with the outcome (one label).
    """
    found: dict[tuple[str, float | None], list[Floats]] = {}
    for run in runs:
        inside = run.inside[ALL]
        p, at = run.scores[inside].astype(np.float64), run.at[inside]
        multiclass = task.kind == "multiclass"
        truth = np.eye(p.shape[1])[run.truth[inside, 0]] if multiclass else run.truth[inside].astype(np.float64)
        loss, expected = losses(p, truth, multiclass)
        groups = {}
        if WITH_IMAGE in run.inside:
            groups[DEFERRED_IMAGE] = run.inside[WITH_IMAGE][inside].astype(np.float64)
        if task.kind == "binary":
            groups[DEFERRED_OUTCOME] = truth[:, 0]
        sums = kept(expected, np.stack([np.ones(len(loss)), loss], axis=1), at, run.draws)
        risks = quotient(sums[1], sums[0])
        for coverage, values in zip(COVERAGES, risks, strict=True):
            found.setdefault((RISK, coverage), []).append(values)
        area = risks.mean(axis=0)
        found.setdefault((AREA, None), []).append(area)
        found.setdefault((SAVED, None), []).append(risks[-1] - area)
        if groups:
            members = np.stack(list(groups.values()), axis=1)
            rest = kept(expected, members, at, run.draws, (1 - share,))[:, 0]
            of_all = weighted_sums(members, at, run.draws)
            for name, staying, everybody in zip(groups, rest, of_all, strict=True):
                found.setdefault((name, round(1 - share, 6)), []).append(1 - quotient(staying, everybody))
    return {key: np.array(values) for key, values in found.items()}
