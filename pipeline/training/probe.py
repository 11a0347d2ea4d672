"""A strategy's trained models once more: what they answer without images or records, and with those of other patients.

Nothing is trained here but what the run store lacks. A stay's answer does not depend on its batch mates, so that its
answer without an image is the same at whatever rate, and by whatever mechanism, images are removed: it is asked once,
and pipeline.questions.robust.removal mixes the answers by data/masks.parquet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.inputs import HOURS
from pipeline.data.statics import model_variables
from pipeline.data.tensors import Array, FoldTensors, load_fold
from pipeline.modelling.device import pick_device
from pipeline.modelling.encoders import image_format
from pipeline.modelling.interface import Batch, Output, Strategy
from pipeline.modelling.losses import probabilities
from pipeline.modelling.registry import strategy_class
from pipeline.modelling.views import images_of, without_record
from pipeline.params import END_TO_END, ProbeScale
from pipeline.tasks import get_task
from pipeline.training.executors import execute
from pipeline.training.grid import KEY, RunSpec
from pipeline.training.image_control import CONTROL_SCHEMA, image_control, read_findings
from pipeline.training.loop import EVAL_BATCH, autocast, stream
from pipeline.training.run import prepare_torch, trained, untrained
from pipeline.training.store import Store

OF_IMAGES = {"cxr", "presence", "metadata"}  # modalities that change with an image's presence
SWAPS = ("full", "emap", "cxr_permuted", "ehr_permuted", "both_permuted", "branch_ehr", "branch_cxr")
_SWAP_KEY = ["task", "train_cohort", "fold", "seed", "part", "kind", "draw", "stay_id"]


class Fold(NamedTuple):
    """A fold's tensors and batches, and its batches where the last k hours of the records are absent, by k."""

    tensors: FoldTensors
    batches: Batches
    shortened: dict[int, Batches]


def load(spec: RunSpec, data: Path, device: torch.device, last_hours: Sequence[int] = ()) -> Fold:
    """The fold of the run, as it sees it; its targets are those of the run's task, and never looked at."""

    def tensors(hours: int) -> FoldTensors:
        variables = model_variables(spec.tier, spec.training.statics)
        return load_fold(data, spec.fold, get_task(spec.task), variables, "mcar", hours, spec.training.image)

    whole = tensors(HOURS)
    every_image = strategy_class(spec.strategy).every_image

    def batches(data: FoldTensors) -> Batches:
        return Batches(data, device, every_image=every_image)

    return Fold(whole, batches(whole), {k: batches(tensors(HOURS - k)) for k in last_hours})


def of_pixels(spec: RunSpec) -> RunSpec:
    """The run as it would be made end to end."""
    return dataclasses.replace(spec, training=dataclasses.replace(spec.training, image=END_TO_END))


def as_built(spec: RunSpec, tensors: FoldTensors, device: torch.device) -> Strategy:
    """The run's strategy as fold and seed built it, before training and any other run's encoder, in eval mode."""
    torch.manual_seed(stream(*spec.luck))
    return untrained(spec, tensors).to(device).to(memory_format=image_format(spec.encoders, device)).eval()


def ask(strategy: Strategy, spec: RunSpec, parts: Iterable[Batch], device: torch.device) -> Iterator[Output]:
    """What the model answers to each batch, as in training.loop.logits_of."""
    with torch.inference_mode(), autocast(device, spec.training.precision):
        for batch in parts:
            yield strategy(batch)


def _answers(strategy: Strategy, spec: RunSpec, rows: Tensor, change: Callable[[Tensor], Batch]) -> Array:
    """Probabilities float32 [len(rows), K] of the rows, as `change` makes batches of them."""
    parts = map(change, rows.split(EVAL_BATCH))
    logits = [output.logits.float() for output in ask(strategy, spec, parts, rows.device)]
    found: Array = probabilities(torch.cat(logits), get_task(spec.task)).float().cpu().numpy()
    return found


def removal(strategy: Strategy, spec: RunSpec, fold: Fold) -> pl.DataFrame:
    """A row a test stay and thing removed: its image (where it has one), its record, the record's last k hours.

    Columns of predictions.parquet, and task. `test_missing` is the share of the image or of the hours: 1, or k / 48.
    What the strategy does not look at is not removed.
    """
    sees, batches, test = set(strategy.modalities), fold.batches, fold.tensors.part == "test"
    every = torch.ones(len(test), dtype=torch.bool, device=batches.device)
    asked: list[tuple[str, float, str, Callable[[Tensor], Batch], Any]] = []
    if sees & OF_IMAGES:
        pictured = test & fold.tensors.pictured
        asked.append(("cxr", 1.0, "whole", lambda rows: batches.gather(rows, every), pictured))
    if "ehr" in sees:
        asked.append(("ehr", 1.0, "whole", lambda rows: without_record(batches.gather(rows)), test))
        for hours, shortened in fold.shortened.items():
            asked.append(("ehr", hours / HOURS, "last_hours", shortened.gather, test))
    found = []
    for modality, share, mechanism, change, chosen in asked:
        rows = torch.from_numpy(np.flatnonzero(chosen)).to(batches.device)
        if len(rows):
            p = _answers(strategy, spec, rows, change)
            about = {"part": "test", "test_modality": modality, "test_missing": share, "test_mechanism": mechanism}
            found.append(_frame(spec, {name: spec.key[name] for name in KEY} | about, fold.tensors.stay_id[chosen], p))
    return pl.concat(found)


def _frame(spec: RunSpec, about: dict[str, Any], stay_id: Array, p: Array) -> pl.DataFrame:
    """Rows of stays with their probabilities, and the constants that tell what they are."""
    kinds = {"fold": pl.Int8, "seed": pl.Int32, "draw": pl.Int32}
    constants = {"task": spec.task, **about}
    return pl.DataFrame({"stay_id": stay_id}).select(
        *(pl.lit(value, kinds.get(name)).alias(name) for name, value in constants.items()),
        "stay_id",
        *(pl.Series(f"p_{name}", p[:, i]) for i, name in enumerate(get_task(spec.task).outputs)),
    )


def probed(tensors: FoldTensors, most: int) -> Array:
    """At most `most` rows of test stays with an image: those that data/masks.parquet removes first, which is a hash."""
    rows = np.flatnonzero((tensors.part == "test") & tensors.pictured)
    order = np.lexsort((tensors.stay_id[rows], tensors.removed_at[rows]))
    return np.sort(rows[order[:most]])


def pair_logits(strategy: Strategy, spec: RunSpec, batches: Batches, rows: Tensor) -> Tensor:
    """Logits [N, N, K] of the record of stay i with the images of stay j, their hours, views, count; all have one."""
    whole, count = batches.gather(rows), len(rows)

    def pairs(which: Tensor) -> Batch:
        record, image = which // count, which % count
        of_record = {name: getattr(whole, name)[record] for name in ("ehr", "observed", "since", "present", "index")}
        return dataclasses.replace(whole, **of_record, **images_of(whole, image))

    parts = torch.arange(count * count, device=batches.device).split(EVAL_BATCH)
    found = [output.logits.float() for output in ask(strategy, spec, map(pairs, parts), batches.device)]
    return torch.cat(found).view(count, count, -1)


def emap(logits: Tensor) -> Tensor:
    """Logits [N, K] of the best additive projection of the model, from its pair logits [N, N, K].

    Hessel & Lee, EMNLP 2020 (arXiv 2010.06572): the record's mean over images, and the image's over records, less the
    mean of all.
    """
    double = logits.double()
    return double.mean(dim=1) + double.mean(dim=0) - double.mean(dim=(0, 1))


def permutations(count: int, draws: int, fold: int) -> tuple[Array, Array]:
    """Two independent sets of permutations [draws, count], of records and of images: the same for every strategy."""
    random = np.random.default_rng([fold, count])
    records, images = (np.array([random.permutation(count) for _ in range(draws)]) for _ in range(2))
    return records, images


def swaps(strategy: Strategy, spec: RunSpec, fold: Fold, scale: ProbeScale) -> list[pl.DataFrame]:
    """Rows a probed stay and kind of SWAPS: its label is to be told from what the model answers to the swapped pair."""
    chosen = probed(fold.tensors, scale.stays)
    if not len(chosen):
        return []
    rows = torch.from_numpy(chosen).to(fold.batches.device)
    logits = pair_logits(strategy, spec, fold.batches, rows)
    own = torch.arange(len(rows))
    records, images = (torch.from_numpy(each) for each in permutations(len(rows), scale.permutations, spec.fold))
    found = [("full", 0, logits[own, own]), ("emap", 0, emap(logits))]
    for draw in range(scale.permutations):
        found.append(("cxr_permuted", draw, logits[own, images[draw]]))
        found.append(("ehr_permuted", draw, logits[records[draw], own]))
        found.append(("both_permuted", draw, logits[records[draw], images[draw]]))
    (output,) = ask(strategy, spec, [fold.batches.gather(rows)], fold.batches.device)
    found += [(f"branch_{name}", 0, output.unimodal[name]) for name in ("ehr", "cxr") if name in output.unimodal]
    frames = []
    for kind, draw, each in found:
        about = {name: spec.key[name] for name in ("train_cohort", "fold", "seed")}
        p = probabilities(each, get_task(spec.task)).float().cpu().numpy()
        about |= {"part": "test", "kind": kind, "draw": draw}
        frames.append(_frame(spec, about, fold.tensors.stay_id[chosen], p))
    return frames


def probe(specs: Sequence[RunSpec], store: Store, data: Path, out: Path, scale: ProbeScale) -> None:
    """Writes removal, swaps and image_control.parquet (docs/artefacts.md) of all runs of a strategy to `out`."""
    execute(specs, store, data)
    prepare_torch()
    device = pick_device(specs[0].training.device)
    findings = read_findings(data)
    removed, swapped, controls = list[pl.DataFrame](), list[pl.DataFrame](), list[pl.DataFrame]()
    for number in sorted({spec.fold for spec in specs}):
        of_fold = [spec for spec in specs if spec.fold == number]
        fold = load(of_fold[0], data, device, scale.last_hours)
        pixels = fold if fold.tensors.embeddings is None else load(of_pixels(of_fold[0]), data, device)
        for spec in of_fold:
            strategy = trained(spec, store, fold.tensors, device)
            removed.append(removal(strategy, spec, fold))
            if spec.train_missing:
                continue
            if {"ehr", "cxr"} <= strategy.modalities:
                swapped += swaps(strategy, spec, fold, scale)
            built = as_built(of_pixels(spec), pixels.tensors, device)
            encoders = {"trained": (strategy, fold.batches), "untrained": (built, pixels.batches)}
            controls.append(image_control(encoders, spec, fold.tensors, findings))
    tasks = dict.fromkeys(spec.task for spec in specs)
    p = [f"p_{name}" for task in tasks for name in get_task(task).outputs]
    key = ["task", *KEY, "part", "test_modality", "test_missing", "test_mechanism", "stay_id"]
    _write(removed, key, p, out / "removal.parquet")
    _write(swapped, _SWAP_KEY, p, out / "swaps.parquet")
    files.write_parquet(
        pl.concat([pl.DataFrame(schema=CONTROL_SCHEMA), *controls]).sort(list(CONTROL_SCHEMA)),
        out / "image_control.parquet",
    )


def _write(frames: list[pl.DataFrame], key: list[str], p: list[str], path: Path) -> None:
    """The frames of all tasks as one, null where a column is of another task; the same columns where there is none."""
    kinds: dict[str, Any] = {"fold": pl.Int8, "seed": pl.Int32, "draw": pl.Int32, "stay_id": pl.Int64}
    kinds |= {"train_missing": pl.Float64, "test_missing": pl.Float64}
    none = pl.DataFrame(schema={**{name: kinds.get(name, pl.String) for name in key}, **dict.fromkeys(p, pl.Float32)})
    files.write_parquet(pl.concat([none, *frames], how="diagonal").sort(key), path)
