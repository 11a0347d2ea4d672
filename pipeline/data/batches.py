"""Batches gathered on the device from a fold's tensors: no loader, no workers, no copy per epoch.

On a GPU series and images are moved there once; on a CPU they stay where they are (images memory-mapped).
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import torch
from torch import Tensor

from pipeline.data.inputs import HOURS
from pipeline.data.tensors import Array, FoldTensors
from pipeline.modelling.interface import Batch


class Batches:
    """Gathers Batch objects by row numbers. `removed` bool [N]: stays whose images are not there for this purpose.

    `sees` are the modalities of who is given them. Of one that it does not look at only the shapes are there, all zero:
    moving series and pixels would be a tenth of an LSTM's step. `every_image`: all of a stay, not the latest alone.
    """

    def __init__(
        self,
        data: FoldTensors,
        device: torch.device,
        sees: Set[str] = frozenset({"ehr", "cxr"}),
        every_image: bool = False,
    ) -> None:
        def put(array: Array) -> Tensor:
            return torch.from_numpy(array).to(device)

        def put_if(modality: str, array: Array) -> Tensor:
            return put(array) if modality in sees else put(np.zeros_like(array, shape=())).expand(array.shape)

        self.device = device
        self._ehr, self._observed, self._since = (
            put_if("ehr", a) for a in (data.series.ehr, data.series.observed, data.series.since)
        )
        self._images, self._pictures = put_if("cxr", np.asarray(data.images)), data.embeddings is None
        count = data.places.per_stay if every_image else 1
        row, hours, view = (np.ascontiguousarray(each[:, :count]) for each in vars(data.places).values())
        self._image_row, self._image_hours, self._image_view = put(row), put(hours / np.float32(HOURS)), put(view)
        self._image_count = put(data.image_count)
        self._targets = put(data.targets)
        self._never = torch.zeros(len(data.stay_id), dtype=torch.bool, device=device)

    def targets(self, rows: Tensor) -> Tensor:
        """Targets [B, labels] of the rows."""
        return self._targets[rows]

    def with_image(self, rows: Tensor) -> Tensor:
        """Whether the rows have an image, bool [B]."""
        return self._image_row[rows, 0] >= 0

    def gather(self, rows: Tensor, removed: Tensor | None = None) -> Batch:
        """The batch of `rows` (long [B], on the device)."""
        image_row = self._image_row[rows]
        there = (image_row >= 0) & ~(self._never if removed is None else removed)[rows, None]
        sample, place = torch.nonzero(there, as_tuple=True)
        stay = rows[sample]
        images = _take(self._images, image_row[sample, place])
        if self._pictures:
            images = images.unsqueeze(1).float() / 255.0
        return Batch(
            ehr=_take(self._ehr, rows),
            observed=_take(self._observed, rows),
            since=_take(self._since, rows),
            images=images,
            image_sample=sample,
            image_place=place,
            image_hours=self._image_hours[stay, place],
            image_view=self._image_view[stay, place],
            image_count=self._image_count[stay],
            present=torch.stack([torch.ones_like(there[:, 0]), there[:, 0]], dim=1),
            index=rows,
        )


def _take(packed: Tensor, rows: Tensor) -> Tensor:
    """The rows of `packed`; of what is not looked at, as many as there are rows, in no memory."""
    if packed.stride(-1) == 0:
        return packed.new_zeros(()).expand(len(rows), *packed.shape[1:])
    return packed[rows]
