"""Packing radiographs of MIMIC-CXR's size against Pillow's draft decode and resize alone, on one core."""

import time

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.mimic.images import write_images
from pipeline.params import Images

IMAGES = 16
WIDTH, HEIGHT = 2544, 3056
SETTINGS = Images(skip=(), checksums=True, follow_links=False, workers=1, per_stay=1)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder with files/…/d-N.jpg, all the same picture: smooth shapes under grain, as large as a real one's file."""
    folder = tmp_path_factory.mktemp("release")
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(30, 220, (12, 10), np.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 4, (HEIGHT, WIDTH))
    picture = Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))
    picture.save(folder / "picture.jpg", quality=90)
    rows = {"stay_id": [], "rank": [], "dicom_id": [], "study_id": [], "subject_id": [], "hours_from_intime": []}
    for i in range(IMAGES):
        path = folder / f"files/p10/p10000000/s{50_000_000 + i}/d-{i:02d}.jpg"
        path.parent.mkdir(parents=True)
        path.hardlink_to(folder / "picture.jpg")
        for name, value in zip(rows, (i, 1, f"d-{i:02d}", 50_000_000 + i, 10_000_000, 1.0), strict=True):
            rows[name].append(value)
    table = pl.DataFrame(rows).with_columns(view=pl.lit("AP"), rows=pl.lit(HEIGHT), columns=pl.lit(WIDTH))
    table.drop("rows", "columns").write_parquet(folder / "cxr.parquet")
    table.select("dicom_id", "rows", "columns").write_parquet(folder / "cxr_metadata.parquet")
    return folder


def pillow(paths, px):
    size = (round(WIDTH * px / HEIGHT), px)
    for path in paths:
        with Image.open(path) as image:
            image.draft("L", size)
            np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS))


@pytest.mark.benchmark
@pytest.mark.parametrize("px", [64, 224])
def test_packing_runs_at_nine_tenths_of_pillows_speed(release, tmp_path, px):
    paths = sorted((release / "files").rglob("*.jpg"))
    ours, theirs = [], []
    for i in range(4):
        start = time.process_time()
        pillow(paths, px)
        theirs.append(time.process_time() - start)
        start = time.process_time()
        write_images(
            release / "cxr.parquet", release / "cxr_metadata.parquet", release, px, SETTINGS, tmp_path / str(i)
        )
        ours.append(time.process_time() - start)
    ratio = min(theirs) / min(ours)
    print(f"{px} px: {IMAGES / min(ours):.1f} images/s and core, {ratio:.2f} × the speed of Pillow alone")
    assert ratio > 0.9
