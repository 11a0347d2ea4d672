"""drfuse: what the modalities share and what is their own, told apart; each label weighs the three by attention.

Paper: Yao et al., AAAI 2024 (arXiv 2403.06197).
Idea: two shared representations are pulled together, each modality's own is pushed away from them, so that a missing
image costs its own part alone; a label attends to [EHR's own; shared; image's own], and learns which of them to trust.
Missing image: native. The shared part is then the EHR's alone and the image's token is masked in the attention, in
training and at inference; losses that compare modalities see pairs alone. An absent record is treated the same way.
Changed: one trunk (the shared encoders) with two branches a modality; the two CNNs share the stem, as the authors' do.
Separation weighs a tenth of the rest, where the authors weigh all alike: at 1 its cosines drown what the predictions
tell the image encoder (of 1, 0.1 and 0.01, the largest that cost nothing on dev). The three tokens pass a dropout
before the attention, as the authors' do not.
The divergence is of Bernoulli variables, complement and all (the official code sums p log p/m alone), over pairs alone.
Length of stay has one loss a sample, so its attention is ranked by that for all classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import CXR, EHR, Batch, Output, Shapes, Strategy
from pipeline.modelling.layers import AttentionLayer
from pipeline.modelling.losses import divergence, element_losses, mean_logits, mean_where, sample_losses

OWN_EHR, SHARED, OWN_CXR = 0, 1, 2  # tokens of the attention


def ranking(weight: Tensor, other: Tensor, loss: Tensor, loss_other: Tensor, pairs: Tensor) -> Tensor:
    """Hinge where the token with the smaller loss has the smaller attention; mean over the violations.

    Attentions [B, K], losses [B, K] or [B, 1] without gradient, pairs [B].
    """
    sign = torch.where(loss < loss_other, 1.0, -1.0)
    hinge = torch.relu(-sign * (weight - other)) * pairs[:, None]
    return hinge.sum() / (hinge > 0).sum().clamp(min=1)


class DrFuse(Strategy):
    """Disentangled representations, disease-wise attention."""

    missing = "native"

    def __init__(
        self,
        shapes: Shapes,
        *,
        predict_shared: float = 1.0,
        predict_ehr: float = 1.0,
        predict_cxr: float = 1.0,
        align: float = 1.0,
        separate_ehr: float = 0.1,
        separate_cxr: float = 0.1,
        rank_attention: float = 1.0,
    ) -> None:
        super().__init__(shapes)
        self.weights = {
            "predict_shared": predict_shared,
            "predict_ehr": predict_ehr,
            "predict_cxr": predict_cxr,
            "align": align,
            "separate_ehr": separate_ehr,
            "separate_cxr": separate_cxr,
            "rank_attention": rank_attention,
        }
        for key, weight in self.weights.items():
            if weight < 0:
                raise ValueError(f"{key} must be at least 0, is {weight}")
        size, outputs = shapes.encoders, shapes.outputs
        self.series = TransformerEncoder(shapes)
        self.series_shared, self.series_own = AttentionLayer(size), AttentionLayer(size)
        self.image_shared, self.image_own = ImageEncoder(shapes), ImageEncoder(shapes)
        del self.image_own.stages[0]
        self.project = nn.Sequential(
            nn.Linear(size.width, 2 * size.width),
            nn.ReLU(),
            nn.Linear(2 * size.width, size.width),
            nn.ReLU(),
            nn.Linear(size.width, size.width),
        )
        self.head_shared, self.head_ehr, self.head_cxr = (nn.Linear(size.width, outputs) for _ in range(3))
        self.attention = nn.Linear(size.width, (2 + outputs) * size.width)
        self.head = nn.Linear(size.width, outputs)
        self.dropout = nn.Dropout(size.dropout)

    def forward(self, batch: Batch) -> Output:
        """Logits from the three representations; those of each alone in `unimodal`."""
        trunk = self.series(batch).tokens
        own_ehr = self.series_own(trunk).mean(dim=1)
        shared_ehr = self.project(self.series_shared(trunk).mean(dim=1))
        images = self.image_shared(batch.images)
        nothing = own_ehr.new_zeros(own_ehr.shape[1])
        own_cxr = fill_absent(self.image_own.encode(images.maps[0]).pooled, batch, nothing)
        shared_cxr = self.project(fill_absent(images.pooled, batch, nothing))

        with_ehr, with_cxr = batch.heard.unbind(dim=1)
        alone = torch.where(with_ehr[:, None], shared_ehr, shared_cxr)
        both = (with_ehr & with_cxr)[:, None]
        shared = torch.where(both, mean_logits(shared_ehr, shared_cxr, "multilabel"), alone)

        tokens = self.dropout(torch.stack([own_ehr, shared, own_cxr], dim=1))
        there = torch.stack([with_ehr, torch.ones_like(with_ehr), with_cxr], dim=1)
        attention = self.attend(tokens, there)
        return Output(
            attention["logits"] + self.prior,
            unimodal={
                "ehr": self.head_ehr(own_ehr) + self.prior,
                "cxr": self.head_cxr(own_cxr) + self.prior,
                "shared": self.head_shared(shared) + self.prior,
            },
            features={
                "shared_ehr": shared_ehr,
                "shared_cxr": shared_cxr,
                "own_ehr": own_ehr,
                "own_cxr": own_cxr,
                "attention": attention["weights"],
            },
        )

    def attend(self, tokens: Tensor, there: Tensor) -> dict[str, Tensor]:
        """`logits` [B, K] and `weights` [B, K, 3] of tokens [B, 3, D], those that are not `there` left out.

        A query a sample (the mean of those that are there), a key a label and token, a value a token.
        """
        made = self.attention(tokens).unflatten(2, (2 + self.shapes.outputs, -1))  # [B, 3, 2 + K, D]
        query, value, keys = made[:, :, 0], made[:, :, 1], made[:, :, 2:]
        mean = (query * there[:, :, None]).sum(dim=1) / there.sum(dim=1, keepdim=True)
        scores = torch.einsum("bd,bnkd->bkn", mean, keys) / tokens.shape[-1] ** 0.5
        weights = torch.softmax(scores.masked_fill(~there[:, None, :], -torch.inf), dim=-1)
        features = weights @ value
        return {"logits": (features * self.head.weight).sum(dim=-1) + self.head.bias, "weights": weights}

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss; predictions of each representation; agreement, separation and ranked attention."""
        found, features = super().losses(output, batch, targets), output.features
        with_ehr, with_cxr = batch.present[:, EHR], batch.present[:, CXR]
        pairs, everyone = with_ehr & with_cxr, torch.ones_like(with_ehr)
        for key, where in (("shared", everyone), ("ehr", with_ehr), ("cxr", with_cxr)):
            found[f"predict_{key}"] = mean_where(sample_losses(output.unimodal[key], targets, self.shapes.task), where)
        found["align"] = mean_where(divergence(features["shared_ehr"], features["shared_cxr"]), pairs)
        for key, where in (("ehr", with_ehr), ("cxr", with_cxr)):
            cosine = torch.cosine_similarity(features[f"shared_{key}"], features[f"own_{key}"], dim=1)
            found[f"separate_{key}"] = mean_where(cosine.abs(), where)
        found["rank_attention"] = self.ranked(output, targets, pairs)
        return {key: self.weights.get(key, 1.0) * value for key, value in found.items()}

    def ranked(self, output: Output, targets: Tensor, pairs: Tensor) -> Tensor:
        """Mean of the three rankings, label by label: of each two tokens, the better predictor gets more attention."""

        names = {OWN_EHR: "ehr", SHARED: "shared", OWN_CXR: "cxr"}
        kind = self.shapes.task.kind
        loss = {token: element_losses(output.unimodal[name].detach(), targets, kind) for token, name in names.items()}
        weight = output.features["attention"]
        rankings = [
            ranking(weight[:, :, a], weight[:, :, b], loss[a], loss[b], pairs)
            for a, b in ((OWN_CXR, OWN_EHR), (SHARED, OWN_EHR), (SHARED, OWN_CXR))
        ]
        return torch.stack(rankings).mean()
