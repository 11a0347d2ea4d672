"""The known-answer tables: on the synthetic hospital, what was planted, what could be found, and what was found.

Two ceilings on the same test stays: the planted probability itself, and an *oracle*, which knows the causes of a label
and sees them as the record and the radiograph show them, noise and all (the columns ehr_* and cxr_* of the truth), and
all else that the drawing depends on: whether there is an image, whose sex weakens what it shows, and, where traps make
view or presence tell of a label, these. It is a logistic regression of the planted probability on these, fitted to the
fold's training stays of the cohort; for synergistic labels on the product of the two causes and on its sign. Attainable
gain: the oracle of both less the better one of a single modality, at least 0, since who sees both may ignore one.

Of length of stay it is accuracy that is attainable (pipeline.questions.known.stay); it has a row, and is in no count of
labels. What a verdict says of gains is right or wrong by what is attainable: "gains" where anything is, "gains by more
than the margin" where more than it is, "no relevant gain" and "equivalent" where no more is. The other words say
nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from pipeline.estimation.bootstrap import Floats, SubjectDraws
from pipeline.estimation.metrics import rank_metrics
from pipeline.estimation.variance import Estimate, estimate, moderated
from pipeline.estimation.verdicts import EQUIVALENT, GAINS, NO_RELEVANT_GAIN, WORDS
from pipeline.evaluation.choice import read_card
from pipeline.evaluation.paired import ALL, over_labels, scored
from pipeline.evaluation.scores import in_cohort
from pipeline.presentation.tables import Cell
from pipeline.presentation.text import joined, plural
from pipeline.questions.known import stay
from pipeline.questions.known.rules import StrategyDraws, counted_rules, usual_rules
from pipeline.questions.known.truth import SEEN, STAY, Effect, Truth, features, read_truth
from pipeline.questions.when.contest import CONFIRMATORY, Side, read_sides
from pipeline.questions.when.information import TITLES
from pipeline.questions.when.source import ONE_RUN, Source, cells, share_tested
from pipeline.questions.when.source import number as finite
from pipeline.tasks import Task, get_task

KINDS = tuple(TITLES)
METRIC = "auroc"
RIGHT, WRONG = "right", "wrong"
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "label", "kind", "named", "strategy", "ehr", "image"), pl.String),
    **dict.fromkeys(("planted", "oracle_ehr", "oracle_image", "oracle_both", "attainable"), pl.Float64),
    **dict.fromkeys(("found", "low", "high"), pl.Float64),
    "verdict": pl.String,
    "beyond": pl.Boolean,
    "judgement": pl.String,
    "note": pl.String,
}
KIND_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("cohort", "kind", "strategy"), pl.String),
    "chosen": pl.Boolean,
    "labels": pl.Int64,
    **dict.fromkeys(("attainable", "difference", "low", "high"), pl.Float64),
    "runs": pl.Int64,
    "note": pl.String,
}


def oracle(train: pl.DataFrame, test: pl.DataFrame, label: str, effect: Effect, seen: Sequence[str]) -> Floats:
    """Log-odds for `test`, [n], of a logistic regression on what `seen` shows of a label; 0: nothing.

    It is fitted to the planted probabilities, each stay counting as both outcomes: their coin flips teach nothing.
    """
    inputs, p = features(train, effect, seen), train[f"p_{label}"].to_numpy()
    if not inputs.shape[1] or not len(inputs):
        return np.zeros(test.height)
    outcome = np.repeat([1, 0], len(p))
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(
        np.concatenate([inputs, inputs]), outcome, np.concatenate([p, 1 - p])
    )
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


def judgement(verdict: str | None, beyond: bool | None, attainable: float | None, margin: float) -> str | None:
    """Whether what a verdict says of gains is right or wrong; its own word where it says nothing of them."""
    if verdict is None or attainable is None:
        return None
    if verdict == GAINS:
        return RIGHT if attainable > (margin if beyond else 0) else WRONG
    if verdict in (NO_RELEVANT_GAIN, EQUIVALENT):
        return RIGHT if attainable <= margin else WRONG
    return verdict


@dataclass(frozen=True)
class Answers:
    """The tables known (by label), known_kinds and known_rules; empty where the answers are not known."""

    by_label: pl.DataFrame
    kinds: pl.DataFrame
    rules: pl.DataFrame


def known_answers(known: Source, gains: pl.DataFrame, information: pl.DataFrame) -> Answers:
    """Rows a cohort and label of the confirmatory family; a cohort, kind and fusion strategy; a cohort and rule.

    `gains` is gain.csv, `information` information.csv, whose kind of a label is `named`. Raises InputError where the
    truth, a cell or a column is missing.
    """
    tasks = [get_task(name) for name in known.grid.tasks if name in ("mortality", "phenotype")]
    stays = [STAY] if STAY in known.grid.tasks else []
    truth = read_truth(known.data, [*(label for task in tasks for label in task.labels), *stays])
    kinds_named = {row[:3]: row[3] for row in information.select("task", "cohort", "label", "kind").iter_rows()}
    rows: list[dict[str, Any]] = []
    kinds: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for task in tasks:
        sides = read_sides(known, task)
        for cohort in known.training.cohorts:
            confirmed = gains.filter(task=task.name, cohort=cohort, family=CONFIRMATORY)
            answers = [
                _answer(known, row, truth.effects[label], ceilings(known.people, truth, label, cohort), METRIC)
                | {"named": kinds_named.get((task.name, str(cohort), label))}
                for label in task.labels
                for row in confirmed.filter(label=label).iter_rows(named=True)
            ]
            rows += answers
            if not answers:
                continue
            _, chosen = sides[str(cohort)]
            if "single" not in chosen or "fusion" not in chosen:  # validation could score nobody
                continue
            draws = _draws(known, task, str(cohort))
            if task.name == "phenotype":
                kinds += _by_kind(known, truth, task, str(cohort), draws, chosen, answers)
            said += usual_rules(known, task, str(cohort), draws, answers)
    for row in gains.filter(task=STAY, family=CONFIRMATORY).iter_rows(named=True) if stays else ():
        reached = stay.ceilings(known.people, truth, row["cohort"])
        rows.append(_answer(known, row, truth.effects[STAY], reached, stay.METRIC))
    return Answers(
        pl.DataFrame(rows, schema=SCHEMA, orient="row"),
        pl.DataFrame(kinds, schema=KIND_SCHEMA, orient="row"),
        counted_rules(said),
    )


def _draws(known: Source, task: Task, cohort: str) -> dict[str, StrategyDraws]:
    """Draws of AUROC of every strategy that looks at the record alone, the image alone, or both, by label."""
    found = {}
    for name in known.grid.strategies:
        if read_card(known.data, name).kind == "control":
            continue
        cell = next(cell for at, cell in cells(known, task, name) if at == cohort)
        scores = scored(cell.runs, task, ALL)
        of = {label: scores[label, METRIC] for label in task.labels}
        runs = tuple((run.fold, run.seed) for run in cell.runs)
        found[name] = StrategyDraws(read_card(known.data, name).kind, cell.validation, runs, of)
    return found


def _answer(
    known: Source, row: dict[str, Any], effect: Effect, reached: Mapping[str, float | None], metric: str
) -> dict[str, Any]:
    """A row of known.csv: of gain.csv, and what is `reached` by the planted model and the oracles."""
    ehr, image, both = (reached[name] for name in ("ehr", "cxr", "both"))
    attainable = None if ehr is None or image is None or both is None else max(0.0, both - max(ehr, image))
    copied = ("task", "cohort", "label", "strategy", "ehr", "image", "low", "high", "verdict", "beyond", "note")
    return {
        **{name: row[name] for name in copied},
        "kind": effect.kind,
        "planted": reached["planted"],
        "oracle_ehr": ehr,
        "oracle_image": image,
        "oracle_both": both,
        "attainable": attainable,
        "found": row["difference"],
        "judgement": judgement(row["verdict"], row["beyond"], attainable, known.rule.margin(metric)),
    }


def _by_kind(
    known: Source,
    truth: Truth,
    task: Task,
    cohort: str,
    draws: Mapping[str, StrategyDraws],
    chosen: Mapping[str, Side],
    answers: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The macro mean difference to the better modality over the phenotypes of a kind: chosen by label, then each."""
    share = share_tested(known.people, cohort)
    fusion = {name: each for name, each in draws.items() if each.kind == "fusion"}
    rows: list[dict[str, Any]] = []
    found: list[Estimate] = []
    for kind in KINDS:
        labels = [label for label in task.labels if truth.effects[label].kind == kind]
        if not labels:
            continue
        attainable = [row["attainable"] for row in answers if row["label"] in labels and row["attainable"] is not None]
        single = _of(draws, chosen["single"].choice, labels)
        own = {(chosen["fusion"].name(labels), True): {label: chosen["fusion"].choice[label] for label in labels}}
        own |= {(name, False): dict.fromkeys(labels, name) for name in fusion}
        for (name, picked), choice in own.items():
            values = _of(draws, choice, labels) - single
            folds = [fold for fold, _ in draws[choice[labels[0]]].runs]
            row = {"cohort": cohort, "kind": kind, "strategy": name, "chosen": picked, "labels": len(labels)}
            rows.append(row | {"attainable": float(np.mean(attainable)) if attainable else None})
            found.append(estimate(values, folds, share))
    for row, each in zip(rows, moderated(found), strict=True):
        low, high = each.interval(known.rule.confidence)
        row |= {"difference": finite(each.value), "low": low, "high": high}
        row |= {"runs": each.runs, "note": ONE_RUN if each.one_run else None}
    return rows


def _of(draws: Mapping[str, StrategyDraws], choice: Mapping[str, str], labels: Sequence[str]) -> Floats:
    """The mean over labels, [R, 1 + D], each of the strategy of the choice."""
    return over_labels({(label, METRIC): draws[choice[label]].values[label] for label in labels}, labels, METRIC)


def nothing_known() -> Answers:
    """The tables where the answers are not known."""
    return Answers(pl.DataFrame(schema=SCHEMA), pl.DataFrame(schema=KIND_SCHEMA), counted_rules([]))


def single_labels(by_label: pl.DataFrame) -> pl.DataFrame:
    """The rows but those of length of stay."""
    return by_label.filter(pl.col("task") != STAY)


def counted(by_label: pl.DataFrame) -> str:
    """How many verdicts are right, wrong, or say nothing of what can be gained: 2 right and 1 “undetermined”."""
    words = {word: by_label.filter(judgement=word).height for word in (RIGHT, WRONG, *WORDS)}
    parts = [f"{count} {f'“{word}”' if word in WORDS else word}" for word, count in words.items() if count]
    unjudged = by_label["judgement"].null_count()
    return joined([*parts, *([f"{unjudged} without a judgement"] if unjudged else [])])


def kinds_right(by_label: pl.DataFrame) -> str:
    """Of how many phenotypes information names the planted kind, in words, cohort by cohort."""
    rows = by_label.filter(task="phenotype")
    parts = []
    for cohort in rows["cohort"].unique(maintain_order=True):
        of = rows.filter(cohort=cohort)
        right, asked = of.filter(pl.col("named") == pl.col("kind")).height, of["named"].is_not_null().sum()
        parts.append(f"{right} of {plural(of.height, 'phenotype')} in the {cohort} cohort ({asked} testable)")
    return "; ".join(parts)


def kind_grid(kinds: pl.DataFrame, cohort: str) -> tuple[list[str], list[tuple[str, list[Cell]]]]:
    """(header, rows): the chosen fusion strategy, then a row a strategy, a column a kind: macro mean differences."""
    rows = kinds.filter(cohort=cohort)
    names = rows["kind"].unique(maintain_order=True).to_list()
    found = []
    chosen = {row["kind"]: row for row in rows.filter("chosen").iter_rows(named=True)}
    each = {"chosen by label": chosen} if chosen else {}
    for strategy in rows.filter(~pl.col("chosen"))["strategy"].unique(maintain_order=True):
        own = rows.filter(~pl.col("chosen"), strategy=strategy)
        each[strategy] = {row["kind"]: row for row in own.iter_rows(named=True)}
    for strategy, of in each.items():
        found.append((strategy, [Cell(*(of[kind][name] for name in ("difference", "low", "high"))) for kind in names]))
    return ["Strategy", *names], found
