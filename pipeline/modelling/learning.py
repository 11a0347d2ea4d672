"""What a strategy must be able to learn: signals planted in the record, in the image, and in neither alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.modelling.examples import SMALL, example_batch, pairs, select
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Batch, Epoch, Shapes, Strategy
from pipeline.modelling.optimiser import AdamW, optimiser_groups
from pipeline.modelling.registry import build
from pipeline.tasks import get_task

SIGNALS = ("ehr", "cxr", "xor")  # label k of the phenotypes is what signal k mod 3 says
STEPS, EPOCH = 800, 20
LR = 3e-3  # training's own scale: at 1e-2 some initialisations learn nothing of the image
WARM_UP = 0.1  # share of the steps, as the loop's
FITTED_COPIES = 40  # of the four pairs, where leaves must hold some samples

Labelled = tuple[Batch, Tensor]


class Learned(NamedTuple):
    """`right`: the signals of which all answers are right."""

    model: Strategy
    right: frozenset[str]
    steps: int


def optimiser_of(model: Strategy) -> torch.optim.Optimizer:
    """The loop's groups, at the highest learning rate."""
    return AdamW(optimiser_groups(model, 0.0), lr=LR)


def set_rate(optimiser: torch.optim.Optimizer, lr: float, step: int, steps: int) -> None:
    """The learning rate of a step, which rises linearly over the first WARM_UP of the steps, as the loop's does."""
    for group in optimiser.param_groups:
        group["lr"] = lr * min(1.0, (step + 1) / (WARM_UP * steps))


def take_step(
    model: Strategy, optimiser: torch.optim.Optimizer, batches: Sequence[Labelled]
) -> list[dict[str, Tensor]]:
    """One step on the sum of all batches' losses, as the loop takes it; returns the losses, detached."""
    optimiser.zero_grad()
    found = []
    for batch, targets in batches:
        losses = model.losses(model(batch), batch, targets)
        torch.stack(list(losses.values())).sum().backward()
        found.append({key: value.detach() for key, value in losses.items()})
    model.after_backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return found


def fit(model: Fitted, batches: Sequence[Labelled]) -> None:
    """Fits to the first batch, and chooses by the second."""
    told = [(model.summary(batch).numpy(), targets.numpy()) for batch, targets in batches]
    model.fit(*told[0], *told[1])


def four_pairs(copies: int = 2) -> tuple[Shapes, Batch, Tensor]:
    """Two records and two images in all four pairs, 00, 01, 10, 11, free of noise; labels by SIGNALS."""
    shapes = Shapes(get_task("phenotype"), hours=12, channel_variable=(0, 1, 2, 2), px=16, encoders=SMALL)
    two = example_batch(shapes, 2, torch.ones(2).bool())
    record, image = torch.tensor([0, 0, 1, 1] * copies), torch.tensor([0, 1, 0, 1] * copies)
    return shapes, pairs(two, record, image), by_signal(record, image, shapes)


def by_signal(record: Tensor, image: Tensor, shapes: Shapes) -> Tensor:
    """Labels [B, K] by SIGNALS of what record and image show, each long [B] of 0 and 1."""
    signals = torch.stack([record, image, record ^ image], dim=1).float()
    return signals[:, torch.arange(shapes.outputs) % len(SIGNALS)]


def joint(model: Strategy) -> bool:
    """Whether it must learn what neither modality tells alone."""
    return model.interaction == "joint" and {"ehr", "cxr"} <= model.modalities


def answered(model: Strategy, batch: Batch, targets: Tensor) -> frozenset[str]:
    """The signals of which all answers are right."""
    model.eval()
    with torch.inference_mode():
        correct = (model(batch).logits > 0) == (targets > 0.5)
    return frozenset(signal for k, signal in enumerate(SIGNALS) if bool(correct[:, k :: len(SIGNALS)].all()))


def learned(name: str, hyper: dict[str, Any], seed: int) -> Learned:
    """What the strategy has learned of the four pairs after STEPS steps, or as soon as it has learned what it must.

    One epoch is EPOCH steps; who need not learn the exclusive or is given five.
    """
    shapes, batch, targets = four_pairs()
    torch.manual_seed(seed)
    model = build(name, shapes, hyper)
    if isinstance(model, Fitted):
        _, batch, targets = four_pairs(FITTED_COPIES)
        rows = torch.arange(batch.size)[torch.arange(batch.size) % 7 > 0]  # of unequal pairs a tree's first split gains
        batch, targets = select(batch, rows), targets[rows]
        fit(model, [(batch, targets)] * 2)
        return Learned(model, answered(model, batch, targets), 1)
    wanted = {"ehr", "cxr"} & model.modalities | ({"xor"} if joint(model) else set())
    optimiser = optimiser_of(model)
    for step in range(STEPS + 1):
        if step % EPOCH == 0:
            model.eval()
            with torch.no_grad():
                model.between_epochs(Epoch(step // EPOCH, STEPS // EPOCH, lambda: [(batch, targets)]))
            right = answered(model, batch, targets)
            if right >= wanted and (joint(model) or step >= 5 * EPOCH):
                break
            model.train()
        if step < STEPS:
            set_rate(optimiser, LR, step, STEPS)
            take_step(model, optimiser, [(batch, targets)])
    return Learned(model, right, step)
