"""Develops radiographs: a pool of processes draws `Shot`s and writes grey JPEGs. Imports as little as it can."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipeline.errors import InputError
from pipeline.files import writing
from pipeline.processes import end_with_parent, interrupt_deferred
from pipeline.synthetic import radiograph

QUALITY = 90
BATCH = 16


@dataclass(frozen=True)
class Shot:
    """A picture to develop: path below the root, arguments of radiograph.draw."""

    path: str
    findings: dict[str, Any]
    view: str
    height: int
    width: int
    seed: list[int]


def develop(root: Path, batch: list[Shot]) -> int:
    """Draw and write a batch; returns how many pictures it held."""
    from PIL import Image

    for shot in batch:
        path = root / shot.path
        pixels = radiograph.draw(
            radiograph.Findings(**shot.findings),
            view=cast(radiograph.View, shot.view),
            height=shot.height,
            width=shot.width,
            seed=shot.seed,
        )
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, "JPEG", quality=QUALITY)
    return len(batch)


@contextmanager
def developing(root: Path, shots: list[Shot], workers: int) -> Iterator[None]:
    """Draw `shots` below `root` while the block runs, and finish with it. The bytes do not depend on `workers`."""
    from tqdm import tqdm

    batches = [shots[i : i + BATCH] for i in range(0, len(shots), BATCH)]
    if workers <= 1:
        yield
        with tqdm(total=len(shots), desc="radiographs", unit="image") as bar:
            for batch in batches:
                bar.update(develop(root, batch))
        return
    # spawned, not forked: this process runs Polars' threads
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        with interrupt_deferred():
            running: list[Future[int]] = [pool.submit(develop, root, batch) for batch in batches]
        try:
            yield
            with tqdm(total=len(shots), desc="radiographs", unit="image") as bar:
                for future in running:
                    bar.update(future.result())
        except BrokenProcessPool:
            raise InputError(f"one of {workers} processes that draw radiographs was killed (out of memory?)") from None
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits: nobody may write on when the folder is removed
            raise
