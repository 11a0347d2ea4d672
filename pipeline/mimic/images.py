"""Chest radiographs -> one memory-mapped array: the latest image of every stay that has one, or the latest
few (`images.per_stay`), decoded and resized once.

index.parquet says which row belongs to which stay and is the truth for models: an image that `images.skip` left out has
no row there, though the stay's `has_cxr` (an image was taken) stays true.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from pipeline import files
from pipeline.disclosure import few, part_of, pieces, protected, told
from pipeline.errors import InputError
from pipeline.mimic.checksums import LIST, read_sums
from pipeline.mimic.jpegs import image_table
from pipeline.mimic.pixels import ImageError, Packed, pack, read_jpeg
from pipeline.processes import interrupt_deferred, pool

if TYPE_CHECKING:
    from pipeline.params import Images

IMAGES_PER_WORKER = 256  # fewer are decoded sooner than a process has started
LEAST_USABLE = 0.5  # of the linked images: where more are lost, a rule has lost them, not chance
OUTSIDE = "leads out of the folder files/"
CHANGED = f"damaged or changed: its SHA-256 is not that of {LIST}"
ADVICE = {  # a reason -> the knob that lets all such images through
    OUTSIDE: "images.follow_links: true uses what it leads to",
    CHANGED: "images.checksums: false does not compare",
}
SKIP = "images.skip: [damaged] leaves such images out"
log = logging.getLogger(__name__)

Pixels = np.memmap[Any, np.dtype[np.uint8]]  # [M, px, px]


@dataclass(frozen=True)
class Fact:
    """Of an image that was packed: what `Packed` says of the JPEG, sha256 of the packed pixels."""

    height: int
    width: int
    mode: str
    one_grey: bool
    turned: bool
    sha256: str


@dataclass(frozen=True)
class Fault:
    """Of an image that was not: a line that names it, and the reason alone."""

    message: str
    reason: str


def write_images(
    cxr_file: Path, metadata_file: Path, root: Path, px: int, settings: Images, folder: Path
) -> dict[str, Any]:
    """Write `folder`/pixels.npy and index.parquet (docs/artefacts.md); returns exact counts, for the stage's log.

    Raises InputError for a damaged or missing file that it names, unless `settings.skip` holds `damaged`; then where
    more than half of the images would be left out.
    """
    import polars as pl

    if not cxr_file.is_file():
        raise InputError(f"{cxr_file}: not found; the stage cohort writes it")
    table = image_table(pl.read_parquet(cxr_file), pl.read_parquet(metadata_file), settings.per_stay)
    paths = table["path"].to_list()
    sums = published(root, paths) if settings.checksums else None
    with files.atomic(folder / "pixels.npy") as beside:
        pixels: Pixels = files.create_array(beside, (table.height, px, px), np.uint8)
        packer = _Packer(beside, Jpegs(root, sums or {}, settings.follow_links), paths)
        results: list[Fact | Fault] = []
        with (
            contextlib.closing(_pack_all(packer, settings.workers)) as packing,
            tqdm(packing, total=table.height, unit="image", desc="images") as progress,
        ):
            for result in progress:
                if isinstance(result, Fault):
                    if "damaged" not in settings.skip:
                        raise InputError(f"{result.message} ({'; '.join([*_advice(result.reason), SKIP])})")
                    log.warning("left out: %s", result.message)
                results.append(result)
        good = [row for row, result in enumerate(results) if isinstance(result, Fact)]
        reasons = collections.Counter(result.reason for result in results if isinstance(result, Fault))
        if len(good) < LEAST_USABLE * table.height:
            raise InputError(f"{root / 'files'}: {_lost(len(good), reasons)}")
        if len(good) < table.height:
            _keep(pixels, good, beside)
        pixels.flush()
        del pixels, packer
    facts = [result for result in results if isinstance(result, Fact)]
    index = table[good].select(
        pl.int_range(len(good), dtype=pl.Int32).alias("row"),
        "stay_id",
        "dicom_id",
        "hours_from_intime",
        "view",
        pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("stay_id").alias("rank"),  # those left out do not count
        pl.Series("height", [fact.height for fact in facts], dtype=pl.Int32),
        pl.Series("width", [fact.width for fact in facts], dtype=pl.Int32),
        pl.Series("sha256", [fact.sha256 for fact in facts], dtype=pl.String),
    )
    files.write_parquet(index, folder / "index.parquet")
    stated = table[good].select("rows", "columns")
    differs = (stated["rows"] != index["height"]) | (stated["columns"] != index["width"])  # null: not known
    return {
        "px": px,
        "images": index.height,
        "stays": index["stay_id"].n_unique(),
        "distinct_images": index["sha256"].n_unique(),
        "left_out": {"images": reasons.total(), "reasons": dict(reasons)},
        "checksums": _compared(settings, sums, [paths[row] for row in good], reasons[CHANGED]),
        "oddities": {
            "images_of_another_size_than_the_metadata_say": int(differs.sum()),
            "images_of_one_grey": sum(fact.one_grey for fact in facts),
            "images_that_exif_would_turn": sum(fact.turned for fact in facts),
        },
        "colour_modes": dict(collections.Counter(fact.mode for fact in facts)),
        "jpeg": {
            side: {"min": index[side].min(), "median": index[side].median(), "max": index[side].max()}
            for side in ("height", "width")
        },
    }


def disclosed(counts: Mapping[str, Any], stays: int) -> dict[str, Any]:
    """The counts of `write_images` for reports/, of a cohort of so many stays: an image in use is a stay of its.

    That goes for their number, their colour modes and how many the list names. What is wrong with files is no count of
    people, and exact, unless it would give one away. Images beyond the first of few stays give these away.
    """
    packed, left = counts["images"], counts["left_out"]["images"]
    linked = part_of(stays, min(stays, packed + left))  # as reports/data/cohort.json has it
    known_sum = [] if isinstance(linked, str) else [(0, 1)]
    small = few(packed) or few(packed - counts["stays"]) or isinstance(linked, str)
    told_packed, told_left = protected([packed, left], known_sum, [small, False])
    reasons, checksums, modes = counts["left_out"]["reasons"], counts["checksums"], counts["colour_modes"]
    if isinstance(told_left, str):
        reasons = dict(zip(reasons, pieces(list(reasons.values()), told_left), strict=True))
    if "equal" in checksums:
        equal, not_listed = pieces([checksums["equal"], checksums["not_listed"]], told_packed)
        checksums = checksums | {"equal": equal, "not_listed": not_listed}
    return {name: count for name, count in counts.items() if name != "stays"} | {
        "images": told_packed,
        "distinct_images": told_packed if isinstance(told_packed, str) else told(counts["distinct_images"]),
        "left_out": {"images": told_left, "reasons": reasons},
        "checksums": checksums,
        "colour_modes": dict(zip(modes, pieces(list(modes.values()), told_packed), strict=True)),
    }


def published(root: Path, paths: Sequence[str]) -> dict[str, str] | None:
    """The listed SHA-256 of those of `paths` that the release's list has; None where there is no list."""
    wanted = frozenset(paths)
    listed = {path: digest for path, digest in read_sums(root).items() if path in wanted}
    return listed if (root / LIST).is_file() else None


def _advice(reason: str) -> list[str]:
    return [ADVICE[reason]] if reason in ADVICE else []


def _lost(good: int, reasons: collections.Counter[str]) -> str:
    """Why most images are lost, the commonest reason first, each with what is to be done about it."""
    lost = "; ".join(" - ".join([f"{count:,} {reason}", *_advice(reason)]) for reason, count in reasons.most_common())
    return f"{good:,} of {good + reasons.total():,} linked images can be used, fewer than half; left out: {lost}"


def _compared(settings: Images, sums: dict[str, str] | None, packed: Sequence[str], differ: int) -> dict[str, Any]:
    """What the publisher's checksums say of the images: `packed` are in use, `differ` are left out."""
    if sums is None:
        return {"list": "absent" if settings.checksums else "not compared"}
    equal = sum(path in sums for path in packed)
    return {"list": LIST, "equal": equal, "differ": differ, "not_listed": len(packed) - equal}


def _keep(pixels: Pixels, rows: Sequence[int], path: Path) -> None:
    """Replace the file at `path`, mapped as `pixels`, by one that holds `rows` of it alone."""
    with files.atomic(path) as beside:
        kept = files.create_array(beside, (len(rows), *pixels.shape[1:]), np.uint8)
        for new, old in enumerate(rows):
            kept[new] = pixels[old]
        kept.flush()


@dataclass(frozen=True)
class Jpegs:
    """The JPEGs of a release below `root`, with the checks that each is what was published."""

    root: Path
    sums: Mapping[str, str]  # path -> SHA-256, of those that are to be compared
    follow_links: bool

    @functools.cached_property
    def base(self) -> Path:
        """What no link may lead out of."""
        return (self.root / "files").resolve()

    def read(self, path: str) -> bytes:
        """The bytes of a JPEG. Raises ImageError where it is not there, leads elsewhere or is not as published."""
        name, found = str(self.root / path), (self.root / path).resolve()
        if not self.follow_links and not found.is_relative_to(self.base):
            raise ImageError(name, OUTSIDE)
        content = read_jpeg(found, name)
        published = self.sums.get(path)
        if published and hashlib.sha256(content).hexdigest() != published:
            raise ImageError(name, CHANGED)
        return content

    def packed(self, path: str, px: int) -> Packed:
        """A JPEG as a square of `px` pixels. Raises ImageError as `read` does, and where it is damaged."""
        return pack(self.read(path), px, str(self.root / path))


@dataclass
class _Packer:
    """Packs image `row` into its place in the array. A process has its own, on the same file."""

    array: Path
    jpegs: Jpegs
    paths: Sequence[str]

    @functools.cached_property
    def pixels(self) -> Pixels:
        """The array, opened where it is first written."""
        found: Pixels = np.load(self.array, mmap_mode="r+")
        return found

    def __call__(self, row: int) -> Fact | Fault:
        try:
            packed = self.jpegs.packed(self.paths[row], self.pixels.shape[1])
        except ImageError as error:
            return Fault(str(error), error.reason)
        self.pixels[row] = packed.pixels
        digest = hashlib.sha256(packed.pixels.tobytes()).hexdigest()
        return Fact(packed.height, packed.width, packed.mode, packed.one_grey, packed.turned, digest)


def _pack_all(packer: _Packer, workers: int) -> Generator[Fact | Fault]:
    """Results in the order of its paths, whatever the number of processes; the pixels go straight into the array."""
    rows = range(len(packer.paths))
    workers = min(workers, len(rows) // IMAGES_PER_WORKER)
    if workers < 2:
        yield from map(packer, rows)
        return
    with pool(workers, f"images.workers: one of {workers} decoding processes", _start, packer) as executor:
        with interrupt_deferred():
            results = executor.map(_work, rows, chunksize=16)  # starts the processes
        yield from results


_packer: _Packer


def _start(packer: _Packer) -> None:
    """In a new process: get ready."""
    global _packer
    _packer = packer


def _work(row: int) -> Fact | Fault:
    return _packer(row)
