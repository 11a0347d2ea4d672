"""What embedding takes, before it is done: seconds an image on this machine, and room."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.embedding.card import Card
from pipeline.embedding.embed import Embedder, identity, pictures
from pipeline.mimic.images import Jpegs
from pipeline.mimic.jpegs import release_folder
from pipeline.params import Embedding

REPEATS = 3


@dataclass(frozen=True)
class Price:
    """Of `images` images of `shape` [N, E] each: seconds of one in the encoder, seconds of its JPEG; 0 where made.

    `reading` is None where there is no JPEG yet. `workers` processes read, and embed too unless a GPU does.
    """

    encoder: str
    images: int
    px: int
    shape: tuple[int, int]
    made: bool
    seconds: float = 0.0
    reading: float | None = None
    workers: int = 1
    gpu: bool = False

    @property
    def megabytes(self) -> float:
        """Of all images in float16."""
        return self.images * self.shape[0] * self.shape[1] * 2 / 1e6

    @property
    def hours(self) -> float:
        """By the clock."""
        reading = (self.reading or 0.0) / self.workers
        one = max(self.seconds, reading) if self.gpu else self.seconds / self.workers + reading
        return self.images * one / 3600


def price(card: Card, settings: Embedding, data: Path, images: int) -> Price:
    """Of `images` images, whose first JPEG is read where the artefacts below `data` tell of one.

    Where they are embedded there, nothing is loaded. Raises InputError where the encoder cannot be.
    """
    made = data / "embeddings" / card.name
    if (made / "facts.json").is_file():
        facts = json.loads((made / "facts.json").read_text(encoding="utf-8"))
        if facts["identity"] == identity(card) and facts["images"] >= images:
            return Price(card.name, facts["images"], card.px, (facts["vectors"], facts["width"]), True)
    embedder = Embedder.of(card, settings)
    pixels = np.zeros((embedder.batch, card.px, card.px), np.uint8)

    def embed() -> None:
        embedder(pixels)
        if embedder.device.type == "cuda":
            torch.cuda.synchronize()

    seconds = _median(embed) / embedder.batch
    reading = _reading(card, data)
    on_gpu = embedder.device.type == "cuda"
    return Price(card.name, images, card.px, embedder.shape, False, seconds, reading, settings.workers, on_gpu)


def _median(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _reading(card: Card, data: Path) -> float | None:
    """Seconds of a JPEG; None where no image is packed yet."""
    known = [data / name for name in ("images/index.parquet", "cohort/cxr.parquet", "manifest.json")]
    found = pictures(*known[:2]) if all(path.is_file() for path in known) else []
    if not found:
        return None
    jpegs = Jpegs(release_folder(known[2]), {}, follow_links=True)
    return _median(lambda: jpegs.packed(found[0].path, card.px))
