"""An epoch of a run that sees embeddings against one end to end at 64 px: CPU time, in one process and one run.

Made-up embeddings of 7 × 7 places and 768 features stand for a foundation model's. The record is a part of either
epoch, and no encoder takes it away: a fusion strategy's epoch cannot gain more than it takes with its images removed.
"""

import dataclasses
import time

import numpy as np
import polars as pl
import pytest
import torch

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.mimic.variables import load_variables
from pipeline.params import END_TO_END, load
from pipeline.tasks import get_task
from pipeline.training.grid import runs
from pipeline.training.loop import fit
from pipeline.training.run import prepare_torch, untrained
from tests.support.made_up_data import fabricate

PX, BATCH, STAYS, SIDE, WIDTH = 64, 64, 640, 7, 768
PARAMS = load()
STUDY = PARAMS.scales["study"]
TASK = get_task("mortality")


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """All stays are in training: pixels, and embeddings."""
    prepare_torch()
    folder = fabricate(tmp_path_factory.mktemp("data"), n=STAYS, px=PX)
    index = pl.read_parquet(folder / "images/index.parquet").select("dicom_id").sort("dicom_id")
    packed = np.random.default_rng(0).standard_normal((index.height, 1 + SIDE**2, WIDTH), dtype=np.float32)
    files.write_array(packed.astype(np.float16), folder / "embeddings/large/packed.npy")
    files.write_parquet(index.with_row_index("row"), folder / "embeddings/large/index.parquet")
    found = {}
    for image in (END_TO_END, "large"):
        fold = load_fold(folder, 0, TASK, load_variables("core"), "mcar", image=image)
        found[image] = dataclasses.replace(fold, part=np.full(len(fold.stay_id), "train"))
    return found


def epoch(folds, tmp_path, strategy, image=END_TO_END, removed=False, **encoders):
    """Seconds of processor that an epoch of the matched cohort takes; with all images removed, of the record."""
    tensors = dataclasses.replace(folds[image], removed_at=np.zeros(STAYS)) if removed else folds[image]
    scale = dataclasses.replace(
        STUDY.training, folds=(0,), cohorts=("matched",), batch_size=BATCH, max_epochs=1, patience=1
    )
    (spec,) = runs(
        strategy, "mortality", hyper={"lr": 1e-3}, tier="core",
        training=dataclasses.replace(PARAMS.training, device="cpu", checkpoint_seconds=1e9, image=image),
        encoders=dataclasses.replace(STUDY.encoders, **encoders), scale=scale,
    )  # fmt: skip
    spec = dataclasses.replace(spec, train_missing=0.5 if removed else 0.0)
    batches, model = Batches(tensors, torch.device("cpu")), untrained(spec, tensors)
    start = time.process_time()
    fit(model, tensors, batches, spec, TASK, tmp_path / "checkpoint", lambda *_: None)
    return time.process_time() - start


def compare(folds, tmp_path, strategy, repeats, **encoders):
    """Seconds of an epoch: without images, end to end, with embeddings; the best of each."""
    found = {"record": [], "pixels": [], "embeddings": []}
    for _ in range(repeats):
        found["record"].append(epoch(folds, tmp_path, strategy, "large", removed=True, **encoders))
        found["pixels"].append(epoch(folds, tmp_path, strategy, **encoders))
        found["embeddings"].append(epoch(folds, tmp_path, strategy, "large", **encoders))
    record, pixels, embeddings = (min(each) for each in found.values())
    print(
        f"{strategy}, {encoders.get('cnn', 'narrow CNN')}: {pixels / embeddings:.1f} × as fast; "
        f"end to end {pixels:.3f} s, with embeddings {embeddings:.3f} s, without images {record:.3f} s"
    )
    return record, pixels, embeddings


@pytest.mark.benchmark
@pytest.mark.parametrize("strategy", ["late_fusion", "medfuse", "drfuse", "resnet"])
def test_what_images_cost_an_epoch_is_a_fifth(folds, tmp_path, strategy):
    record, pixels, embeddings = compare(folds, tmp_path, strategy, repeats=5)
    assert embeddings - record < (pixels - record) / 5


@pytest.mark.benchmark
def test_an_epoch_is_five_times_as_fast_as_with_the_papers_cnn(folds, tmp_path):
    _, pixels, embeddings = compare(folds, tmp_path, "late_fusion", repeats=1, cnn="resnet50")
    assert pixels / embeddings > 5
