"""The one training loop, for every strategy: fit with early stopping on validation, checkpoint and resume, predict.

A run is a pure function of its seed: the order of an epoch, its augmentation and its dropout are drawn from streams
keyed by (seed, epoch), so that a run resumed at any epoch's end equals one made in one go, bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.data.batches import Batches
from pipeline.data.tensors import FoldTensors
from pipeline.errors import InputError
from pipeline.files import atomic
from pipeline.modelling.interface import Batch, Epoch, Strategy, stretch
from pipeline.modelling.losses import prior_logits, probabilities, task_loss
from pipeline.modelling.optimiser import AdamW, optimiser_groups, schedule
from pipeline.params import END_TO_END, Training
from pipeline.tasks import Task
from pipeline.training.augment import augment
from pipeline.training.claim import Stopped
from pipeline.training.grid import RunSpec
from pipeline.training.monitor import monitor_score

EVAL_BATCH = 256
BRANCHES = ("ehr", "cxr")  # names in Output.unimodal of what one modality alone answers


@dataclass
class Progress:
    """Where a run stands; what a checkpoint holds besides the tensors. `score` is the best so far, at epoch `best`."""

    epoch: int
    best: int
    score: float
    history: list[dict[str, Any]]


def stream(*key: int) -> int:
    """A seed for a random stream, from a key of small integers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bf16 autocast where a run's precision is bf16 (pipeline.training.machine)."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def save_checkpoint(
    path: Path, strategy: Strategy, optimiser: torch.optim.Optimizer, best: dict[str, Tensor], progress: Progress
) -> None:
    """Model, optimiser, best weights and progress in one file, written aside and renamed."""
    tensors = {f"model.{key}": value for key, value in strategy.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    with atomic(path) as beside:
        save_file(tensors, beside, metadata={"progress": json.dumps(vars(progress))})


def load_checkpoint(
    path: Path, strategy: Strategy, optimiser: torch.optim.Optimizer, device: torch.device
) -> tuple[dict[str, Tensor], Progress]:
    """Restores strategy and optimiser; returns the best weights and the progress."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        progress = Progress(**json.loads(file.metadata()["progress"]))
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    strategy.load_state_dict(_below("model.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _below("optimiser.", tensors).items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return _below("best.", tensors), progress


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def rows_of(data: FoldTensors, spec: RunSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of the run's training and validation stays. Raises InputError where there is nothing to train on."""
    eligible = data.pictured | (spec.train_cohort == "base")
    train, val = (
        torch.from_numpy(np.flatnonzero(eligible & (data.part == part))).to(device) for part in ("train", "val")
    )
    if len(train) == 0:
        raise InputError(f"{spec.name}: no training stay")
    return train, val


def answers(strategy: Strategy, batches: Batches, rows: Tensor, spec: RunSpec) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits [len(rows), K] in inference mode, float32, in the order of rows; and those of the BRANCHES that it has."""
    strategy.eval()
    found: dict[str, list[Tensor]] = {"": [strategy.prior.new_zeros((0, strategy.shapes.outputs)).float()]}
    with torch.inference_mode(), autocast(batches.device, spec.training.precision):
        for part in rows.split(EVAL_BATCH):
            output = strategy(batches.gather(part))
            for name in ("", *(name for name in BRANCHES if name in output.unimodal)):
                found.setdefault(name, []).append((output.unimodal[name] if name else output.logits).float())
    logits = {name: torch.cat(each) for name, each in found.items()}
    return logits.pop(""), logits


def logits_of(strategy: Strategy, batches: Batches, rows: Tensor, spec: RunSpec) -> Tensor:
    """Logits [len(rows), K] in inference mode, float32, in the order of rows."""
    return answers(strategy, batches, rows, spec)[0]


def validate(strategy: Strategy, batches: Batches, rows: Tensor, spec: RunSpec, task: Task) -> dict[str, float | None]:
    """Validation task loss and the task's monitor; None where it is not estimable.

    The monitor also of what each of BRANCHES answers, over the stays with an image, where both can tell something: how
    the modalities compare, epoch by epoch. None where the strategy has no such branch.
    """
    monitors = [f"val_{task.monitor}{name}" for name in ("", *(f"_{name}" for name in BRANCHES))]
    found: dict[str, float | None] = dict.fromkeys(("val_loss", *monitors))
    if len(rows) == 0:
        return found
    logits, branches = answers(strategy, batches, rows, spec)
    targets = batches.targets(rows)
    found["val_loss"] = float(task_loss(logits, targets, task))
    everybody, with_image = torch.ones_like(rows, dtype=torch.bool), batches.with_image(rows)
    for name, told, where in (("", logits, everybody), *((f"_{b}", told, with_image) for b, told in branches.items())):
        p = probabilities(told[where], task).cpu().numpy()
        found[f"val_{task.monitor}{name}"] = monitor_score(task, targets[where].cpu().numpy(), p)
    return found


def train_step(
    strategy: Strategy,
    optimiser: AdamW,
    batch: Batch,
    targets: Tensor,
    training: Training,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Augments in place pixels that are looked at, steps down the sum of the losses; returns the losses, detached."""
    if "cxr" in strategy.modalities and training.image == END_TO_END:
        batch.images.copy_(augment(batch.images, training.augment, generator))
    with autocast(targets.device, training.precision):
        losses = strategy.losses(strategy(batch), batch, targets)
    optimiser.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    strategy.after_backward()
    optimiser.descend(training.gradient_clip)
    return {name: value.detach() for name, value in losses.items()}


def _drawn(strategy: Strategy, rows: Tensor, spec: RunSpec, epoch: int) -> Tensor:
    """The epoch's training stays, of `rows` [n]. Raises ValueError where the strategy draws more or fewer."""
    drawn = strategy.draw(rows, np.random.default_rng([*spec.luck, epoch]))
    if drawn.shape != rows.shape:
        raise ValueError(f"{spec.strategy}: draw gives {tuple(drawn.shape)} rows of {tuple(rows.shape)}")
    return drawn


def fit(
    strategy: Strategy,
    data: FoldTensors,
    batches: Batches,
    spec: RunSpec,
    task: Task,
    checkpoint: Path,
    report: Callable[[int, dict[str, Any]], None],
    check: Callable[[], None] | None = None,
    stop: Callable[[], bool] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains `strategy` in place, leaves it with its best weights, and returns the history, a row an epoch.

    The best epoch has the highest validation metric; where that is not estimable, the lowest validation task loss;
    where there is no validation stay, or the strategy has steps, it is the last. The history's `monitor` says which.
    `check` is called before each batch and checkpoint, and whatever it raises ends the fit; where `stop` says so
    between epochs, the checkpoint is written and Stopped raised. `after_step` is called with the number of each of the
    strategy's steps when it ends, before a checkpoint is written; once more where a killed run repeats it. Raises
    InputError where there is nothing to train on, the loss is not finite, or there are fewer epochs than steps.
    """
    device, training = batches.device, spec.training
    train, val = rows_of(data, spec, device)
    removed = torch.from_numpy(data.removed_at < spec.train_missing).to(device)
    strategy.set_prior(prior_logits(batches.targets(train), task).to(device))
    optimiser = AdamW(optimiser_groups(strategy, training.weight_decay), lr=spec.hyper["lr"])
    steps_per_epoch = math.ceil(len(train) / spec.batch_size)
    if spec.max_epochs < strategy.steps:
        raise InputError(f"{spec.name}: max_epochs is {spec.max_epochs}, its steps are {strategy.steps}")
    least = training.least_share * spec.max_epochs  # whose image is learned late is not cut off before

    best: dict[str, Tensor] = {}
    progress = Progress(epoch=0, best=0, score=-math.inf, history=[])
    if checkpoint.is_file():
        best, progress = load_checkpoint(checkpoint, strategy, optimiser, device)
    saved, zero = time.monotonic(), torch.zeros((), device=device)

    def between_epochs(done: int) -> None:
        def ready() -> Iterator[tuple[Batch, Tensor]]:
            for rows in train.split(EVAL_BATCH):
                yield batches.gather(rows, removed), batches.targets(rows)

        strategy.eval()
        torch.manual_seed(stream(*spec.luck, done, 3))
        with torch.no_grad(), autocast(device, training.precision):
            strategy.between_epochs(Epoch(done, spec.max_epochs, ready))

    if progress.epoch == 0:
        between_epochs(0)
    for epoch in range(progress.epoch, spec.max_epochs):
        if epoch - progress.best > spec.patience and epoch >= least:
            break
        step, first, end = stretch(epoch, spec.max_epochs, strategy.steps)
        strategy.train()
        torch.manual_seed(stream(*spec.luck, epoch, 1))
        generator = torch.Generator().manual_seed(stream(*spec.luck, epoch, 2))
        totals: dict[str, Tensor] = {}
        for index, rows in enumerate(_drawn(strategy, train, spec, epoch).split(spec.batch_size)):
            if check:
                check()
            place, length = (epoch - first) * steps_per_epoch + index, (end - first) * steps_per_epoch
            factor = schedule(place, length, training.warmup_share)
            for group in optimiser.param_groups:
                group["lr"] = spec.hyper["lr"] * factor
            batch, targets = batches.gather(rows, removed), batches.targets(rows)
            losses = train_step(strategy, optimiser, batch, targets, training, generator)
            share = len(rows) / len(train)
            for name, value in losses.items():
                totals[name] = totals.get(name, zero) + value * share
        between_epochs(epoch + 1)
        train_losses = {f"train_{name}": float(total) for name, total in totals.items()}
        train_losses["train_loss"] = train_losses.pop("train_task")
        found = validate(strategy, batches, val, spec, task)
        for name, number in (*train_losses.items(), ("val_loss", found["val_loss"])):
            if number is not None and not math.isfinite(number):
                raise InputError(
                    f"{spec.name}: {name} is {number} in epoch {epoch + 1}; lower strategies.{spec.strategy}.lr"
                )

        metric, loss = (found[name] if strategy.steps == 1 else None for name in (f"val_{task.monitor}", "val_loss"))
        monitor = f"val_{task.monitor}" if metric is not None else "val_loss" if loss is not None else "none"
        score = metric if metric is not None else -loss if loss is not None else float(epoch)
        if score > progress.score:
            progress.score, progress.best = score, epoch
            best = {key: value.detach().clone() for key, value in strategy.state_dict().items()}
        own = {f"own_{name}": value for name, value in strategy.diagnostics().items()}
        row = {"epoch": epoch + 1, "lr": factor * spec.hyper["lr"], **train_losses, **found, **own, "monitor": monitor}
        progress.history.append(row)
        progress.epoch = epoch + 1
        report(progress.epoch, row)
        if after_step and progress.epoch == end:
            after_step(step)
        stopping = stop is not None and stop()
        if stopping or time.monotonic() - saved >= training.checkpoint_seconds:
            if check:
                check()
            save_checkpoint(checkpoint, strategy, optimiser, best, progress)
            saved = time.monotonic()
        if stopping:
            raise Stopped(f"{spec.name}: stopped after epoch {progress.epoch}")

    strategy.load_state_dict(best)
    return [{**row, "best": row["epoch"] == progress.best + 1} for row in progress.history]
