"""The ladder: what each thing that a model is told about the image adds to the EHR.

That there is an image is a proxy of era, route of admission and coding; so are its hour, view and number. Rungs: the
EHR alone (the transformer on which the two controls are built); + whether there is an image; + its metadata; + its
pixels (the fusion strategy that validation chose). "The image helps" is said where the pixels beat the metadata. A last
rung shows the same fusion model the images of others: what it loses is what the pixels of the right patient are worth.
It needs the model again, and comes from the probe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats, difference_interval
from pipeline.estimation.randomisation import linear_p
from pipeline.estimation.verdicts import judged
from pipeline.evaluation.cells import read_predictions
from pipeline.evaluation.choice import read_card
from pipeline.evaluation.paired import ALL, Run, runs_of, scored, shares, throws
from pipeline.evaluation.reading import read_columns
from pipeline.evaluation.scores import headline, in_cohort, metric_interval, metrics_of
from pipeline.questions.when.gain import Source, cells, mean_of
from pipeline.tasks import Task, get_task

RUNGS = ("ehr", "presence", "metadata", "pixels", "permuted")
CONTROLS_ARE_BUILT_ON = "transformer"
SWAP_KEY = ["task", "train_cohort", "fold", "seed", "part", "stay_id", "kind", "draw"]
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "label", "metric", "rung", "strategy"), pl.String),
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "against": pl.String,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "equivalence_low": pl.Float64,
    "equivalence_high": pl.Float64,
    "p": pl.Float64,
    "verdict": pl.String,
    "left_out": pl.String,
}


def ladder(known: Source, chosen: pl.DataFrame, passed: dict[tuple[str, str], bool]) -> pl.DataFrame:
    """A row a task, cohort, label, metric and rung, in this order; a rung that is left out has a row with the reason.

    `chosen` is that of `gain.Gain`, `passed` whether the image encoders pass the positive control, by task and cohort.
    `difference` is the rung less the rung `against`, the next lower one that is there (permuted: less pixels). Raises
    InputError as `cells.read_predictions` does, and where a column of the probe is missing.
    """
    rows: list[dict[str, Any]] = []
    for name in known.grid.tasks:
        task = get_task(name)
        for cohort in known.training.cohorts:
            of_cohort = chosen.filter(task=name, cohort=cohort)
            rows += _climb(known, task, cohort, of_cohort, passed.get((name, cohort), False))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def strategies(known: Source, chosen: pl.DataFrame) -> dict[str, str]:
    """The strategy of each rung but the last; no key where the grid has none."""
    looks = {name: read_card(known.data, name).modalities for name in known.grid.strategies}
    alone = {name for name, seen in looks.items() if seen == frozenset({"ehr"})}
    best = (
        chosen.filter(pl.col("strategy").is_in(alone)).drop_nulls("validation").sort("validation", maintain_order=True)
    )
    found = {
        "ehr": [CONTROLS_ARE_BUILT_ON] if CONTROLS_ARE_BUILT_ON in alone else best["strategy"].to_list()[-1:],
        "presence": [name for name, seen in looks.items() if "presence" in seen and not {"metadata", "cxr"} & seen],
        "metadata": [name for name, seen in looks.items() if "metadata" in seen and "cxr" not in seen],
        "pixels": chosen.filter(pl.col("chosen"), role="fusion")["strategy"].to_list(),
    }
    return {rung: names[0] for rung, names in found.items() if names}


def _climb(known: Source, task: Task, cohort: str, chosen: pl.DataFrame, control_passed: bool) -> list[dict[str, Any]]:
    """The rungs of one task and cohort."""
    names = strategies(known, chosen)
    runs: dict[str, tuple[Run, ...]] = {}
    for rung, strategy in names.items():
        runs[rung] = next((cell.runs for at, cell in cells(known, task, strategy) if at == cohort), ())
    draws = {rung: scored(each, task, ALL) for rung, each in runs.items()}
    rows = []
    below: str | None = None
    for rung in RUNGS[:-1]:
        if rung not in runs:
            rows.append(_left_out(task, cohort, rung, "no strategy of the grid is this rung"))
            continue
        p = _p(known, task, runs[rung], runs[below]) if below else {}
        for (label, metric), values in draws[rung].items():
            row = _row(known, task, cohort, label, metric, rung, names[rung], values)
            if below is not None:
                judgement = judged(values - draws[below][label, metric], known.rule, control_passed, metric)
                row |= {"against": below, "p": p.get(label) if metric == metrics_of(task)[0] else None}
                row |= {"difference_low": judgement.pop("low"), "difference_high": judgement.pop("high"), **judgement}
            rows.append(row)
        below = rung
    if "pixels" not in runs:
        return [
            *rows,
            _left_out(task, cohort, "permuted", "there is no fusion strategy whose images could be permuted"),
        ]
    return [*rows, *_permuted(known, task, cohort, names["pixels"])]


def _row(
    known: Source, task: Task, cohort: str, label: str, metric: str, rung: str, strategy: str, values: Floats
) -> dict[str, Any]:
    low, high = metric_interval(metric, values, known.rule.confidence)
    value = None if np.isnan(values[0]) else float(values[0])
    names = dict(zip(list(SCHEMA)[:6], (task.name, cohort, label, metric, rung, strategy), strict=True))
    return {**names, "value": value, "low": low, "high": high}


def _left_out(task: Task, cohort: str, rung: str, reason: str) -> dict[str, Any]:
    names = (task.name, cohort, headline(task), metrics_of(task)[0], rung, None)
    return {**dict(zip(list(SCHEMA)[:6], names, strict=True)), "left_out": reason}


def _p(known: Source, task: Task, a: tuple[Run, ...], b: tuple[Run, ...]) -> dict[str, float]:
    """p of the first metric of a rung against the one below, by label."""
    parts = shares(a, b, task, ALL)
    mean = mean_of(parts, task.labels)
    if mean is None:
        return {}
    parts[headline(task)] = mean
    found = linear_p(np.stack(list(parts.values()), axis=1), throws(a, known.rule.permutations, known.evaluation.seed))
    return dict(zip(parts, map(float, found), strict=True))


def _permuted(known: Source, task: Task, cohort: str, strategy: str) -> list[dict[str, Any]]:
    """The last rung: the mean over the probe's permutations, against the same model unpermuted on the same stays."""
    path = known.data / "probes" / strategy / "swaps.parquet"
    if not path.is_file():
        return [_left_out(task, cohort, "permuted", f"no probe of {strategy}")]
    swaps = read_swaps(path, task, cohort, known.people)
    if not swaps.height:
        return [_left_out(task, cohort, "permuted", f"the probe of {strategy} has no permuted images for this")]
    predictions = read_predictions(known.data, task, strategy, known.training, known.people)
    least = predictions["train_missing"].min()
    full = predictions.filter(train_cohort=cohort, train_missing=least, part="test")
    full = full.join(swaps.select("fold", "seed", "stay_id").unique(), on=["fold", "seed", "stay_id"], how="semi")
    whole = {ALL: pl.lit(True)}
    own = scored(runs_of(full, task, known.sampler, whole), task, ALL)
    each = [
        scored(runs_of(draw, task, known.sampler, whole), task, ALL)
        for draw in swaps.sort("draw", "fold", "seed", "stay_id").partition_by("draw", maintain_order=True)
    ]
    rows = []
    for (label, metric), values in own.items():
        mean = np.mean([draws[label, metric] for draws in each], axis=0)
        row = _row(known, task, cohort, label, metric, "permuted", strategy, mean)
        low, high = difference_interval(mean - values, known.rule.confidence)
        difference = None if np.isnan(mean[0] - values[0]) else float(mean[0] - values[0])
        rows.append(
            {**row, "against": "pixels", "difference": difference, "difference_low": low, "difference_high": high}
        )
    return rows


def read_swaps(path: Path, task: Task, cohort: str, people: pl.DataFrame) -> pl.DataFrame:
    """Predictions of one task and cohort for test stays that saw the image of another, with the people."""
    outputs = [f"p_{name}" for name in task.outputs]
    header = pl.read_parquet_schema(path)
    if any(name not in header for name in outputs):  # the probe did not look at this task
        return pl.DataFrame()
    frame = read_columns(path, [*SWAP_KEY, *outputs]).filter(
        task=task.name, train_cohort=cohort, part="test", kind="cxr_permuted"
    )
    frame = frame.with_columns(pl.col("fold", "seed", "stay_id").cast(pl.Int64), pl.col(outputs).cast(pl.Float64))
    known = people.select("fold", "stay_id", "subject_id", "has_cxr", *task.labels)
    return frame.join(known, on=["fold", "stay_id"]).filter(in_cohort(cohort))
