"""The contract that every strategy is held to: `check_strategy(name)`. It says in one line what a strategy gets wrong.

Public: a third party runs their own strategy through it. One function a point; those that take training are in
learning.py and faint.py, the batches in examples.py.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from pipeline.modelling.examples import example_batch, example_targets, pairs, select, small_shapes
from pipeline.modelling.faint import SAMPLES, SHARE, VARIED, Seen, imputed, measure, seen
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Batch, Epoch, Output, Strategy
from pipeline.modelling.learning import Labelled, fit, joint, learned, optimiser_of, take_step
from pipeline.modelling.losses import probabilities
from pipeline.modelling.optimiser import optimiser_groups
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_images, without_record

TASKS = ("mortality", "phenotype", "los")
PX = 32  # four tokens in the image's grid: attention over a single one is constant, and learns nothing
PHASES = 12  # epochs that the contract drives a strategy through
NOISE = 1e-6  # a gradient this much smaller than the step's largest one is what float32's rounding leaves of zero
FLOOR = -10.0  # no loss lies below it, whatever the weights are
FAINT_SEEDS = (2, 0, 1)  # the one first in which most of those fail that the others find
CLOSE = 1e-5  # how far a sample's logits may move with its batch


def check_strategy(
    name: str,
    hyper: dict[str, Any] | None = None,
    *,
    tasks: Sequence[str] = TASKS,
    faint: bool = True,
    thorough: bool = False,
) -> None:
    """Holds the strategy to the contract on the tasks. Raises AssertionError that names what it gets wrong.

    Seconds, in one thread; half of them are a `faint` image and what is imputed in its place. `thorough` (a minute):
    memory over 200 steps, and learning from three seeds instead of one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for task in tasks:
            model = _check_task(name, task, hyper or {})
        _check_memory(model, name, 200 if thorough else 20)
        for seed in range(3 if thorough else 1):
            _check_learning(name, hyper or {}, seed)
        own_images = "cxr" in model.modalities and not isinstance(model, Fitted)  # which reads by another run's encoder
        if faint and own_images:
            for seed in FAINT_SEEDS if thorough else FAINT_SEEDS[:1]:
                _check_imputed(_check_faint_image(name, hyper or {}, seed), name)
    finally:
        torch.set_num_threads(threads)


def _check_task(name: str, task: str, hyper: dict[str, Any]) -> Strategy:
    """All that needs no more than a few steps; returns the model that took them."""
    torch.manual_seed(0)
    model = build(name, small_shapes(task, PX), hyper)
    told = f"steps is {model.steps!r}: in how many steps it learns, each of them an epoch of {PHASES} at least"
    _require(isinstance(model.steps, int) and 1 <= model.steps <= PHASES, name, told)
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    _check_finite(model, name)
    _check_inference(model, name)
    _check_prior(model, name)
    if isinstance(model, Fitted):
        _fit(model)
        _check_finite(model, name)
    else:
        _check_gradients(model, name)
        _check_bounded(model, name)
    _check_inference(model, name)  # once more, now that there is something to remember
    _check_modalities(model, name)
    _check_hours(model, name)
    _check_additive(model, name)
    fresh = build(name, small_shapes(task, PX), hyper)
    _check_saved(model, fresh, name)
    if not isinstance(model, Fitted):
        _check_resumed(model, fresh, name)
    return model


def _require(condition: bool, name: str, message: str) -> None:
    if not condition:
        raise AssertionError(f"{name}: {message}")


def _logits(model: Strategy, batch: Batch) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(batch).logits
    return logits


def _labelled(model: Strategy) -> list[Labelled]:
    """Batches of 8 with labels: some with an image, all, none."""
    shapes = model.shapes
    return [
        (example_batch(shapes, 8, with_image.bool(), seed), example_targets(shapes, 8, seed))
        for seed, with_image in enumerate((torch.arange(8) % 2, torch.ones(8), torch.zeros(8)))
    ]


def _fit(model: Fitted) -> None:
    """Fits to targets that show in how records rise or fall; of every fourth stay in its image, if that is seen."""
    rise = torch.linspace(-2, 2, model.shapes.hours)[None, :, None]
    pattern = (torch.arange(model.shapes.px) // 2 % 2).float()  # stripes that lie or stand
    told, place = [], torch.arange(96)
    for seed in range(2):
        with_image = torch.full((96,), "cxr" in model.modalities) & (place % 2 == 1)
        batch, targets = example_batch(model.shapes, 96, with_image, seed), example_targets(model.shapes, 96, seed)
        away = (targets[:, :1, None] - targets[:, 0].mean()) * ~(with_image & (place % 4 == 3))[:, None, None]
        stands = torch.where(place % 4 == 3, targets[:, 0] > targets[:, 0].median(), place % 8 == 1)
        stripes = torch.where(stands[batch.image_sample][:, None, None, None], pattern[None, :], pattern[:, None])
        images = (0.2 * batch.images + 0.8 * stripes).expand_as(batch.images)
        told.append((dataclasses.replace(batch, ehr=batch.ehr + rise * away, images=images), targets))
    fit(model, told)


def _check_finite(model: Strategy, name: str) -> None:
    """Logits of the right shape, finite, for every small batch, with and without images and records."""
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
    """Predictions do not depend on batch mates or on their order, nor on the random state; they leave no trace."""
    model.eval()
    before = copy.deepcopy(model.state_dict())
    batch = example_batch(model.shapes, 7, torch.tensor([1, 0, 1, 1, 0, 0, 1]).bool(), seed=1)
    whole = _logits(model, batch)
    _require(torch.equal(whole, _logits(model, batch)), name, "two predictions of the same batch differ")
    order = torch.tensor([4, 2, 0, 6, 1, 3, 5])
    close = torch.allclose(_logits(model, select(batch, order)), whole[order], atol=CLOSE)
    _require(close, name, "a prediction depends on the order of the batch")
    alone = torch.cat([_logits(model, select(batch, torch.tensor([i]))) for i in range(7)])
    _require(torch.allclose(alone, whole, atol=CLOSE), name, "a prediction depends on its batch mates")
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    _require(not changed, name, f"predicting changes {changed[:1]}")


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


def _check_hours(model: Strategy, name: str) -> None:
    """The order of the hours matters to whoever looks at the EHR."""
    if "ehr" not in model.modalities:
        return
    model.eval()
    batch, other = (example_batch(model.shapes, 4, torch.ones(4).bool(), seed) for seed in (5, 6))
    series = ("ehr", "observed", "since")
    turned = dataclasses.replace(batch, **{key: getattr(batch, key).flip(1) for key in series})
    swapped = dataclasses.replace(batch, **{key: getattr(other, key) for key in series})
    whole = _logits(model, batch)
    by_order, by_record = ((_logits(model, each) - whole).abs().max() for each in (turned, swapped))
    _require(bool(by_order > 1e-3 * by_record), name, "the order of the hours does not matter")


def _check_additive(model: Strategy, name: str) -> None:
    """What a record adds does not depend on the image where that is declared, be it to logits or to probabilities."""
    if model.interaction != "additive":
        return
    model.eval()
    two = example_batch(model.shapes, 2, torch.ones(2).bool(), seed=8)
    logits = _logits(model, pairs(two, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])))
    together = [x[0] + x[3] - x[1] - x[2] for x in (logits, probabilities(logits, model.shapes.task))]
    _require(min(float(x.abs().max()) for x in together) < 1e-4, name, "declared additive, its modalities interact")


def _check_prior(model: Strategy, name: str) -> None:
    """What `forward` returns are logits, to which `self.prior` is added: they go where an extreme prior says."""
    model.eval()
    batch, kept = example_batch(model.shapes, 4, torch.tensor([1, 0, 1, 0]).bool()), model.prior.clone()
    extreme = torch.where(torch.arange(len(kept)) % 2 == 0, 50.0, -50.0)
    model.set_prior(extreme)
    logits = _logits(model, batch)
    model.set_prior(kept)
    low = logits[:, extreme < 0].amax(dim=1) if len(kept) > 1 else logits.new_zeros(4)
    apart = bool((logits[:, extreme > 0].amin(dim=1) - low > 1).all())
    _require(apart, name, "logits do not follow self.prior; they may be probabilities")


def _check_gradients(model: Strategy, name: str) -> None:
    """Every trainable parameter gets a gradient, with and without images, in one of PHASES epochs at the latest.

    But those that the strategy says are waiting, as long as it does: these have none at all, not even zeros. Each epoch
    ends in one step, so that a strategy which acts on what was learned has something to act on. All the while, the
    parameters are those in the optimiser's groups, each once. losses() holds `task`, and nothing but finite numbers;
    forward leaves the batch as it is.
    """
    batches = _labelled(model)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    bare = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    optimiser = optimiser_of(model)
    for done in range(PHASES):
        model.eval()
        with torch.no_grad():
            model.between_epochs(Epoch(done, PHASES, lambda: batches))
        model.train()
        there = [batch.present.clone() for batch, _ in batches]
        for losses in take_step(model, optimiser, batches):
            _require("task" in losses, name, "losses() must hold `task`")
            for key, value in losses.items():
                _require(value.ndim == 0 and bool(value.isfinite()), name, f"loss {key} is not one finite number")
        unchanged = all(torch.equal(batch.present, before) for (batch, _), before in zip(batches, there, strict=True))
        _require(unchanged, name, "forward changed the batch")
        asleep = {id(parameter) for parameter in model.waiting()}
        for key, parameter in model.named_parameters():
            awake = id(parameter) not in asleep
            _require(awake or parameter.grad is None, name, f"parameter {key} is said to wait, and has a gradient")
        sizes = {key: float(p.grad.abs().max()) for key, p in model.named_parameters() if p.grad is not None}
        bare = [key for key in bare if sizes.get(key, 0.0) <= NOISE * max(sizes.values())]
        optimised = [id(p) for group in optimiser.param_groups for p in group["params"]]
        for key, parameter in model.named_parameters():
            count = optimised.count(id(parameter))
            message = f"parameter {key} is {count} times in the optimiser"
            _require(count == int(parameter.requires_grad), name, message)
    bare = [key for key in bare if id(model.get_parameter(key)) not in asleep]
    _require(not bare, name, f"parameter {bare[0] if bare else ''} gets no gradient")
    now = {key: value.shape for key, value in model.state_dict().items()}
    grown = [key for key in {**shapes, **now} if shapes.get(key) != now.get(key)]
    _require(not grown, name, f"{grown[:1]} grew or changed its shape; a checkpoint could not be loaded")


def _check_bounded(model: Strategy, name: str) -> None:
    """No loss is pulled to minus infinity, by logits that are sure of the truth or by weights that are large."""
    batch, targets = _labelled(model)[0]
    model.train()
    output: Output = model(batch)
    truth = 2 * targets - 1
    if model.shapes.task.kind == "multiclass":
        truth = 2 * nn.functional.one_hot(targets[:, 0].long(), model.shapes.outputs).float() - 1

    def sure(logits: Tensor) -> Tensor:
        return torch.where(torch.rand(logits.shape) < 0.5, 1e4 * truth, 0.0) if logits.shape == truth.shape else logits

    found = []
    for _ in range(4):
        unimodal = {key: sure(value) for key, value in output.unimodal.items()}
        found.append(dataclasses.replace(output, logits=sure(output.logits), unimodal=unimodal))
    large = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in large.parameters():
            parameter.mul_(30)
    for each, said in (*((model, output) for output in found), (large, large(batch))):
        for key, loss in each.losses(said, batch, targets).items():
            value = float(loss.detach())
            _require(not value < FLOOR, name, f"loss {key} falls to {value:.3g}: not bounded below")


def _check_saved(model: Strategy, fresh: Strategy, name: str) -> None:
    """Whoever loads its parameters and buffers predicts the same bits."""
    try:
        saved = safetensors.save(model.state_dict())
    except (RuntimeError, ValueError) as error:
        raise AssertionError(f"{name}: safetensors cannot hold its state: {' '.join(str(error).split())}") from None
    fresh.load_state_dict(safetensors.load(saved))
    for each in (model, fresh):
        each.eval()
    batch = example_batch(model.shapes, 5, torch.tensor([1, 0, 1, 0, 1]).bool(), seed=7)
    _require(torch.equal(_logits(model, batch), _logits(fresh, batch)), name, "loaded weights predict something else")


def _check_resumed(model: Strategy, fresh: Strategy, name: str) -> None:
    """Training goes on to the same bits in one that has been trained and in one that was loaded."""
    batches = _labelled(model)
    for each in (model, fresh):
        torch.manual_seed(1)
        optimiser = torch.optim.SGD(optimiser_groups(each, 0.0), lr=1e-3)
        each.train()
        take_step(each, optimiser, batches)
        each.eval()
        with torch.no_grad():
            each.between_epochs(Epoch(PHASES, PHASES + 1, lambda: batches))
    went, resumed = model.state_dict(), fresh.state_dict()
    differ = [key for key in went if not torch.equal(went[key], resumed[key])]
    _require(not differ, name, f"resumed training gives another {differ[:1]}: it has a state outside of buffers")


def _tensors() -> tuple[int, int]:
    """Number and bytes of the tensors that Python holds."""
    gc.collect()
    held = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
    return len(held), sum(each.untyped_storage().nbytes() for each in held)


def _check_memory(model: Strategy, name: str, steps: int) -> None:
    """Steps of training and prediction leave no tensors behind."""
    batches = _labelled(model)
    optimiser = None if isinstance(model, Fitted) else optimiser_of(model)

    def go(count: int) -> tuple[int, int]:
        for _ in range(count):
            if optimiser:
                model.train()
                take_step(model, optimiser, batches[:1])
                optimiser.zero_grad()
            model.eval()
            _logits(model, batches[0][0])
        return _tensors()

    before, after = go(2), go(steps)
    _require(
        after[0] <= before[0] and after[1] <= before[1],
        name,
        f"{after[0] - before[0]} more tensors, {after[1] - before[1]} more bytes after {steps} steps",
    )


def _check_learning(name: str, hyper: dict[str, Any], seed: int) -> None:
    """From four pairs of a record and an image: what the record says, what the image says, and their exclusive or.

    The exclusive or is learned by who is declared joint over both, and by nobody else.
    """
    found = learned(name, hyper, seed)
    after = f"({found.steps} steps, seed {seed})"
    for signal in ("ehr", "cxr"):
        wanted = signal in found.model.modalities
        said = "is not learned" if wanted else "is learned, though it is not declared"
        _require((signal in found.right) == wanted, name, f"a signal in {signal} alone {said} {after}")
    wanted = joint(found.model)
    said = "is not learned, though it is declared joint" if wanted else "is learned by a strategy that is not joint"
    _require(("xor" in found.right) == wanted, name, f"the exclusive or of EHR and image {said} {after}")


def _check_faint_image(name: str, hyper: dict[str, Any], seed: int) -> Seen:
    """Of an image that is faint beside a clear record it uses a fair share of what late_fusion does, in as many steps.

    What is used is what it costs in AUROC to exchange the images, of labels that the image alone tells.
    """
    wanted = SHARE * measure(seed)
    found = seen(name, hyper, seed, enough=wanted)
    message = (
        f"its image is starved: {found.use:.3f} of AUROC hang on it, {wanted:.3f} would be {SHARE:g} of late_fusion's"
    )
    _require(found.use >= wanted, name, f"{message} ({found.steps} steps, seed {seed})")
    return found


def _check_imputed(found: Seen, name: str) -> None:
    """Where it tells what it imputes: that varies between patients, as their images do, and goes with their records."""
    if found.imputed is None or found.real is None:
        return
    message = f"imputed images hardly differ: {found.imputed:.2g} over patients, where real ones have {found.real:.2g}"
    _require(found.imputed >= VARIED * found.real, name, message)
    batch, order = without_images(example_batch(found.model.shapes, 5, torch.ones(5).bool())), torch.arange(5).flip(0)
    batch = dataclasses.replace(batch, index=batch.index + SAMPLES)  # nobody that a strategy may remember
    series = {key: getattr(batch, key)[order] for key in ("ehr", "observed", "since")}
    own, other = (imputed(found.model, each) for each in (batch, dataclasses.replace(batch, **series)))
    follows = own is not None and other is not None and torch.allclose(own[order], other, atol=CLOSE)
    _require(follows, name, "imputed images do not go with the records")
