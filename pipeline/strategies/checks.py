"""The contract that every strategy is held to: `check_strategy(name)`. It says in one line what a strategy gets wrong.

Public: a third party runs their own strategy through it. `example_batch` makes the batches, for it and for timing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.params import Encoders
from pipeline.strategies.fitted import Fitted, summary
from pipeline.strategies.interface import CXR, Batch, Epoch, Shapes, Strategy, probabilities
from pipeline.strategies.registry import build
from pipeline.tasks import get_task

PHASES = 12  # epochs that the contract drives a strategy through
SMALL = Encoders(width=16, heads=2, layers=1, dropout=0.1, cnn="narrow", cnn_width=4)


def small_shapes(task: str) -> Shapes:
    """Shapes that make a check take seconds."""
    categories = (10,) * 5 + (11,) * 5
    return Shapes(get_task(task), hours=48, channel_variable=(*range(10), *categories), px=16, encoders=SMALL)


def example_batch(shapes: Shapes, size: int, with_image: Tensor, seed: int = 0) -> Batch:
    """A random batch of `size` samples; `with_image` bool [size] says who has an image."""
    g = torch.Generator().manual_seed(seed)
    sample = torch.nonzero(with_image).squeeze(1)
    hours = (size, shapes.hours)
    ehr = torch.randn(*hours, shapes.channels, generator=g)
    for variable in {v for v, one_hot in zip(shapes.channel_variable, shapes.one_hot, strict=True) if one_hot}:
        entries = [i for i, each in enumerate(shapes.channel_variable) if each == variable]
        charted = torch.randint(len(entries), hours, generator=g)
        ehr[:, :, entries] = nn.functional.one_hot(charted, len(entries)).float()
    return Batch(
        ehr=ehr,
        observed=torch.rand(*hours, shapes.variables, generator=g) < 0.3,
        since=torch.rand(*hours, shapes.variables, generator=g),
        images=torch.rand(len(sample), 1, shapes.px, shapes.px, generator=g),
        image_sample=sample,
        image_hours=torch.rand(len(sample), generator=g),
        image_view=torch.randint(2, (len(sample),), generator=g),
        image_count=torch.randint(1, 5, (len(sample),), generator=g),
        present=torch.stack([torch.ones(size, dtype=torch.bool), with_image], dim=1),
        index=torch.arange(size),
    )


def example_targets(shapes: Shapes, size: int, seed: int = 0) -> Tensor:
    """Random targets [size, labels] of the task."""
    g = torch.Generator().manual_seed(seed)
    if shapes.task.kind == "multiclass":
        return torch.randint(shapes.outputs, (size, 1), generator=g).float()
    return (torch.rand(size, shapes.outputs, generator=g) < 0.4).float()


def select(batch: Batch, rows: Tensor) -> Batch:
    """The batch of some of its samples, in the order of `rows`."""
    place = torch.full((batch.size,), -1)
    place[batch.image_sample] = torch.arange(len(batch.image_sample))
    image = place[rows]
    chosen = image[image >= 0]
    return dataclasses.replace(
        batch,
        ehr=batch.ehr[rows],
        observed=batch.observed[rows],
        since=batch.since[rows],
        images=batch.images[chosen],
        image_sample=torch.nonzero(image >= 0).squeeze(1),
        image_hours=batch.image_hours[chosen],
        image_view=batch.image_view[chosen],
        image_count=batch.image_count[chosen],
        present=batch.present[rows],
        index=batch.index[rows],
    )


def without_record(batch: Batch) -> Batch:
    """The batch with nobody's EHR: medians, nothing observed."""
    present = batch.present.clone()
    present[:, 0] = False
    return dataclasses.replace(
        batch,
        ehr=torch.zeros_like(batch.ehr),
        observed=torch.zeros_like(batch.observed),
        since=torch.ones_like(batch.since),
        present=present,
    )


def without_images(batch: Batch) -> Batch:
    """The batch with nobody's image."""
    present = batch.present.clone()
    present[:, CXR] = False
    none = {key: value[:0] for key, value in vars(batch).items() if key.startswith("image")}
    return dataclasses.replace(batch, **none, present=present)


def _logits(model: Strategy, batch: Batch) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(batch).logits
    return logits


def _require(condition: bool, name: str, message: str) -> None:
    if not condition:
        raise AssertionError(f"{name}: {message}")


def check_strategy(name: str, hyper: dict[str, Any] | None = None) -> None:
    """Holds the strategy to the contract on all three tasks. Raises AssertionError that names what it gets wrong."""
    for task in ("mortality", "phenotype", "los"):
        torch.manual_seed(0)
        model = build(name, small_shapes(task), {"lr": 1e-3, **(hyper or {})})
        model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
        if isinstance(model, Fitted):
            _fit(model)
        _check_finite(model, name)
        _check_inference(model, name)
        _check_modalities(model, name)
        if isinstance(model, Fitted):
            _check_reload(model, name, hyper or {})
        else:
            _check_gradients(model, name)


def _fit(model: Fitted) -> None:
    """Fits to targets that show in the record."""
    batches = [example_batch(model.shapes, 96, torch.zeros(96).bool(), seed) for seed in range(2)]
    targets = [example_targets(model.shapes, 96, seed) for seed in range(2)]
    told = [
        summary(dataclasses.replace(batch, ehr=batch.ehr + target[:, :1, None] - target[:, 0].mean()), model.shapes)
        for batch, target in zip(batches, targets, strict=True)
    ]
    model.fit(told[0].numpy(), targets[0].numpy(), told[1].numpy(), targets[1].numpy())


def _check_reload(model: Fitted, name: str, hyper: dict[str, Any]) -> None:
    """What was fitted lies in the weights: another one answers the same with them."""
    other = build(name, model.shapes, hyper)
    other.load_state_dict(model.state_dict())
    batch = example_batch(model.shapes, 5, torch.zeros(5).bool(), seed=4)
    _require(torch.equal(_logits(model, batch), _logits(other, batch)), name, "does not answer the same when reloaded")


def _check_finite(model: Strategy, name: str) -> None:
    for training in (True, False):
        model.train(training)
        for size in (1, 2, 5):
            for with_image in (torch.zeros(size), torch.ones(size), torch.arange(size) % 2):
                full = example_batch(model.shapes, size, with_image.bool())
                for batch in (full, without_record(full)):
                    logits = model(batch).logits
                    shape = (size, model.shapes.outputs)
                    _require(tuple(logits.shape) == shape, name, f"logits are {tuple(logits.shape)}, must be {shape}")
                    _require(bool(logits.isfinite().all()), name, f"logits of a batch of {size} are not finite")
                    p = probabilities(logits, model.shapes.task)
                    _require(bool(((p >= 0) & (p <= 1)).all()), name, "probabilities leave [0, 1]")


def _check_inference(model: Strategy, name: str) -> None:
    """Predictions do not depend on batch mates or on their order, nor on the random state."""
    model.eval()
    batch = example_batch(model.shapes, 7, torch.tensor([1, 0, 1, 1, 0, 0, 1]).bool(), seed=1)
    whole = _logits(model, batch)
    _require(torch.equal(whole, _logits(model, batch)), name, "two predictions of the same batch differ")
    order = torch.tensor([4, 2, 0, 6, 1, 3, 5])
    close = torch.allclose(_logits(model, select(batch, order)), whole[order], atol=1e-5)
    _require(close, name, "a prediction depends on the order of the batch")
    alone = torch.cat([_logits(model, select(batch, torch.tensor([i]))) for i in range(7)])
    _require(torch.allclose(alone, whole, atol=1e-5), name, "a prediction depends on its batch mates")


def _check_modalities(model: Strategy, name: str) -> None:
    """A present modality matters where the strategy says that it looks at it, and does not where it does not.

    So do, for a strategy that sees no image, that there is one, and what is known of it apart from its pixels.
    """
    model.eval()
    batch = example_batch(model.shapes, 4, torch.ones(4).bool(), seed=2)
    whole = _logits(model, batch)
    other = example_batch(model.shapes, 4, torch.ones(4).bool(), seed=3)
    seen = not torch.equal(whole, _logits(model, dataclasses.replace(batch, images=other.images)))
    _require(seen == ("cxr" in model.modalities), name, f"declared for {set(model.modalities)}, sees images: {seen}")
    swapped = dataclasses.replace(batch, ehr=other.ehr, observed=other.observed, since=other.since)
    seen = not torch.equal(whole, _logits(model, swapped))
    _require(seen == ("ehr" in model.modalities), name, f"declared for {set(model.modalities)}, sees EHR: {seen}")
    if "cxr" not in model.modalities:
        changed = {
            "image_hours": 1 - batch.image_hours,
            "image_view": 1 - batch.image_view,
            "image_count": 1 + batch.image_count,
        }
        for key, value in changed.items():
            seen = not torch.equal(whole, _logits(model, dataclasses.replace(batch, **{key: value})))
            wanted = "metadata" in model.modalities
            _require(seen == wanted, name, f"declared for {set(model.modalities)}, sees {key}: {seen}")
        seen = not torch.equal(whole, _logits(model, without_images(batch)))
        wanted = "presence" in model.modalities
        _require(seen == wanted, name, f"declared for {set(model.modalities)}, sees presence of images: {seen}")


def _check_gradients(model: Strategy, name: str) -> None:
    """Every trainable parameter gets a gradient, with and without images, in one of PHASES epochs at the latest.

    Each epoch ends in one step, so that a strategy which acts on what was learned has something to act on.
    losses() holds `task`, and nothing but finite numbers; forward leaves the batch as it is.
    """
    batches = []
    for seed, with_image in enumerate((torch.arange(8) % 2, torch.ones(8), torch.zeros(8))):
        batch = example_batch(model.shapes, 8, with_image.bool(), seed=seed)
        batches.append((batch, example_targets(model.shapes, 8, seed)))
    bare = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for done in range(PHASES):
        model.eval()
        with torch.no_grad():
            model.between_epochs(Epoch(done, PHASES, lambda: batches))
        model.train()
        model.zero_grad()
        for batch, targets in batches:
            there = batch.present.clone()
            losses = model.losses(model(batch), batch, targets)
            _require("task" in losses, name, "losses() must hold `task`")
            for key, value in losses.items():
                _require(value.ndim == 0 and bool(value.isfinite()), name, f"loss {key} is not one finite number")
            torch.stack(list(losses.values())).sum().backward()
            _require(torch.equal(batch.present, there), name, "forward changed the batch")
        model.after_backward()
        moved = {k for k, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
        bare = [key for key in bare if key not in moved]
        optimiser.step()
    _require(not bare, name, f"parameter {bare[0] if bare else ''} gets no gradient")
