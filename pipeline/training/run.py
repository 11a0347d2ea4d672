"""One run, from its spec to its files in the run store. Workers import this module; it and what is below use torch."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.inputs import HOURS, channel_variables
from pipeline.data.statics import model_variables
from pipeline.data.tensors import FoldTensors, load_fold
from pipeline.errors import InputError
from pipeline.modelling.device import pick_device
from pipeline.modelling.encoders import ImageEncoder, image_format, start_encoders
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Earlier, Shapes, Strategy
from pipeline.modelling.losses import probabilities
from pipeline.modelling.registry import build
from pipeline.params import END_TO_END
from pipeline.tasks import get_task
from pipeline.training.claim import Claim, LeaseLost
from pipeline.training.fitting import fit_once
from pipeline.training.grid import RunSpec
from pipeline.training.loop import fit, logits_of, stream
from pipeline.training.store import CHECKPOINT, STEPS, Store

log = logging.getLogger("train")
Array = npt.NDArray[Any]
Report = Callable[[int, dict[str, Any]], None]
Stop = Callable[[], bool]


def prepare_torch() -> None:
    """One intra-op thread (parallelism is over runs; bits depend on the number of threads), deterministic kernels."""
    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import a compiler
    # A twentieth of a step, and nothing here reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def untrained(spec: RunSpec, tensors: FoldTensors) -> Strategy:
    """The run's strategy as it is built, for the data's variables and images.

    Raises InputError where it looks at pixels, and there are embeddings.
    """
    shapes = Shapes(
        task=get_task(spec.task),
        hours=HOURS,
        channel_variable=channel_variables(model_variables(spec.tier, spec.training.statics)),
        px=int(tensors.pixels.shape[1]),
        encoders=spec.encoders,
        pretrained=spec.training.pretrained,
        stays=len(tensors.stay_id),
        images=tensors.places.per_stay,
        embedding=tensors.embedding,
    )
    strategy = build(spec.strategy, shapes, spec.hyper)
    if shapes.embedding and "cxr" in strategy.modalities and not image_encoders(strategy):
        why = f"looks at pixels, which embeddings are not; set training.image to {END_TO_END}"
        raise InputError(f"strategies.{spec.strategy}: as it is set, it {why}")
    return strategy


def image_encoders(strategy: Strategy) -> list[ImageEncoder]:
    """Those that it has."""
    return [module for module in strategy.modules() if isinstance(module, ImageEncoder)]


def _standardise(strategy: Strategy, tensors: FoldTensors, spec: RunSpec) -> None:
    """Has the strategy's encoders of embeddings learn the moments of the run's training images."""
    if tensors.embeddings is None:
        return
    rows = tensors.places.row[(tensors.part == "train") & (tensors.removed_at >= spec.train_missing)]
    if not strategy.every_image:
        rows = rows[:, :1]
    for encoder in image_encoders(strategy):
        if encoder.frozen:
            encoder.frozen.learn(tensors.embeddings, np.unique(rows[rows >= 0]))


def trained(spec: RunSpec, store: Store, tensors: FoldTensors, device: torch.device) -> Strategy:
    """The finished run's strategy with the weights of the run store, in eval mode."""
    strategy = untrained(spec, tensors).to(device)
    strategy.load_state_dict(load_file(store.folder(spec) / "weights.safetensors", device=str(device)))
    return strategy.to(memory_format=image_format(spec.encoders, device)).eval()


def _learn_from_earlier(
    strategy: Strategy, spec: RunSpec, store: Store, tensors: FoldTensors, device: torch.device
) -> None:
    """Hands the strategy what earlier runs have learned; its encoders start there where training.start says so.

    They start in the runs that are called by their strategy's own name: others (of another size) are teachers.
    """

    def answers(model: Strategy, needed: RunSpec) -> Tensor:
        every = torch.arange(len(tensors.stay_id), device=device)
        return logits_of(model, Batches(tensors, device, model.modalities, model.every_image), every, needed)

    earlier = {}
    for name, needed in spec.needs.items():
        model = trained(needed, store, tensors, device)
        earlier[name] = Earlier(model, functools.partial(answers, model, needed))
    if spec.training.start == "unimodal":
        start_encoders(strategy, [each.strategy for name, each in earlier.items() if name == spec.needs[name].strategy])
    strategy.learn_from(earlier)


def make_run(
    spec: RunSpec, store: Store, data: Path, report: Report, stop: Stop | None = None, wait: bool = True
) -> bool:
    """Makes the run, and those that it needs before, unless finished. Whether it is finished now.

    Where another process is at it: waits until it is made, by whomever; without `wait`, False. `stop` is asked between
    epochs. Raises Stopped where it says so, with the checkpoint written; without `wait`, LeaseLost where another
    process has taken the run over.
    """
    if store.finished(spec):
        return True
    for needed in spec.needs.values():
        if not make_run(needed, store, data, lambda epoch, row: None, stop, wait):
            return False
    while True:
        try:
            with store.claimed(spec, wait) as claim:
                if claim and not store.finished(spec):
                    _make(spec, store, data, report, claim, stop)
                return claim is not None
        except LeaseLost as lost:
            if not wait:
                raise
            log.warning("%s: %s", spec.name, lost)


def _file_step(path: Path, step: int, stay_id: Array, logits: Array) -> None:
    """Logits [rows, K] after a step, behind those of the steps before: [S, rows, K] in the end."""
    before = load_arrays(path)["logits"][:step] if step else np.empty((0, *logits.shape), logits.dtype)
    with files.atomic(path) as beside:
        save_arrays({"stay_id": stay_id, "logits": np.concatenate([before, logits[None]])}, beside)


def _make(spec: RunSpec, store: Store, data: Path, report: Report, claim: Claim, stop: Stop | None) -> None:
    prepare_torch()
    device = pick_device(spec.training.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.monotonic()
    task = get_task(spec.task)
    variables = model_variables(spec.tier, spec.training.statics)
    mechanism = spec.train_mechanism.replace("none", "mcar")
    tensors = load_fold(data, spec.fold, task, variables, mechanism, image=spec.training.image)
    torch.manual_seed(stream(*spec.luck))
    strategy = untrained(spec, tensors).to(device)
    if ("lr" in spec.hyper) == isinstance(strategy, Fitted):
        what = "unknown; it is fitted, not descended" if "lr" in spec.hyper else "missing"
        raise InputError(f"strategies.{spec.strategy}.lr: {what}")
    strategy.to(memory_format=image_format(spec.encoders, device))
    _standardise(strategy, tensors, spec)
    batches = Batches(tensors, device, strategy.modalities, strategy.every_image)
    _learn_from_earlier(strategy, spec, store, tensors, device)
    rows = np.flatnonzero(tensors.part != "train")

    def after_step(step: int) -> None:
        if strategy.steps > 1:
            logits = logits_of(strategy, batches, torch.from_numpy(rows).to(device), spec).cpu().numpy()
            _file_step(claim.folder / STEPS, step, tensors.stay_id[rows], logits)

    if isinstance(strategy, Fitted):
        history = fit_once(strategy, tensors, batches, spec, task, report)
    else:
        checkpoint = claim.folder / CHECKPOINT
        history = fit(strategy, tensors, batches, spec, task, checkpoint, report, claim.check, stop, after_step)
    logits = logits_of(strategy, batches, torch.from_numpy(rows).to(device), spec)
    p = probabilities(logits, task).float().cpu().numpy()
    if not np.isfinite(p).all():
        raise InputError(f"{spec.name}: predictions are not finite; lower strategies.{spec.strategy}.lr")
    with files.atomic(claim.folder / "weights.safetensors") as beside:
        save_file({key: value.contiguous() for key, value in strategy.state_dict().items()}, beside)
    with files.atomic(claim.folder / "predictions.safetensors") as beside:
        save_arrays({"stay_id": tensors.stay_id[rows], "p": np.ascontiguousarray(p)}, beside)
    files.write_json(history, claim.folder / "history.json", digits=9)
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "parameters": sum(parameter.numel() for parameter in strategy.parameters()),
        "seconds": time.monotonic() - start,
    }
    if device.type == "cuda":  # how many runs share a GPU follows from it
        result["gpu_mb"] = torch.cuda.max_memory_reserved(device) / 1e6
    store.finish(claim, result)
