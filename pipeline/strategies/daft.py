"""daft: one modality's features are scaled and shifted, channel by channel, as both modalities together decide.

Paper: Pölsterl, Wolf & Wachinger, MICCAI 2021 (arXiv 2107.05990); EHR as the target after Hayat et al., MLHC 2022.
Idea: a bottleneck sees the pooled features of both modalities and predicts a scale and a shift for every channel of one
of them, late in its network, so that what a feature means depends on the other modality.
Missing image: with `target: ehr` the transform is skipped (identity), in training and at inference. With
`target: image` there is no map to transform, and the shared treatment, a learned vector, takes the image's place.
Changed: the paper transforms the image by a few tabular values (`target: image`, at the input of the CNN's last stage,
bottleneck 7); here the series is transformed by default, because three stays in four have no image. Hayat et al. then
take a bottleneck of (16 + C) / 7, where C = 256 channels come from the third of the CNN's four stages: 38. Here the
image's whole vector decides, after its last stage and between two layers of the series as theirs; 38 at every width.
The scale is 1 + s, or it would start at 0. With `target: image` the head sees the EHR vector too, or all stays without
an image would share one prediction. CareBench chains five unbounded transforms, of one pooled vector repeated 48 times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, fill_absent, series_encoder
from pipeline.modelling.interface import Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import AttentionLayer


class Transform(nn.Module):
    """Scale and shift [P, C] each for `channels` = C features, from them [P, C] and from others [P, E], both pooled."""

    def __init__(self, channels: int, others: int, bottleneck: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels + others, bottleneck, bias=False)
        self.excite = nn.Linear(bottleneck, 2 * channels, bias=False)

    def forward(self, pooled: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """[1 + s; b] of [s; b] = W₂ relu(W₁ [pooled; others])."""
        scale, shift = self.excite(torch.relu(self.squeeze(torch.cat([pooled, others], dim=1)))).chunk(2, dim=1)
        return 1 + scale, shift


class DAFT(Strategy):
    """Dynamic affine feature map transform."""

    missing = "complete"

    def __init__(
        self, shapes: Shapes, *, target: str = "ehr", bottleneck: int = 38, series: str = "transformer"
    ) -> None:
        super().__init__(shapes)
        if target not in ("ehr", "image"):
            raise ValueError(f"target: must be ehr or image, is {target!r}")
        if bottleneck < 1:
            raise ValueError(f"bottleneck: must be at least 1, is {bottleneck}")
        size = shapes.encoders
        self.target = target
        self.series = series_encoder(series, shapes)
        self.image = ImageEncoder(shapes)
        self.dropout = nn.Dropout(size.dropout)
        if target == "ehr":
            self.transform = Transform(size.width, size.width, bottleneck)
            self.after = AttentionLayer(size)
            self.head = nn.Linear(size.width, shapes.outputs)
        else:
            self.transform = Transform(self.image.stage_widths[-2], size.width, bottleneck)
            self.absent = nn.Parameter(torch.zeros(size.width))
            self.head = nn.Linear(2 * size.width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """Logits of the transformed series, or of the transformed image beside the series."""
        joint, features = self._series(batch) if self.target == "ehr" else self._image(batch)
        return Output(self.head(self.dropout(joint)) + self.prior, features=features)

    def _series(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tokens, rows = self.series(batch).tokens, batch.image_sample
        image, before = self.image(batch.images).pooled, tokens[rows]
        scale, shift = self.transform(before.mean(dim=1), image)
        changed = tokens.index_copy(0, rows, (scale[:, None] * before + shift[:, None]).to(tokens.dtype))
        features = {"before": tokens, "other": image, "after": changed}
        return self.after(changed).mean(dim=1), features

    def _image(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        ehr = self.series(batch).pooled
        *stages, last = self.image.stages
        x = self.image.normalise(batch.images)
        for stage in stages:
            x = stage(x)
        other = ehr[batch.image_sample]
        scale, shift = self.transform(x.mean(dim=(2, 3)), other)
        changed = scale[:, :, None, None] * x + shift[:, :, None, None]
        grid = self.image.grid(last(changed))
        image = fill_absent(grid.mean(dim=1), batch, self.absent)
        return torch.cat([ehr, image], dim=1), {"before": x, "other": other, "after": changed}
