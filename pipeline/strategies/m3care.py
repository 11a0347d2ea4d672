"""m3care: a missing image's latent is gathered from similar patients, by a graph over a memory of training stays.

Paper: Zhang et al., KDD 2022 (arXiv 2210.17292).
Idea: deep kernels, one a modality, say how alike two patients are in what both have; a graph convolution gathers each
modality's latent from those alike; where the modality is there a gate mixes it in, where it is missing it stands in.
Missing image: native. Its latent is gathered from the memory, in training and at inference; so is an absent record's.
Changed: neighbours are the first training stays with both modalities, encoded anew between epochs, not the batch: a
prediction depends on nobody else in it. The `neighbours` most similar are kept, where the authors keep what exceeds a
learned threshold: one low enough to leave nobody alone kept nearly all, and imputed the same for everybody (CareBench's
no similarity can reach, so its graph is always empty). A stay is not its own neighbour; one that is remembered is, as
everybody in the authors' notebook. Rows of the graph are normalised, its layers start at He et al.'s size, similarity
is a mean over what a pair has in common, LayerNorm stands for BatchNorm. The full paper could not be read: the source
is a description of the authors' notebook.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.layers import AttentionLayer
from pipeline.modelling.losses import mean_where

NAMES = {EHR: "ehr", CXR: "cxr"}


def squares(a: Tensor, b: Tensor) -> Tensor:
    """[N, M]: squared distances of a [N, D] and b [M, D], by the products alone: [N, M, D] would not fit."""
    return (a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None] - 2 * a @ b.T).clamp(min=0)


def kernel(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """[N, M]: mean of Gaussian kernels at half, one and two times `scale`, a squared length."""
    square = squares(a, b)
    return torch.stack([torch.exp(-square / (factor * scale)) for factor in (0.5, 1.0, 2.0)]).mean(dim=0)


class M3Care(Strategy):
    """Imputation in latent space from similar patients."""

    missing = "native"
    memory: Tensor
    memory_index: Tensor

    def __init__(self, shapes: Shapes, *, remember: int = 128, neighbours: int = 5, stability: float = 0.001) -> None:
        super().__init__(shapes)
        if remember < 1:
            raise ValueError(f"remember must be at least 1, is {remember}")
        if not 1 <= neighbours <= remember:
            raise ValueError(f"neighbours must lie between 1 and remember ({remember}), is {neighbours}")
        if stability < 0:
            raise ValueError(f"stability must be at least 0, is {stability}")
        self.neighbours, self.stability = neighbours, stability
        size = shapes.encoders
        width = size.width
        self.series = TransformerEncoder(shapes)
        self.image = ImageEncoder(shapes)
        self.similar = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
            )
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.raw_share = nn.Parameter(torch.full((2,), 2.0))  # sigmoid: how much of the raw kernel is left unweighted
        self.gather = nn.ModuleList(nn.Linear(width, width) for _ in range(2))  # first layer of the graph convolution
        self.gather_again = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        for layer in (*self.gather, *self.gather_again):  # what is gathered is as large as what stands beside it
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.trust_gathered = nn.ModuleList(nn.Linear(width, 1) for _ in range(2))
        self.trust_own = nn.ModuleList(nn.Linear(width, 1) for _ in range(2))
        self.kind = nn.Parameter(torch.randn(2, width) * 0.02)
        self.interact = AttentionLayer(size)
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Dropout(size.dropout), nn.Linear(width, shapes.outputs)
        )
        self.register_buffer("memory", torch.zeros(2, remember, width))
        self.register_buffer("memory_index", torch.full((remember,), -1))  # of the stay; -1 where nobody is remembered

    def encode(self, batch: Batch) -> Tensor:
        """Latents [2, B, D]; zeros where there is no image."""
        image = self.image(batch.images).pooled
        image = fill_absent(image, batch, image.new_zeros(image.shape[1]))
        series = self.series(batch).pooled
        return torch.stack([series, image.to(series.dtype)])

    def similarity(self, a: Tensor, b: Tensor, there: Tensor) -> Tensor:
        """[N, M]: mean over the modalities of a [2, N, D] that are `there` [N, 2] of the kernels with b [2, M, D].

        b has both; kernels are scaled by b's mean squared distance. 0 where there is no modality.
        """
        total = a.new_zeros((a.shape[1], b.shape[1]), dtype=torch.float32)
        for modality in NAMES:
            raw_a, raw_b = self.norm(a[modality]).float(), self.norm(b[modality]).float()
            network = self.similar[modality]
            deep_a = self.norm(torch.relu(network(a[modality]))).float()
            deep_b = self.norm(torch.relu(network(b[modality]))).float()
            share = torch.sigmoid(self.raw_share[modality])
            deep = kernel(deep_a, deep_b, self.spread(deep_b))
            raw = kernel(raw_a, raw_b, self.spread(raw_b))
            total = total + ((1 - share) * deep + share) * raw * there[:, modality, None]
        return total / there.sum(dim=1, keepdim=True).clamp(min=1)

    def spread(self, x: Tensor) -> Tensor:
        """Mean squared distance of two of those remembered, without gradient."""
        known = (self.memory_index >= 0).float()
        square = squares(x.detach(), x.detach()) * known[:, None] * known[None]
        return (square.sum() / (known.sum() * (known.sum() - 1)).clamp(min=1)).clamp(min=1e-6)

    def graph(self, similarity: Tensor, index: Tensor) -> Tensor:
        """[N, M], rows of sum 1 (0 where nobody is similar): the most similar, never the stay `index` [N] itself."""
        neighbour = (self.memory_index >= 0)[None] & (self.memory_index[None] != index[:, None])
        kept, place = (similarity * neighbour).topk(self.neighbours, dim=1)
        share = kept / kept.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return torch.zeros_like(similarity).scatter(1, place, share)

    def gathered(self, own: Tensor, batch: Batch) -> Tensor:
        """[2, B, D]: two graph convolutions over the memory, a modality."""
        both = batch.present.new_ones((len(self.memory_index), 2))
        everyone = torch.cat([own, self.memory.to(own.dtype)], dim=1)  # batch and memory in one go
        similarity = self.similarity(everyone, self.memory, torch.cat([batch.present, both]))
        nobody = torch.full_like(self.memory_index, -2)  # those remembered are neighbours of themselves
        edges = self.graph(similarity, torch.cat([batch.index, nobody]))
        to_memory, within = edges.split([batch.size, len(both)])
        found = []
        for modality, (first, second) in enumerate(zip(self.gather, self.gather_again, strict=True)):
            hidden = torch.relu(first(within.to(own.dtype) @ self.memory[modality].to(own.dtype)))
            found.append(torch.relu(second(to_memory.to(hidden.dtype) @ hidden)))
        return torch.stack(found)

    def forward(self, batch: Batch) -> Output:
        """Logits from both latents, own and gathered mixed by a gate, gathered alone where there is no own one."""
        own = self.encode(batch)
        gathered = self.gathered(own, batch)
        latents = []
        for modality in NAMES:
            g, x = gathered[modality], own[modality]
            trust = torch.sigmoid(self.trust_gathered[modality](g))
            trust = trust / (trust + torch.sigmoid(self.trust_own[modality](x)))
            latents.append(torch.where(batch.present[:, modality, None], trust * g + (1 - trust) * x, g))
        tokens = self.interact(torch.stack(latents, dim=1) + self.kind)
        features = {"own_ehr": own[EHR], "own_cxr": own[CXR], "latent_ehr": latents[EHR], "latent_cxr": latents[CXR]}
        features["imputed"] = latents[CXR]
        return Output(self.head(tokens.flatten(1)) + self.prior, features=features)

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss; how much the kernels' networks change the length of a latent, the mean over those present."""
        found = super().losses(output, batch, targets)
        for modality, name in NAMES.items():
            x = output.features[f"own_{name}"]
            change = (self.similar[modality](x).norm(dim=1) - x.norm(dim=1)).abs()
            found[f"stability_{name}"] = self.stability * mean_where(change, batch.present[:, modality])
        return found

    def between_epochs(self, epoch: Epoch) -> None:
        """Encodes anew the first training stays that have both modalities."""
        left = len(self.memory_index)
        latents, indices = [self.memory[:, :0]], [self.memory_index[:0]]
        for batch, _ in epoch.batches():
            both = batch.present.all(dim=1)
            latents.append(self.encode(batch)[:, both][:, :left].to(self.memory.dtype))
            indices.append(batch.index[both][:left])
            left -= len(indices[-1])
            if left == 0:
                break
        count = len(self.memory_index) - left
        self.memory.zero_()
        self.memory_index.fill_(-1)
        self.memory[:, :count] = torch.cat(latents, dim=1)
        self.memory_index[:count] = torch.cat(indices)
