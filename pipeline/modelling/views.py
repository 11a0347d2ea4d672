"""A batch with something hidden: images or records of some samples or of all, as if they had never been there."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from pipeline.modelling.interface import CXR, EHR, Batch


def keep_images(batch: Batch, there: Tensor) -> Batch:
    """The batch with no images but those of the samples where bool [B] is true."""
    present = batch.present.clone()
    present[:, CXR] &= there
    kept = there[batch.image_sample]
    images = {key: value[kept] for key, value in vars(batch).items() if key.startswith("image")}
    return dataclasses.replace(batch, **images, present=present)


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
