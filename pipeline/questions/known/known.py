"""The known-answer tables: on the synthetic hospital, what was planted, what could be found, and what was found.

Two ceilings on the same test stays: the planted probability itself, and an *oracle*, which knows the causes of a label
and sees them as the record and the radiograph show them, noise and all (the columns ehr_* and cxr_* of the truth): a
logistic regression on these, fitted to the fold's training stays of the cohort; for synergistic labels on the product
of the two causes and on its sign. Attainable gain: the oracle of both less that of the modality which fusion was
compared with. A verdict is right if it says gain where the attainable gain is above the margin, and no gain where it is
not; undetermined is neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from pipeline.errors import InputError
from pipeline.estimation.bootstrap import Floats, SubjectDraws
from pipeline.estimation.metrics import rank_metrics
from pipeline.estimation.verdicts import GAIN, NO_GAIN, UNDETERMINED, judged
from pipeline.evaluation.choice import read_card
from pipeline.evaluation.paired import ALL, Draws, macro, scored
from pipeline.evaluation.reading import read_columns, there
from pipeline.evaluation.scores import in_cohort
from pipeline.presentation.tables import Cell
from pipeline.presentation.text import markdown_table, number, with_interval
from pipeline.questions.when.gain import CONFIRMATORY, Source, cells
from pipeline.tasks import Task, get_task

KINDS = ("ehr_only", "cxr_only", "complementary", "synergistic", "redundant", "noise")
METRIC = "auroc"
SEEN = {"ehr": ("ehr",), "cxr": ("cxr",), "both": ("ehr", "cxr")}  # by an oracle
RIGHT, WRONG = "right", "wrong"
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "label", "kind", "strategy", "unimodal"), pl.String),
    "planted": pl.Float64,
    "oracle_unimodal": pl.Float64,
    "oracle_both": pl.Float64,
    "attainable": pl.Float64,
    "found": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "verdict": pl.String,
    "judgement": pl.String,
}
KIND_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("cohort", "kind", "strategy", "unimodal"), pl.String),
    "labels": pl.Int64,
    "attainable": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "equivalence_low": pl.Float64,
    "equivalence_high": pl.Float64,
    "verdict": pl.String,
}


@dataclass(frozen=True)
class Effect:
    """What is planted for a label: its kind, and its causes; `pair` interacts."""

    kind: str
    causes: tuple[str, ...]
    pair: tuple[str, str] | None


@dataclass(frozen=True)
class Truth:
    """The structural model and, a row a stay, its probabilities and what the modalities show."""

    effects: dict[str, Effect]
    planted: pl.DataFrame


def synthetic(data: Path) -> bool:
    """Whether both sources of the manifest are the synthetic hospital, whose truth lies beside them."""
    manifest = json.loads(there(data / "manifest.json").read_text(encoding="utf-8"))
    kinds = [source.get("kind") for source in manifest.values() if isinstance(source, dict)]
    return bool(kinds) and set(kinds) == {"synthetic"}


def read_truth(data: Path, labels: Sequence[str]) -> Truth:
    """The planted truth. Raises InputError where a file, a column or a label is absent."""
    path = there(data / "truth" / "model.json")
    model = json.loads(path.read_text(encoding="utf-8"))
    effects = {}
    for label in labels:
        effect = model["phenotypes"].get(label) or model.get(label)
        if effect is None:
            raise InputError(f"{path}: no {label}")
        pair = effect.get("interaction", {}).get("sign_of_product")
        effects[label] = Effect(effect["kind"], tuple(sorted(effect["causes"])), tuple(pair) if pair else None)
    header = pl.read_parquet_schema(data / "truth" / "planted.parquet")
    shown = [name for name in header if name.startswith(("ehr_", "cxr_"))]
    columns = ["stay_id", *(f"p_{label}" for label in labels), *shown]
    return Truth(effects, read_columns(data / "truth" / "planted.parquet", columns))


def features(people: pl.DataFrame, effect: Effect, seen: Sequence[str]) -> Floats:
    """What the modalities `seen` (ehr, cxr) show of a label's causes, [n, features]; no column: nothing.

    What a radiograph shows is 0, the mean, where there is none. Of a pair that interacts it is the product that counts,
    and its sign: each alone tells nothing.
    """
    image = people["has_cxr"].cast(pl.Float64).to_numpy()
    shown = {
        (modality, cause): people[f"{modality}_{cause}"].to_numpy() * (image if modality == "cxr" else 1.0)
        for modality in seen
        for cause in (*effect.causes, *(effect.pair or ()))
        if f"{modality}_{cause}" in people.columns
    }
    columns = [values for (_, cause), values in shown.items() if cause in effect.causes]
    pair = [values for (_, cause), values in shown.items() if effect.pair and cause in effect.pair]
    if len(pair) == 2:
        columns += [pair[0] * pair[1], np.sign(pair[0] * pair[1])]
    return np.stack(columns, axis=1) if columns else np.zeros((people.height, 0))


def oracle(train: pl.DataFrame, test: pl.DataFrame, label: str, effect: Effect, seen: Sequence[str]) -> Floats:
    """Log-odds for `test`, [n], of a logistic regression on what `seen` shows of the causes; 0: nothing."""
    inputs, truth = features(train, effect, seen), train[label].cast(pl.Int64).to_numpy()
    if not inputs.shape[1] or len(np.unique(truth)) < 2:
        return np.zeros(test.height)
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(inputs, truth)
    return np.asarray(fitted.decision_function(features(test, effect, seen)), dtype=np.float64)


def ceilings(people: pl.DataFrame, truth: Truth, label: str, cohort: str) -> dict[str, float | None]:
    """AUROC on the test stays of a cohort, the mean over folds, of "planted", "ehr", "cxr" and "both"."""
    joined = people.join(truth.planted, on="stay_id", how="left").filter(in_cohort(cohort))
    found: dict[str, list[float]] = {name: [] for name in ("planted", "ehr", "cxr", "both")}
    for fold in joined.sort("fold", "stay_id").partition_by("fold", maintain_order=True):
        train, test = fold.filter(part="train"), fold.filter(part="test")
        scores = {name: oracle(train, test, label, truth.effects[label], seen) for name, seen in SEEN.items()}
        scores["planted"] = test[f"p_{label}"].to_numpy()
        at = np.arange(test.height)
        alone = SubjectDraws(at, (np.ones((test.height, 1)),))
        for name, each in scores.items():
            value = float(rank_metrics(each, test[label].cast(pl.Boolean).to_numpy(), at, alone)[0][0])
            if not np.isnan(value):
                found[name].append(value)
    return {name: float(np.mean(each)) if each else None for name, each in found.items()}


def judgement(verdict: str | None, attainable: float | None, margin: float) -> str | None:
    """Whether a verdict is right, wrong or undetermined; None where there is none."""
    if verdict is None or attainable is None:
        return None
    if verdict not in (GAIN, NO_GAIN):
        return verdict
    return RIGHT if (verdict == GAIN) == (attainable > margin) else WRONG


def known_answers(known: Source, gains: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(by label, by kind): rows a cohort and label of the confirmatory family; rows a cohort, kind and fusion strategy.

    `gains` is gain.csv. Raises InputError where the truth, a cell or a column is missing.
    """
    tasks = [get_task(name) for name in known.grid.tasks if name in ("mortality", "phenotype")]
    truth = read_truth(known.data, [label for task in tasks for label in task.labels])
    rows: list[dict[str, Any]] = []
    for task in tasks:
        for cohort in known.training.cohorts:
            confirmed = gains.filter(task=task.name, cohort=cohort, family=CONFIRMATORY)
            for label in task.labels:
                for row in confirmed.filter(label=label).iter_rows(named=True):
                    rows.append(_answer(known, truth, task, cohort, row))
    by_label = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    kinds = [row for task in tasks if task.name == "phenotype" for row in _by_kind(known, truth, task, gains, by_label)]
    return by_label, pl.DataFrame(kinds, schema=KIND_SCHEMA, orient="row")


def _answer(known: Source, truth: Truth, task: Task, cohort: str, row: dict[str, Any]) -> dict[str, Any]:
    label = row["label"]
    reached = ceilings(known.people, truth, label, cohort)
    (modality,) = read_card(known.data, row["unimodal"]).modalities
    alone, both = reached[modality], reached["both"]
    attainable = None if alone is None or both is None else both - alone
    return {
        **{name: row[name] for name in ("task", "cohort", "label", "strategy", "unimodal", "low", "high", "verdict")},
        "kind": truth.effects[label].kind,
        "planted": reached["planted"],
        "oracle_unimodal": alone,
        "oracle_both": both,
        "attainable": attainable,
        "found": row["difference"],
        "judgement": judgement(row["verdict"], attainable, known.rule.margins.auroc),
    }


def _by_kind(
    known: Source, truth: Truth, task: Task, gains: pl.DataFrame, by_label: pl.DataFrame
) -> Iterator[dict[str, Any]]:
    """The macro mean difference over the phenotypes of a kind, for every fusion strategy."""
    chosen = gains.filter(pl.col("family") == CONFIRMATORY, task=task.name)
    best = dict(chosen.select("cohort", "unimodal").unique().iter_rows())
    members = {kind: [label for label in task.labels if truth.effects[label].kind == kind] for kind in KINDS}
    against: dict[str, Draws] = {}
    for strategy in sorted(set(best.values())):
        against |= {
            cohort: scored(cell.runs, task, ALL)
            for cohort, cell in cells(known, task, strategy)
            if best.get(cohort) == strategy
        }
    found: dict[str, list[dict[str, Any]]] = {cohort: [] for cohort in known.training.cohorts}
    for strategy in known.roles()[1]:
        for cohort, cell in cells(known, task, strategy):
            if cohort not in against:
                continue
            own = scored(cell.runs, task, ALL)
            for kind, labels in members.items():
                if labels:
                    attainable = by_label.filter(cohort=cohort, kind=kind, task=task.name)["attainable"].mean()
                    difference = macro(own, labels, METRIC) - macro(against[cohort], labels, METRIC)
                    found[cohort].append(
                        {
                            **dict(zip(KIND_SCHEMA, (cohort, kind, strategy, best[cohort], len(labels)), strict=False)),
                            "attainable": attainable,
                            **judged(difference, known.rule, True, METRIC),
                        }
                    )
    for rows in found.values():
        yield from sorted(rows, key=lambda row: KINDS.index(row["kind"]))


def nothing_known() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables where the answers are not known."""
    return pl.DataFrame(schema=SCHEMA), pl.DataFrame(schema=KIND_SCHEMA)


def known_markdown(by_label: pl.DataFrame, kinds: pl.DataFrame) -> str:
    """known.md: a table a cohort by label, one by kind, and the shares of right and wrong verdicts."""
    lines = ["# Known answers", ""]
    if not by_label.height:
        return "\n".join([*lines, "Only on the synthetic hospital are the answers known.", ""])
    for cohort in by_label["cohort"].unique(maintain_order=True):
        rows = by_label.filter(cohort=cohort)
        lines += [f"## {cohort.capitalize()} cohort", "", f"{counted(rows)}.", ""]
        header = [
            "Label",
            "Kind",
            "Planted",
            "Oracle, one modality",
            "Oracle, both",
            "Attainable",
            "Found",
            "Verdict",
            "",
        ]
        body = [
            [
                row["label"],
                row["kind"],
                *(number(row[name]) for name in ("planted", "oracle_unimodal", "oracle_both", "attainable")),
                with_interval(row["found"], row["low"], row["high"]),
                row["verdict"] or number(None),
                row["judgement"] or number(None),
            ]
            for row in rows.iter_rows(named=True)
        ]
        lines += [markdown_table(header, body, numbers_from=2)]
        header, of_kinds = kind_grid(kinds, cohort)
        lines += [markdown_table(header, [[row[0], *(each.text for each in row[1])] for row in of_kinds])]
    return "\n".join(lines)


def counted(by_label: pl.DataFrame) -> str:
    """How many verdicts are right, wrong and undetermined, in words."""
    counts = {name: by_label.filter(judgement=name).height for name in (RIGHT, WRONG, UNDETERMINED)}
    total = by_label.height
    return ", ".join(f"{count} of {total} {name}" for name, count in counts.items())


def kind_grid(kinds: pl.DataFrame, cohort: str) -> tuple[list[str], list[tuple[str, list[Cell]]]]:
    """(header, rows): a row a strategy, a column a kind, with the macro mean difference."""
    rows = kinds.filter(cohort=cohort)
    names = rows["kind"].unique(maintain_order=True).to_list()
    found = []
    for strategy in rows["strategy"].unique(maintain_order=True):
        each = {row["kind"]: row for row in rows.filter(strategy=strategy).iter_rows(named=True)}
        found.append(
            (strategy, [Cell(*(each[kind][name] for name in ("difference", "low", "high"))) for kind in names])
        )
    return ["Strategy", *names], found
