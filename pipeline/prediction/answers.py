"""What a trained run says of new stays: probabilities, as said and calibrated, and beside the run's own thresholds.

Temperature and thresholds are those by which the evaluation judges the run: from the validation stays of its cohort.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from pipeline.data.batches import Batches
from pipeline.data.tensors import Array, FoldTensors
from pipeline.errors import InputError
from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.recalibration import fit_temperature, temper
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.scores import in_cohort, thresholds
from pipeline.modelling.device import pick_device
from pipeline.modelling.encoders import image_format
from pipeline.modelling.interface import Batch, Strategy
from pipeline.modelling.losses import probabilities
from pipeline.prediction.filed import Filed
from pipeline.prediction.inputs import outsiders
from pipeline.tasks import Task, get_task
from pipeline.training.loop import EVAL_BATCH
from pipeline.training.probe import ask
from pipeline.training.run import prepare_torch, untrained


class Judged(NamedTuple):
    """By which a run's probabilities are read: its temperature and, by label, its threshold; None: not estimable."""

    temperature: float | None
    thresholds: Mapping[str, float | None]


def judged(run: Filed, data: Path) -> Judged:
    """From what the run has answered for the validation stays of its cohort. `data`: those it was trained on."""
    spec, task = run.spec, get_task(run.spec.task)
    stored = load_arrays(run.folder / "predictions.safetensors")
    p = {f"p_{name}": pl.Series(stored["p"][:, i]).cast(pl.Float64) for i, name in enumerate(task.outputs)}
    people = read_people(data, [task], [spec.fold])
    validation = (
        people.filter(pl.col("part") == "val", in_cohort(spec.train_cohort))
        .join(pl.DataFrame({"stay_id": stored["stay_id"], **p}), on="stay_id")
        .sort("stay_id")
    )
    said = validation.select(list(p)).to_numpy()
    return Judged(
        fit_temperature(said, _outcomes(validation, task), task.kind == "multiclass"), thresholds(validation, task)
    )


def _outcomes(rows: pl.DataFrame, task: Task) -> Floats:
    """0/1 by output, [n, K]; one-hot for length of stay."""
    if task.kind == "multiclass":
        return np.asarray(np.eye(len(task.outputs))[rows[task.labels[0]].cast(pl.Int64).to_numpy()])
    return rows.select(pl.col(task.labels).cast(pl.Float64)).to_numpy()


def answer(run: Filed, tensors: FoldTensors, data: Path) -> Array:
    """Probabilities float32 [N, K] of the stays in `tensors`. `data`: those the run was trained on.

    Where all stays are there that the run was evaluated on, theirs are those that it has stored, to the bit.
    Raises InputError where the weights do not fit the code that is here.
    """
    prepare_torch()
    spec = run.spec
    device = pick_device(spec.training.device)
    beside, stays = outsiders(data, spec.fold)
    strategy = _restored(run, tensors, stays, device)
    batches = Batches(tensors, device, strategy.modalities, strategy.every_image)
    index = torch.from_numpy(beside).to(device)

    def asked() -> Iterator[Batch]:
        for rows in _in_batches(run, tensors.stay_id):
            part = torch.from_numpy(rows).to(device)
            yield dataclasses.replace(batches.gather(part), index=index[torch.arange(len(part)) % len(index)])

    logits = torch.cat([output.logits.float() for output in ask(strategy, spec, asked(), device)])
    p: Array = np.empty(logits.shape, np.float32)
    p[np.concatenate(_in_batches(run, tensors.stay_id))] = probabilities(logits, get_task(spec.task)).cpu().numpy()
    return p


def _in_batches(run: Filed, stay_id: Array) -> list[Array]:
    """The rows of `stay_id` [N], a batch each: stays that the run has answered for, as it did, then the others.

    A stay's answer does not depend on its batch mates but for the last bits of a float, as the size of a matrix does.
    """
    stored = load_arrays(run.folder / "predictions.safetensors")["stay_id"]
    row = {stay: i for i, stay in enumerate(stay_id.tolist())}
    known = np.array([row[stay] for stay in stored.tolist() if stay in row], np.int64)
    parts = known, np.setdiff1d(np.arange(len(stay_id)), known)
    return [part[start : start + EVAL_BATCH] for part in parts for start in range(0, len(part), EVAL_BATCH)]


def _restored(run: Filed, tensors: FoldTensors, stays: int, device: torch.device) -> Strategy:
    """The run's strategy with its weights, in eval mode. `stays`: of training, whom its buffers may hold."""
    shaped = dataclasses.replace(tensors, stay_id=np.zeros(stays, np.int64))
    strategy = untrained(run.spec, shaped).to(device)
    try:
        strategy.load_state_dict(load_file(run.folder / "weights.safetensors", device=str(device)))
    except RuntimeError as error:
        what = " ".join(str(error).split())[:200]
        raise InputError(f"{run.folder / 'weights.safetensors'}: do not fit the code that is here: {what}") from None
    return strategy.to(memory_format=image_format(run.spec.encoders, device)).eval()


def frame(p: Array, by: Judged, task: Task) -> pl.DataFrame:
    """Columns p_* (as said), calibrated_* (at the temperature) and above_* (p ≥ threshold) of each output.

    Null where temperature or threshold could not be told; length of stay has no thresholds.
    """
    columns = {f"p_{name}": pl.Series(p[:, i]) for i, name in enumerate(task.outputs)}
    said = p.astype(np.float64)
    tempered = None if by.temperature is None else temper(said, by.temperature, task.kind == "multiclass")
    for i, name in enumerate(task.outputs):
        found = [None] * len(p) if tempered is None else tempered[:, i]
        columns[f"calibrated_{name}"] = pl.Series(found, dtype=pl.Float64)
    for i, name in enumerate(task.outputs if by.thresholds else ()):
        cut = by.thresholds[name]
        columns[f"above_{name}"] = pl.Series([None] * len(p) if cut is None else said[:, i] >= cut, dtype=pl.Boolean)
    return pl.DataFrame(columns)
