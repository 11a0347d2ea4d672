"""Batches: only images that are there are gathered."""

import numpy as np
import pytest
import torch

from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.modelling.encoders import image_age
from pipeline.tasks import get_task
from tests.support.made_up_data import fabricate, with_older_images
from tests.support.runs import VARIABLES


def test_a_batch_holds_the_images_that_are_there_and_no_others(tmp_path):
    data = fabricate(tmp_path, n=120)
    tensors = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar")
    batches = Batches(tensors, torch.device("cpu"))
    rows = torch.arange(40)
    batch = batches.gather(rows)
    has = tensors.pictured[:40]
    assert batch.present[:, 1].tolist() == has.tolist()
    assert batch.image_sample.tolist() == np.flatnonzero(has).tolist()
    for image, row in zip(batch.images, tensors.places.row[:40, 0][has], strict=True):
        np.testing.assert_allclose(image[0] * 255, tensors.pixels[row], atol=1e-4)
    removed = torch.from_numpy(tensors.removed_at < 0.5)
    some = batches.gather(rows, removed)
    assert 0 < len(some.images) < len(batch.images)
    assert not some.present[removed[rows], 1].any()
    assert len(batches.gather(rows, torch.ones(len(has) * 3, dtype=torch.bool)[: len(tensors.stay_id)]).images) == 0


@pytest.mark.parametrize("unseen", ["ehr", "cxr"])
def test_what_is_not_looked_at_is_not_moved_and_its_shapes_are_there(tmp_path, unseen):
    tensors = load_fold(fabricate(tmp_path, n=40), 0, get_task("mortality"), VARIABLES, "mcar")
    rows = torch.arange(20)
    whole = Batches(tensors, torch.device("cpu")).gather(rows)
    part = Batches(tensors, torch.device("cpu"), {"ehr", "cxr"} - {unseen}).gather(rows)
    for name, value in vars(whole).items():
        found = getattr(part, name)
        blank = name in {"ehr": ("ehr", "observed", "since"), "cxr": ("images",)}[unseen]
        assert (found.shape, found.dtype) == (value.shape, value.dtype), name
        assert torch.equal(found, torch.zeros_like(value) if blank else value), name
        assert not blank or name == "images" or set(found.stride()) == {0}, name


def test_who_reads_every_image_gets_all_of_a_stay_the_latest_first(tmp_path):
    data = with_older_images(fabricate(tmp_path, n=60))
    tensors, rows = load_fold(data, 0, get_task("mortality"), VARIABLES, "mcar"), torch.arange(40)
    assert tensors.places.per_stay == 2
    device = torch.device("cpu")
    latest, every = (Batches(tensors, device, every_image=each).gather(rows) for each in (False, True))
    assert latest.image_place.tolist() == [0] * len(latest.images)
    row = tensors.places.row[:40]
    assert every.image_sample.tolist() == np.repeat(np.arange(40), (row >= 0).sum(axis=1)).tolist()
    for image, sample, place in zip(every.images, every.image_sample, every.image_place, strict=True):
        np.testing.assert_allclose(image[0] * 255, tensors.pixels[row[sample, place]], atol=1e-4)
    first = every.image_place == 0
    for name in ("images", "image_sample", "image_hours", "image_view", "image_count"):
        assert torch.equal(getattr(every, name)[first], getattr(latest, name)), name
    torch.testing.assert_close(image_age(every), torch.where(first, 0.0, 5 / 48))
    removed = torch.from_numpy(tensors.removed_at < 0.5)
    some = Batches(tensors, device, every_image=True).gather(rows, removed)
    assert set(some.image_sample.tolist()) == set(every.image_sample.tolist()) - set(
        torch.nonzero(removed).flatten().tolist()
    )
