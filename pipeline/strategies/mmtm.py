"""mmtm: between the stages of the CNN, both streams' channels are gated by what both streams hold.

Paper: Vaezi Joze, Shaban, Iuzzolino & Koishida, CVPR 2020 (arXiv 1911.08670); on EHR and CXR Hayat et al., MLHC 2022.
Idea: squeeze the map and the series to their means, excite one gate a channel for each, and hand the gated map to the
next stage, so that the modalities meet midway and more than once.
Missing image: a learned vector stands in for its squeezed map in every module and for its vector in the head, in
training and at inference: the series is still gated, and there is no map to gate.
Changed: one joint loss and one optimiser, where MedFuse's version takes three steps a batch; a transformer layer reads
the gated series where that has a second LSTM layer. CareBench's gates reach no further stage, act on a pooled vector
repeated 48 times, and take four steps on the same loss; its length-of-stay results are those of the first epoch. Gates
lie in (0, 2), at 1 where nothing is excited: this factor of two could not be confirmed in the paper, and the official
code's gates lie in (0, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, fill_absent, series_encoder
from pipeline.modelling.interface import Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import AttentionLayer


class TransferModule(nn.Module):
    """Gates in (0, 2) for `maps` channels of a map and `width` of a series, from both means."""

    def __init__(self, maps: int, width: int, ratio: int) -> None:
        super().__init__()
        hidden = max(1, 2 * (maps + width) // ratio)
        self.absent = nn.Parameter(torch.zeros(maps))
        self.squeeze = nn.Linear(maps + width, hidden)
        self.excite_map = nn.Linear(hidden, maps)
        self.excite_series = nn.Linear(hidden, width)

    def forward(self, x: Tensor, series: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The gated map [P, Cs, H, W] and series [B, T, D]."""
        means = torch.cat([fill_absent(x.mean(dim=(2, 3)), batch, self.absent), series.mean(dim=1)], dim=1)
        joint = torch.relu(self.squeeze(means))
        map_gate = 2 * torch.sigmoid(self.excite_map(joint[batch.image_sample]))
        series_gate = 2 * torch.sigmoid(self.excite_series(joint))
        return x * map_gate[:, :, None, None], series * series_gate[:, None]


class MMTM(Strategy):
    """Multimodal transfer modules."""

    missing = "complete"

    def __init__(self, shapes: Shapes, *, ratio: int = 4, first_stage: int = 2, series: str = "transformer") -> None:
        super().__init__(shapes)
        if ratio < 1:
            raise ValueError(f"ratio: must be at least 1, is {ratio}")
        if first_stage not in range(5):
            raise ValueError(f"first_stage: must be from 0 (the stem) to 4, is {first_stage}")
        size = shapes.encoders
        self.first_stage = first_stage
        self.series = series_encoder(series, shapes)
        self.image = ImageEncoder(shapes)
        widths = self.image.stage_widths[first_stage:]
        self.transfer = nn.ModuleList(TransferModule(maps, size.width, ratio) for maps in widths)
        self.after = AttentionLayer(size)
        self.absent = nn.Parameter(torch.zeros(size.width))
        self.dropout = nn.Dropout(size.dropout)
        self.head = nn.Linear(2 * size.width, shapes.outputs)

    def forward(self, batch: Batch) -> Output:
        """Logits of both gated streams; `features` holds each stage's output before its gates."""
        series, x = self.series(batch).tokens, self.image.normalise(batch.images)
        features = {"series": series}
        for number, stage in enumerate(self.image.stages):
            x = features[f"stage {number}"] = stage(x)
            if number >= self.first_stage:
                x, series = self.transfer[number - self.first_stage](x, series, batch)
        image = fill_absent(self.image.grid(x).mean(dim=1), batch, self.absent)
        joint = torch.cat([self.after(series).mean(dim=1), image], dim=1)
        return Output(self.head(self.dropout(joint)) + self.prior, features=features)
