"""The stage `ensemble`: a cell made from the cells of finished strategies, in the very form of a train cell.

Weights are learned run by run (task, cohort, fold, seed, share removed in training), and apart for stays with and
without an image: a component that sees no record answers the prior for the latter, and may have no weight there. The
tables tell of the runs with the least removed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline import files
from pipeline.disclosure import protected
from pipeline.ensembles.search import HEAVIEST, mean
from pipeline.ensembles.weights import PRESENCES, SCHEMAS, SEARCHES, learn, trial_rows, weight_rows
from pipeline.evaluation.cells import TEST, read_people, read_predictions
from pipeline.evaluation.choice import read_card
from pipeline.params import Ensemble, Grid, TrainingScale
from pipeline.tasks import Task, get_task
from pipeline.training.grid import KEY, RunKey

log = logging.getLogger(__name__)

LEARNED, TOLD = "val", "test"
PAPERS = {
    "tpe": "Imrie et al., IEEE Journal of Biomedical and Health Informatics 2025 (arXiv 2407.18227), AutoPrognosis-M, "
    "read in abstract; the weights are after the authors' code.",
    "greedy": "Caruana et al., ICML 2004.",
}

REPRODUCED = (
    "Reproduced by tests: of two components with independent errors both have weight, and the mean tells stays that "
    "chose nothing better than each; weights follow from validation alone. Not reproduced on the synthetic hospital "
    "(demo, 34 searches of TPE, ensemble.csv): that searched weights are better than equal ones (AUPRC, or accuracy of "
    "length of stay, on test 0.005 above the component that validation chose, 0.005 below the plain mean, 0.145 below "
    "what validation promised). Not tried: its search over pipelines and image networks, conformal sets, explanations."
)


def components(grid: Grid, name: str, knobs: Ensemble) -> list[str]:
    """The ensemble's components that are in the grid, by name: their order decides between equals."""
    found = sorted(each for each in knobs.components if each in grid.strategies)
    if left := [each for each in knobs.components if each not in found]:
        log.warning("%s: without %s, which the grid does not train", name, ", ".join(left))
    return found


def make(
    data: Path, grid: Grid, ensembles: Mapping[str, Ensemble], training: TrainingScale, out: Path
) -> dict[str, pl.DataFrame]:
    """Writes out/NAME/card.json and out/NAME/TASK/predictions.parquet of the grid's ensembles; the tables of SCHEMAS.

    Raises InputError as `cells.read_predictions` does.
    """
    tasks = [get_task(name) for name in grid.tasks]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    people = read_people(data, tasks, training.folds) if grid.ensembles else pl.DataFrame()
    out.mkdir(parents=True, exist_ok=True)
    for name in grid.ensembles:
        knobs = ensembles[name]
        names = components(grid, name, knobs)
        looks = {each: read_card(data, each).modalities for each in names}
        for task in tasks:
            log.info("%s %s", name, task.name)
            cells = [read_predictions(data, task, each, training, people) for each in names]
            sees = [i for i, each in enumerate(names) if "ehr" in looks[each]] or list(range(len(names)))
            frame, told = _predict(cells, names, sees, task, knobs)
            files.write_parquet(frame, out / name / task.name / "predictions.parquet")
            for table, found in told.items():
                rows[table] += [{"ensemble": name, "task": task.name, **row} for row in found]
        files.write_json(card(name, knobs, names, frozenset().union(*looks.values())), out / name / "card.json")
    return {name: pl.DataFrame(found, schema=SCHEMAS[name], orient="row") for name, found in rows.items()}


def _predict(
    cells: list[pl.DataFrame], names: list[str], sees: list[int], task: Task, knobs: Ensemble
) -> tuple[pl.DataFrame, dict[str, list[dict[str, Any]]]]:
    """A task's predictions.parquet from the components' `cells`, which have the same rows, and the tables' rows."""
    outputs = [f"p_{name}" for name in task.outputs]
    frame = cells[0].with_row_index("row")
    p = np.stack([cell.select(outputs).to_numpy() for cell in cells])  # [components, rows, outputs]
    truth = frame.select(pl.col(task.labels).cast(pl.Int64)).to_numpy()
    ensembled = np.empty(p.shape[1:])
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    least = dict(frame.group_by("train_cohort").agg(pl.col("train_missing").min()).iter_rows())
    traced: set[str] = set()  # cohorts of training of which search.csv holds a run
    for run in frame.partition_by(KEY, maintain_order=True):
        key = RunKey(*run.select(KEY).row(0))
        shown = key.train_missing == least[key.train_cohort]
        for presence, has_cxr in PRESENCES.items():
            stays = run.filter(has_cxr=has_cxr)
            at = {part: stays.filter(part=part)["row"].to_numpy() for part in (LEARNED, TOLD)}
            among = list(range(len(names))) if has_cxr else sees
            searches = SEARCHES if shown else (knobs.search,)
            learned = learn(task, knobs, truth[at[LEARNED]], p[:, at[LEARNED]], among, searches)
            rows = stays["row"].to_numpy()
            ensembled[rows] = mean(p[:, rows], learned.weights)
            about = {"cohort": key.train_cohort, "fold": key.fold, "seed": key.seed, "presence": presence}
            if shown:
                parts = {part: (truth[where], p[:, where]) for part, where in at.items()}
                found = weight_rows(learned, names, among, task, knobs.metric, parts)
                told["ensemble"] += [about | row | _counts(run, presence) for row in found]
            if shown and key.train_cohort not in traced:
                told["search"] += [about | row for row in trial_rows(learned, names)]
        traced |= {key.train_cohort} if shown else set()
    return _as_cell(frame, pl.DataFrame(ensembled.astype(np.float32), schema=outputs)), told


def _counts(run: pl.DataFrame, presence: str) -> dict[str, str]:
    """Stays of validation and test; the sum of those with and without an image is known."""
    found = {}
    for column, part in (("stays_validation", LEARNED), ("stays_test", TOLD)):
        both = protected([run.filter(part=part, has_cxr=has_cxr).height for has_cxr in PRESENCES.values()], [[0, 1]])
        found[column] = str(both[list(PRESENCES).index(presence)])
    return found


def _as_cell(rows: pl.DataFrame, values: pl.DataFrame) -> pl.DataFrame:
    """The columns, types and order of a train cell's predictions.parquet."""
    present = [pl.lit(value).alias(name) for name, value in TEST.items()]
    frame = rows.select(*KEY, "part", *present, "stay_id").cast({"fold": pl.Int8, "seed": pl.Int32})
    frame = frame.hstack(values)
    return frame.sort([name for name in frame.columns if name not in values.columns])


def card(name: str, knobs: Ensemble, names: list[str], modalities: frozenset[str]) -> dict[str, Any]:
    """card.json: as a train cell's, of a group of its own."""
    searched = (
        f"Optuna's TPE draws {knobs.trials} sets of whole weights, 0 to {HEAVIEST}, each component alone first"
        if knobs.search == "tpe"
        else f"greedy selection with replacement takes in a component in each of {knobs.trials} rounds"
    )
    few = f", of the best {knobs.top} on validation" if knobs.top else ""
    return {
        "name": name,
        "group": "ensemble",
        "summary": "a weighted mean of finished strategies' probabilities, its weights chosen on validation.",
        "entries": {
            "Paper": PAPERS[knobs.search],
            "Idea": f"{', '.join(names)}: {searched}{few}; the mean that scores best on validation predicts, run by "
            "run, one set of weights for all labels.",
            "Missing image": "stays without one have weights of their own, over the components that see the record.",
            "Changed": "components are this benchmark's, trained on equal terms; a search ends after a number of "
            "trials, not after a minute. An ensemble contains what others are compared with: it is scored, but neither "
            "ranked nor a candidate of any verdict, and it has no tuning, cost or probe of its own. " + REPRODUCED,
        },
        "modalities": sorted(modalities),
        "missing": "native",
        "interaction": "joint",
        "needs": names,
        "wraps": "",
    }
