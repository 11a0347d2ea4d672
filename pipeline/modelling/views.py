"""A batch seen otherwise: images or records hidden, as if they had never been there; older images; others' images."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from pipeline.modelling.interface import CXR, EHR, Batch


def keep_images(batch: Batch, there: Tensor) -> Batch:
    """The batch with no images but those of the samples where bool [B] is true."""
    present = batch.present.clone()
    present[:, CXR] &= there
    return dataclasses.replace(batch, **_images(batch, there[batch.image_sample]), present=present)


def _images(batch: Batch, chosen: Tensor) -> dict[str, Tensor]:
    """The batch's fields that have a row an image, those that are `chosen` (bool or places)."""
    return {key: value[chosen] for key, value in vars(batch).items() if key.startswith("image")}


def latest_images(batch: Batch) -> Batch:
    """The batch with the latest image alone of each sample that has one."""
    return dataclasses.replace(batch, **_images(batch, batch.image_place == 0))


def images_of(batch: Batch, whose: Tensor) -> dict[str, Tensor]:
    """Fields of a batch of n samples whose sample i has all images of this batch's sample whose[i]; long [n]."""
    sample, chosen = torch.nonzero(whose[:, None] == batch.image_sample, as_tuple=True)
    return _images(batch, chosen) | {"image_sample": sample}


def without_images(batch: Batch) -> Batch:
    """The batch with nobody's image."""
    return keep_images(batch, torch.zeros_like(batch.present[:, CXR]))


def keep_records(batch: Batch, there: Tensor) -> Batch:
    """The batch with no records but those of the samples where bool [B] is true; else medians, nothing charted."""
    present, where = batch.present.clone(), there[:, None, None]
    present[:, EHR] &= there
    return dataclasses.replace(
        batch,
        ehr=batch.ehr * where,
        observed=batch.observed & where,
        since=batch.since.where(where, 1.0),
        present=present,
    )


def without_record(batch: Batch) -> Batch:
    """The batch with nobody's EHR: medians, nothing observed."""
    return keep_records(batch, torch.zeros_like(batch.present[:, EHR]))
