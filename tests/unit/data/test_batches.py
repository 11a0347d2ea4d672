"""Batches: only images that are there are gathered."""

import numpy as np
import torch

from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.tasks import get_task
from tests.support.made_up_data import fabricate
from tests.support.runs import VARIABLES


def test_a_batch_holds_the_images_that_are_there_and_no_others(tmp_path):
    data = fabricate(tmp_path, n=120)
    tensors = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar")
    batches = Batches(tensors, torch.device("cpu"))
    rows = torch.arange(40)
    batch = batches.gather(rows)
    has = tensors.image_row[:40] >= 0
    assert batch.present[:, 1].tolist() == has.tolist()
    assert batch.image_sample.tolist() == np.flatnonzero(has).tolist()
    for image, row in zip(batch.images, tensors.image_row[:40][has], strict=True):
        np.testing.assert_allclose(image[0] * 255, tensors.pixels[row], atol=1e-4)
    removed = torch.from_numpy(tensors.removed_at < 0.5)
    some = batches.gather(rows, removed)
    assert 0 < len(some.images) < len(batch.images)
    assert not some.present[removed[rows], 1].any()
    assert len(batches.gather(rows, torch.ones(len(has) * 3, dtype=torch.bool)[: len(tensors.stay_id)]).images) == 0
