"""A frozen encoder's embeddings of images, each computed once: float16, packed in one array, by dicom_id.

What is done lies in shards, filed under all that an image's embedding follows from but the image: whoever is killed
goes on from them, and another cohort of the same images takes them as they are.

On a CPU each image passes the encoder by itself: its embedding has the same bits whatever images are beside it, and
however many processes there are. On a GPU, in batches of one size, the last bits may follow from its place there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from pipeline import files
from pipeline.closure import ROOT
from pipeline.embedding.card import Card
from pipeline.embedding.loaders import FrozenEncoder, load_encoder
from pipeline.errors import InputError
from pipeline.mimic.images import Jpegs
from pipeline.mimic.jpegs import jpeg_path
from pipeline.mimic.pixels import ImageError
from pipeline.modelling.device import pick_device
from pipeline.params import Embedding
from pipeline.processes import interrupt_deferred, pool

SHARD = 32  # images; of a killed process as many are lost at most
AHEAD = 8  # shards a process reads before a GPU has taken them
# What of a card changes no number
WORDS = ("name", "file", "licence", "citation", "source", "pretrained_on", "seen")
CODE = ("embedding/embed.py", "embedding/loaders.py", "embedding/weights.py", "mimic/pixels.py")
PACKAGES = ("torch", "torchvision", "pillow", "timm", "transformers")  # absent ones are no part of it

Array = np.ndarray[Any, Any]


class Picture(NamedTuple):
    """An image: its id, its path below the release's folder, and what tells whether it is still the same."""

    dicom_id: str
    path: str
    sha256: str

    @property
    def key(self) -> str:
        """Under which its embedding is filed."""
        return f"{self.dicom_id} {self.sha256}"


def pictures(index_file: Path, cxr_file: Path) -> list[Picture]:
    """The images of images/index.parquet, each once, by dicom_id; sha256 is of their pixels as they are packed."""
    links = pl.read_parquet(cxr_file).select("dicom_id", jpeg_path()).unique("dicom_id")
    index = pl.read_parquet(index_file).select("dicom_id", "sha256").unique("dicom_id").sort("dicom_id")
    found = index.join(links, on="dicom_id", how="left", maintain_order="left", validate="1:1")
    return [Picture(*row) for row in found.select("dicom_id", "path", "sha256").iter_rows()]


def identity(card: Card) -> str:
    """Digest of all that an image's embedding follows from, the image and the kind of device apart."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    content = {
        "card": {name: value for name, value in dataclasses.asdict(card).items() if name not in WORDS},
        "code": {name: files.sha256(ROOT / "pipeline" / name) for name in CODE},
        "versions": versions,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


@dataclass
class Embedder:
    """An encoder on a device, and how many images at a time pass it there."""

    encoder: FrozenEncoder
    device: torch.device
    batch: int

    @classmethod
    def of(cls, card: Card, settings: Embedding) -> Embedder:
        """Ready to embed, on a CPU in one thread. Raises InputError as `load_encoder` does."""
        device = pick_device(settings.device, "embedding.device")
        torch.set_num_threads(1)
        encoder = load_encoder(card)
        if encoder.grid[0] != encoder.grid[1]:
            raise card.error(f"grid: the model's is {encoder.grid[0]} × {encoder.grid[1]}; only a square one is read")
        return cls(encoder.to(device), device, settings.batch if device.type == "cuda" else 1)

    @property
    def shape(self) -> tuple[int, int]:
        """[N, E] of an image: its pooled vector, then its tokens where it has such (modelling.embedded)."""
        tokens = 0 if self.encoder.card.output == "pooled" else self.encoder.grid[0] * self.encoder.grid[1]
        return 1 + tokens, self.encoder.width

    def __call__(self, pixels: Array) -> Array:
        """[P, N, E] float16 of `pixels` [P, px, px] uint8. Raises InputError where float16 cannot hold them."""
        found: Array = np.empty((len(pixels), *self.shape), np.float16)
        for start in range(0, len(pixels), self.batch):
            part = pixels[start : start + self.batch]
            whole = np.zeros((self.batch, *part.shape[1:]), np.uint8)  # always of one size
            whole[: len(part)] = part
            with torch.inference_mode():
                told = self.encoder(torch.from_numpy(whole[:, None]).to(self.device))
            packed = torch.cat([told.pooled[:, None], told.tokens], dim=1)[: len(part), : self.shape[0]]
            found[start : start + len(part)] = packed.half().cpu().numpy()
        if not np.isfinite(found).all():
            raise self.encoder.card.error("file: embeddings that float16 cannot hold")
        return found


@dataclass(frozen=True)
class _Shards:
    """Finished embeddings below `folder`, a file a few images, which its header names."""

    folder: Path

    def known(self) -> dict[str, tuple[Path, int]]:
        """Where each image's embedding lies, by its key: a file and a row."""
        found = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            with safe_open(path, framework="numpy") as file:
                for row, key in enumerate(json.loads(file.metadata()["images"])):
                    found[key] = path, row
        return found

    def write(self, images: Sequence[Picture], embeddings: Array) -> None:
        """A file of `embeddings` float16 [P, N, E] of `images`."""
        keys = json.dumps([each.key for each in images])
        with files.atomic(self.folder / f"{hashlib.sha256(keys.encode()).hexdigest()[:24]}.safetensors") as beside:
            save_file({"embeddings": embeddings}, beside, metadata={"images": keys})


@dataclass(frozen=True)
class _Job:
    """What a process needs to know. `at_hand`: it embeds itself; else it reads pixels for the one with the GPU."""

    card: Card
    settings: Embedding
    jpegs: Jpegs
    shards: _Shards
    at_hand: bool

    def read(self, images: Sequence[Picture]) -> Array:
        """Pixels [P, px, px] uint8. Raises InputError where a JPEG is not what it was when it was packed."""
        try:
            return np.stack([self.jpegs.packed(each.path, self.card.px).pixels for each in images])
        except ImageError as error:
            raise InputError(f"{error}; the stage images has read it: has it changed since?") from None


def write_embeddings(
    images: Sequence[Picture], jpegs: Jpegs, card: Card, settings: Embedding, folder: Path, shards: Path
) -> dict[str, Any]:
    """Write `folder`/packed.npy, index.parquet and facts.json (docs/artefacts.md); returns what is in the last.

    Shards are kept below `shards`. Raises InputError where the encoder cannot be loaded, or a JPEG is not there.
    """
    embedder, name = Embedder.of(card, settings), identity(card)
    job = _Job(card, settings, jpegs, _Shards(shards / f"{name}-{embedder.device.type}"), _at_hand(embedder))
    files.remove_left(job.shards.folder)
    known = job.shards.known()
    todo = [each for each in images if each.key not in known]
    with tqdm(total=len(todo), unit="image", desc=f"embed {card.name}") as progress:
        for count in _embed_all(job, embedder, todo):
            progress.update(count)
    place = job.shards.known()
    with files.atomic(folder / "packed.npy") as beside:
        packed = files.create_array(beside, (len(images), *embedder.shape), np.float16)
        rows = sorted((*place[each.key], row) for row, each in enumerate(images))
        for path, group in itertools.groupby(rows, key=lambda each: each[0]):
            with safe_open(path, framework="numpy") as file:
                found = file.get_tensor("embeddings")
            for _, of_shard, row in group:
                packed[row] = found[of_shard]
        packed.flush()
        del packed
    files.write_parquet(
        pl.DataFrame(
            {"row": np.arange(len(images), dtype=np.int32), "dicom_id": [each.dicom_id for each in images]},
            schema={"row": pl.Int32, "dicom_id": pl.String},
        ),
        folder / "index.parquet",
    )
    facts = {"encoder": card.name, "identity": name, "weights": card.sha256, "px": card.px, "images": len(images)}
    facts |= {"vectors": embedder.shape[0], "width": embedder.shape[1]}
    files.write_json(facts, folder / "facts.json")
    return facts | {"embedded": len(todo)}


def _at_hand(embedder: Embedder) -> bool:
    """Whether every process has what it takes to embed: a CPU."""
    return embedder.device.type == "cpu"


def _embed_all(job: _Job, embedder: Embedder, todo: Sequence[Picture]) -> Generator[int]:
    """Embeds and files all of `todo`; tells of each shard how many images it holds."""
    share = -(-len(todo) // job.settings.workers)  # of a few images each process gets some
    size = max(1, min(SHARD, share)) if job.at_hand else embedder.batch
    parts = [todo[start : start + size] for start in range(0, len(todo), size)]
    workers = min(job.settings.workers, len(parts))
    if workers < 2:
        for part in parts:
            job.shards.write(part, embedder(job.read(part)))
            yield len(part)
        return
    with pool(workers, f"embedding.workers: one of {workers} processes", _start, job) as executor:
        # as many shards at a time, or pixels that a GPU has not taken yet would pile up
        for some in _batched(parts, len(parts) if job.at_hand else AHEAD * workers):
            with interrupt_deferred():
                results = executor.map(_work, some)  # starts the processes
            for part, pixels in zip(some, results, strict=True):
                if pixels is not None:
                    job.shards.write(part, embedder(pixels))
                yield len(part)


def _batched(items: Sequence[Any], count: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), count):
        yield items[start : start + count]


_job: _Job
_embedder: Embedder | None


def _start(job: _Job) -> None:
    """In a new process: get ready."""
    global _job, _embedder
    _job, _embedder = job, Embedder.of(job.card, job.settings) if job.at_hand else None


def _work(images: Sequence[Picture]) -> Array | None:
    """A shard's pixels; or none, where it is embedded and filed."""
    pixels = _job.read(images)
    if _embedder is None:
        return pixels
    _job.shards.write(images, _embedder(pixels))
    return None
