"""Rows of the three tables of the stage `fairness`, from draws; what is not estimable is null.

groups: a row a strategy and group; groups that are too small have one without a strategy. gaps: a row a strategy,
attribute and metric. fusion: a row a fusion strategy, attribute and metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from pipeline.disclosure import FEW
from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.gaps import (
    ALERT_RATE,
    KEYS,
    ODDS,
    RULES,
    Key,
    behind,
    change_interval,
    gap_interval,
    gaps,
)
from pipeline.estimation.randomisation import holm
from pipeline.evaluation.scores import MACRO, metric_interval
from pipeline.questions.fair.groups import SLOPE, Found, Side
from pipeline.questions.fair.subgroups import SMALL, WHOLE, shown

# The gaps that have a name: equal opportunity is equal sensitivity (the gap in TPR is that in missed diagnoses).
NAMES = {"tpr": "equal_opportunity", "selection_rate": "demographic_parity"}
CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"
LEVEL = 0.05  # of the shuffles' p values, in words on where a gap comes from
GAP_KEYS: tuple[Key, ...] = (
    *(key for key in KEYS if not key[1]),
    *((name, rule) for rule in RULES for name in ("tpr", "fpr", ODDS, "selection_rate")),
)
COLUMNS = {key: "_".join(filter(None, key)) for key in (*KEYS, SLOPE)}
KEY_SCHEMA: dict[str, Any] = dict.fromkeys(("task", "label", "cohort", "strategy", "attribute"), pl.String)
GROUPS_SCHEMA: dict[str, Any] = {
    **KEY_SCHEMA,
    "group": pl.String,
    "stays": pl.String,
    "positives": pl.String,
    "labels": pl.Int64,
    "status": pl.String,
    **{column + suffix: pl.Float64 for column in COLUMNS.values() for suffix in ("", "_low", "_high")},
}
GAPS_SCHEMA: dict[str, Any] = {
    **KEY_SCHEMA,
    "kind": pl.String,
    "chosen": pl.Boolean,
    "metric": pl.String,
    "threshold": pl.String,
    "gap": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "groups": pl.Int64,
    "too_small": pl.Int64,
    "labels": pl.Int64,
    "lowest_group": pl.String,
    "lowest": pl.Float64,
    "highest_group": pl.String,
    "highest": pl.Float64,
    "null_mean": pl.Float64,
    "excess": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "family": pl.String,
    "origin": pl.String,
}
FUSION_SCHEMA: dict[str, Any] = {
    **KEY_SCHEMA,
    "unimodal": pl.String,
    "metric": pl.String,
    "threshold": pl.String,
    "gap": pl.Float64,
    "gap_unimodal": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "finding": pl.String,
}


def known(value: float) -> float | None:
    """NaN as None."""
    return None if np.isnan(value) else float(value)


def _metrics(values: Mapping[Key, Floats], group: int, confidence: float) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key, column in COLUMNS.items():
        draws = values[key][group]
        low, high = metric_interval(key[0].removesuffix("_adjusted"), draws, confidence)
        found |= {column: known(draws[0]), f"{column}_low": low, f"{column}_high": high}
    return found


def group_rows(of: Side, found: Mapping[str, Found], confidence: float) -> list[dict[str, Any]]:
    """Rows of groups: the task's own label, then each phenotype of the strategies that were looked at singly."""
    labels, rows = of.labels, []
    several = len(labels.names) > 1
    for label in (labels.name, *(labels.names if several else ())):
        for grouped in of.groupings:
            if label != labels.name and grouped.crossed:
                continue
            size, name = of.sizes[grouped.name], grouped.name
            place = None if label == MACRO else labels.names.index(label)
            few = size.subjects < FEW
            stays = shown(grouped, size.stays, few)
            positives: list[str | None] = [None] * len(stays)
            if place is not None:
                with_, without = size.positives[:, place], size.negatives[:, place]
                hidden = few | (with_ < FEW) | (without < FEW)
                positives = list(shown(grouped, with_, hidden))
            each: dict[str, tuple[tuple[int, ...], Mapping[Key, Floats]]] = {}
            for strategy, of_strategy in found.items():
                if label == labels.name and name in of_strategy.values:
                    each[strategy] = of_strategy.groups[name], of_strategy.values[name]
                elif label != labels.name and (name, label) in of_strategy.singly:
                    each[strategy] = of_strategy.singly[name, label]
            counted = next((one.labels[name] for one in found.values() if name in one.labels), 0)
            for group, text in enumerate(grouped.groups):
                about: dict[str, Any] = {
                    "task": labels.task.name,
                    "label": label,
                    "cohort": of.cohort,
                    "attribute": name,
                    "group": text,
                    "stays": stays[group],
                    "positives": positives[group],
                }
                inside = {strategy: groups for strategy, (groups, _) in each.items() if group in groups}
                if not inside:
                    rows.append(about | {"status": SMALL})
                for strategy, groups in inside.items():
                    metrics = _metrics(each[strategy][1], groups.index(group), confidence)
                    rows.append(about | {"strategy": strategy, "labels": counted if label == MACRO else None} | metrics)
    return rows


def gap_rows(
    of: Side, found: Mapping[str, Found], kinds: Mapping[str, str], picked: set[str | None], confidence: float
) -> list[dict[str, Any]]:
    """Rows of gaps, without the family and its adjusted p values."""
    rows = []
    for strategy, each in found.items():
        for grouped in of.groupings:
            name = grouped.name
            if name == WHOLE or name not in each.groups or len(grouped.groups) < 2:
                continue
            groups = [grouped.groups[group] for group in each.groups[name]]
            about = {
                "task": of.labels.task.name,
                "label": of.labels.name,
                "cohort": of.cohort,
                "strategy": strategy,
                "attribute": name,
                "kind": kinds[strategy],
                "chosen": strategy in picked,
                "groups": len(groups),
                "too_small": len(grouped.groups) - len(groups),
                "labels": each.labels[name] if of.labels.name == MACRO else None,
            }
            values = each.values.get(name, {})
            wide = gaps(values) if values else {}
            null = each.null.get(name, {})
            if len(groups) < 2 and strategy not in picked:
                continue
            for key in GAP_KEYS if len(groups) > 1 else (("auroc", ""),):
                row = {**about, "metric": NAMES.get(key[0], key[0]), "threshold": key[1] or None}
                if len(groups) > 1 and wide:
                    low, high = gap_interval([values[part] for part in behind(key)], confidence)
                    row |= {"gap": known(wide[key][0]), "low": low, "high": high}
                    if key in values and row["gap"] is not None:
                        at = values[key][:, 0]
                        least, most = int(at.argmin()), int(at.argmax())
                        row |= {"lowest_group": groups[least], "lowest": known(at[least])}
                        row |= {"highest_group": groups[most], "highest": known(at[most])}
                    against = null.get(key)
                    if against is not None:
                        row |= {"null_mean": against.mean, "excess": against.excess, "p": against.p}
                    if key == (ODDS, ALERT_RATE):
                        row["origin"] = origin({part: one.p for part, one in null.items() if one is not None})
                rows.append(row)
    return rows


def origin(p: Mapping[Key, float]) -> str | None:
    """Where a gap comes from, by the shuffles' p values at equal alert rates: rates or scores, and which rate.

    Scores differ where AUROC does; where only rates do, one threshold does not suit all groups.
    """
    rates = {"sensitivity": p.get(("tpr", ALERT_RATE)), "specificity": p.get(("fpr", ALERT_RATE))}
    score = p.get(("auroc", ""))
    if score is None or None in rates.values():
        return None
    sides = [name for name, each in rates.items() if each is not None and each <= LEVEL]
    if score > LEVEL and not sides:
        return "none found"
    return f"{'score' if score <= LEVEL else 'threshold'}: {' and '.join(sides) or 'ranking alone'}"


def declare(rows: list[dict[str, Any]], fusion: Mapping[tuple[str, str], str | None], cohort: str) -> None:
    """Marks the declared family in rows of gaps and adjusts its p values over all tasks, in place.

    `fusion` is the fusion strategy that validation chose, by task and cohort. The family: AUROC by each single
    attribute, in `cohort`; has_cxr in base, since in matched everybody has an image.
    """
    for row in rows:
        at_stake = "base" if row["attribute"] == "has_cxr" else cohort
        declared = (
            row["metric"] == "auroc"
            and "+" not in row["attribute"]
            and row["cohort"] == at_stake
            and row["strategy"] == fusion.get((row["task"], row["cohort"]))
        )
        row["family"] = CONFIRMATORY if declared else EXPLORATORY
    family = [row for row in rows if row["family"] == CONFIRMATORY]
    for row, p in zip(family, holm([row.get("p") for row in family]), strict=True):
        row["p_holm"] = p


def fusion_rows(
    of: Side, found: Mapping[str, Found], kinds: Mapping[str, str], unimodal: str | None, confidence: float
) -> list[dict[str, Any]]:
    """Gap of every fusion strategy less that of `unimodal`, draw by draw."""
    rows: list[dict[str, Any]] = []
    if unimodal is None:
        return rows
    for strategy in (name for name in found if kinds[name] == "fusion"):
        for grouped in of.groupings:
            name = grouped.name
            both = found[strategy].values.get(name), found[unimodal].values.get(name)
            if name == WHOLE or both[0] is None or both[1] is None or len(found[strategy].groups[name]) < 2:
                continue
            mine, theirs = gaps(both[0]), gaps(both[1])
            for key in GAP_KEYS:
                parts = behind(key)
                low, high = change_interval(
                    [both[0][part] for part in parts], [both[1][part] for part in parts], confidence
                )
                finding = None
                if low is not None and high is not None:
                    finding = "wider" if low > 0 else "narrower" if high < 0 else "undetermined"
                rows.append(
                    {
                        "task": of.labels.task.name,
                        "label": of.labels.name,
                        "cohort": of.cohort,
                        "strategy": strategy,
                        "attribute": name,
                        "unimodal": unimodal,
                        "metric": NAMES.get(key[0], key[0]),
                        "threshold": key[1] or None,
                        "gap": known(mine[key][0]),
                        "gap_unimodal": known(theirs[key][0]),
                        "difference": known(mine[key][0] - theirs[key][0]),
                        "low": low,
                        "high": high,
                        "finding": finding,
                    }
                )
    return rows
