"""Beside the loop: a strategy that is fitted at once. The same rows, the same history, of one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.data.batches import Batches
from pipeline.data.tensors import FoldTensors
from pipeline.modelling.fitted import Array, Fitted
from pipeline.modelling.losses import prior_logits
from pipeline.tasks import Task
from pipeline.training.grid import RunSpec
from pipeline.training.loop import EVAL_BATCH, rows_of, validate


def fit_once(
    strategy: Fitted,
    data: FoldTensors,
    batches: Batches,
    spec: RunSpec,
    task: Task,
    report: Callable[[int, dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """Fits `strategy` in place and returns its history. Raises InputError where there is nothing to fit to."""
    train, val = rows_of(data, spec, batches.device)
    strategy.set_prior(prior_logits(batches.targets(train), task).to(batches.device))
    removed = torch.from_numpy((data.removed_at < spec.train_missing) | ("cxr" not in strategy.modalities))
    removed = removed.to(batches.device)

    @torch.inference_mode()
    def told(rows: Tensor, removed: Tensor | None = None) -> tuple[Array, Array]:
        parts = [strategy.summary(batches.gather(part, removed)) for part in rows.split(EVAL_BATCH)]
        return torch.cat(parts).cpu().numpy(), batches.targets(rows).cpu().numpy()

    strategy.eval()
    strategy.fit(*told(train, removed), *told(val))
    train_loss = validate(strategy, batches, train, spec, task)["val_loss"]
    found = validate(strategy, batches, val, spec, task)
    known = [key for key in (f"val_{task.monitor}", "val_loss") if found[key] is not None]
    monitor = known[0] if known else "none"
    row = {"epoch": 1, "lr": None, "train_loss": train_loss, **found, "monitor": monitor, "best": True}
    report(1, row)
    return [row]
