"""The packed artefacts as arrays of one fold: what a run reads, and nothing that it must not see.

Rows are the base stays in the order of stays.parquet. The packed images are the truth about which image is there.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.inputs import HOURS, SeriesInputs, build_inputs
from pipeline.data.statics import STATICS, static_values
from pipeline.data.statistics import describe
from pipeline.errors import InputError
from pipeline.mimic.variables import Variable
from pipeline.params import END_TO_END
from pipeline.tasks import Task

if TYPE_CHECKING:
    import polars as pl

# What every run depends on; the run store takes their digests as the data's fingerprint.
FILES = (
    "cohort/stays.parquet",
    "cohort/labels.parquet",
    "cohort/cxr.parquet",
    "images/index.parquet",
    "images/pixels.npy",
    "masks.parquet",
    "series/statistics.json",
    "series/values.npy",
    "splits.parquet",
)

VIEWS = ("AP", "PA")  # cohort.cxr_views knows no other

Array = np.ndarray[Any, Any]


def embedding_files(image: str) -> tuple[str, ...]:
    """What a run depends on besides FILES: the embeddings of the encoder `image`; of END_TO_END, nothing."""
    names = () if image == END_TO_END else ("index.parquet", "packed.npy")
    return tuple(f"embeddings/{image}/{name}" for name in names)


def grid_side(vectors: int) -> int:
    """Of the square grid in the `vectors` of an embedded image, a pooled one and its tokens, or that alone."""
    return math.isqrt(max(1, vectors - 1))


@dataclass(frozen=True)
class ImagePlaces:
    """Of N stays, their images, the latest first: k places each, those that are there before those that are not."""

    row: Array  # int64 [N, k]: of FoldTensors.images; -1 without an image
    hours: Array  # float32 [N, k]: from intime; 0 without
    view: Array  # int64 [N, k]: place in VIEWS; 0 without

    @property
    def per_stay(self) -> int:
        """k."""
        return int(self.row.shape[1])


@dataclass(frozen=True)
class FoldTensors:
    """N stays of one fold. `pixels` uint8 [M, px, px] stays memory-mapped.

    `embeddings` float16 [M, N, E] (modelling.embedded), memory-mapped too: where they are seen instead of pixels.
    """

    stay_id: Array  # int64 [N]
    part: Array  # str [N]: train, val, test, dev
    series: SeriesInputs
    pixels: Array
    places: ImagePlaces
    image_count: Array  # int64 [N]: eligible images of the stay; 0 without one
    removed_at: Array  # float64 [N]: the image is removed at rate r where removed_at < r; 1 without an image
    targets: Array  # float32 [N, labels]
    embeddings: Array | None = None

    @property
    def pictured(self) -> Array:
        """Whether the stay has an image, bool [N]."""
        found: Array = self.places.row[:, 0] >= 0
        return found

    @property
    def images(self) -> Array:
        """What is seen of the images: their embeddings, or their pixels."""
        return self.pixels if self.embeddings is None else self.embeddings

    @property
    def embedding(self) -> tuple[int, int] | None:
        """Side of the grid and width of the embeddings, as Shapes has it."""
        if self.embeddings is None:
            return None
        vectors, width = self.embeddings.shape[1:]
        return grid_side(vectors), width


def read_images(folder: Path, image: str) -> tuple[pl.DataFrame, Array, Array | None]:
    """A row an image: stay_id, rank, row (of FoldTensors.images), hours_from_intime, view; pixels and embeddings.

    Of the artefacts below `folder`; `image` as training.image. Raises InputError where embeddings are not there.
    """
    import polars as pl

    index = pl.read_parquet(folder / "images/index.parquet")
    pixels = np.load(folder / "images/pixels.npy", mmap_mode="c")
    embeddings = None
    if image != END_TO_END:
        own = folder / "embeddings" / image
        if not (own / "packed.npy").is_file():
            raise InputError(f"{own / 'packed.npy'}: not found; run `dvc repro embed@{image}` first")
        rows = pl.read_parquet(own / "index.parquet", columns=["dicom_id", "row"])
        index = index.drop("row").join(rows, on="dicom_id", how="left", maintain_order="left", validate="m:1")
        if lacking := index["row"].null_count():
            told = f"lacks {lacking} of {index.height} images of {folder / 'images/index.parquet'}"
            raise InputError(f"{own / 'index.parquet'}: {told}; run `dvc repro embed@{image}`")
        embeddings = np.load(own / "packed.npy", mmap_mode="c")
    return index.select("stay_id", "rank", "row", "hours_from_intime", "view"), pixels, embeddings


def most_images(index: pl.DataFrame) -> int:
    """k: how many images the stay has that has most, of index.parquet; 1 where there are none."""
    most: int = max([1, *index["rank"]])
    return most


def image_places(index: pl.DataFrame, stay_id: Array, per_stay: int) -> ImagePlaces:
    """Of the stays, in their order, what index.parquet says, in `per_stay` places each."""
    used = index.filter(index["rank"] <= per_stay)
    place = {int(stay): i for i, stay in enumerate(stay_id)}
    at = np.asarray([place[stay] for stay in used["stay_id"]], np.int64), used["rank"].to_numpy() - 1
    shape = (len(stay_id), per_stay)
    row, hours, view = np.full(shape, -1, np.int64), np.zeros(shape, np.float32), np.zeros(shape, np.int64)
    row[at], hours[at] = used["row"].to_numpy(), used["hours_from_intime"].to_numpy()
    view[at] = [VIEWS.index(each) for each in used["view"]]
    return ImagePlaces(row, hours, view)


def load_fold(
    folder: Path,
    fold: int,
    task: Task,
    variables: tuple[Variable, ...],
    mechanism: str,
    hours: int = HOURS,
    image: str = END_TO_END,
) -> FoldTensors:
    """The arrays of `fold` from the artefacts below `folder` (data/). `mechanism`: mcar or mar, for removed_at.

    `variables`: statics.model_variables. `hours`: nothing was charted after that many; what came before is carried on.
    `image`: as training.image.
    """
    import polars as pl

    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: not found; run `dvc repro` first")
    statics = variables[-len(STATICS) :] == STATICS
    told = [variable.name for variable in STATICS] if statics else []
    stays = pl.read_parquet(folder / "cohort/stays.parquet", columns=["stay_id", *told])
    splits = pl.read_parquet(folder / "splits.parquet").filter(pl.col("fold") == fold).select("stay_id", "part")
    index, pixels, embeddings = read_images(folder, image)
    counts = pl.read_parquet(folder / "cohort/cxr.parquet", columns=["stay_id"]).group_by("stay_id").len("count")
    removed = (
        pl.read_parquet(folder / "masks.parquet")
        .filter((pl.col("fold") == fold) & (pl.col("modality") == "cxr") & (pl.col("mechanism") == mechanism))
        .select("stay_id", "removed_at")
    )
    labels = pl.read_parquet(folder / "cohort/labels.parquet", columns=["stay_id", *task.labels])
    rows = stays
    for frame in (splits, counts, removed, labels):
        rows = rows.join(frame, on="stay_id", how="left", maintain_order="left", validate="1:1")
    values = np.load(folder / "series/values.npy", mmap_mode="c")
    values[:, hours:] = np.nan  # in memory alone
    if rows["part"].null_count() or values.shape[0] != rows.height:
        raise InputError(f"{folder}: splits or values.npy do not fit stays.parquet; run `dvc repro`")
    statistics = json.loads((folder / "series/statistics.json").read_text(encoding="utf-8"))[str(fold)]
    if statics:
        constant = static_values(rows)
        ages = constant[(rows["part"] == "train").to_numpy(), 0]
        statistics["age"] = describe(ages[~np.isnan(ages)])
        shape = (*values.shape[:2], len(STATICS))
        values = np.concatenate([values, np.broadcast_to(constant[:, None], shape)], axis=2)
    stay_id = rows["stay_id"].to_numpy().astype(np.int64)
    return FoldTensors(
        stay_id=stay_id,
        part=np.asarray(rows["part"].to_list()),
        series=build_inputs(values, variables, statistics),
        pixels=pixels,
        embeddings=embeddings,
        places=image_places(index, stay_id, most_images(index)),
        image_count=rows["count"].fill_null(0).to_numpy().astype(np.int64),
        removed_at=rows["removed_at"].fill_null(1.0).to_numpy().astype(np.float64),
        targets=rows.select(pl.col(name).cast(pl.Float32) for name in task.labels).to_numpy().astype(np.float32),
    )
