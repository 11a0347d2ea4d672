"""medpatch: tokens that are sure of their label are fused apart from those that are not; then all answers are weighed.

Paper: Al Jorf and Shamout, MLHC 2025 (arXiv 2508.09182), read in abstract; formulas after the authors' code.
Idea: encoders learn alone. A linear head tells of every token, hour or part of the image, how sure it is of each label,
calibrated on stays that it has not learned from. Of each label the sure tokens of a modality are averaged, and the
others; sure ones of both modalities make one joint answer, the others a second, what is missing a third. The answer is
a weighted mean of these and of each modality's own, with a weight a label.
Missing image: native. Its own answer has no weight, the others' are divided anew; it has no token in either pool (zeros
stand there) and answers with the pattern of what is missing; in training and at inference. So for a record.
Changed: the paper's body could not be read. One run has both phases, where the authors pretrain: in the first the mean
of the modalities' own answers is what is answered, and the heads of confidence learn beside the encoders, without
moving them; it takes a fifth of the epochs, as encoders may start trained (0.2 or 0.4 on dev of the demo hospital,
phenotypes, three folds: AUROC 0.625 or 0.608 in base, 0.578 or 0.579 in matched). In the second, encoders and
confidences stand still: in the code, too, whose fixed copies are the encoders themselves. Temperatures are fitted to a
tenth of the training stays (`held`), of which the first phase learns nothing, the second does; theirs by descent to
validation. They are chosen on a grid, and pulled to 1, as an hour's few stays do not tell one; of phenotypes' records
the code forgets them. Encoders that start from unimodal runs have seen the held stays. A hidden layer in the joint
heads, which also does what their projections do (`hidden: 0`: as published, where modalities meet in a norm alone; from
two of three starts no exclusive or was learned in 800 steps). Weights of the answers sum to 1 for each label (in the
code over all labels together, by which 25 phenotypes' logits are a 25th). Losses weigh alike, where the code may learn
to weigh the easiest most; it selects by the mean of both joint answers and the late one, which alone answers here. A
length of stay has one confidence for all classes, from chance at 0.5 to certainty at 1. No reports, no notes. Of a rare
label nearly all tokens are sure that it is absent, and the unsure pool is empty; history.csv has the shares. Reproduced
by tests, of the abstract: that confidences are calibrated (on fresh stays their loss falls), and that the module of
missingness learns what presence tells. Not tested: that two pools tell more than one, and the state of the art.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent, mean_of_present
from pipeline.modelling.interface import CXR, EHR, Batch, Epoch, Output, Shapes, Strategy
from pipeline.modelling.layers import Dropout
from pipeline.modelling.losses import element_losses, mean_where, sample_losses, task_loss

NAMES = {"ehr": EHR, "cxr": CXR}
LOG_TEMPERATURES = sorted((i / 8 for i in range(-16, 17)), key=abs)  # 1 first: it is kept where nothing tells
PULL = 2.0  # nats on the square of a log temperature: a normal prior of deviation 0.5


def token_losses(logits: Tensor, targets: Tensor, kind: str) -> Tensor:
    """Losses [N, n, K], or [N, n, 1] of the class, of tokens' logits [N, n, K] against their stays' targets."""
    count = logits.shape[1]
    each = element_losses(logits.flatten(0, 1), targets.repeat_interleave(count, dim=0), kind)
    return each.view(-1, count, each.shape[1])


def confidence(logits: Tensor, kind: str) -> Tensor:
    """[…, K] of labels, [..., 1] of classes, from 0.5, chance, to 1: how sure logits […, K] are, of whatever."""
    if kind == "multiclass":
        chance = 1 / logits.shape[-1]
        likeliest = logits.softmax(dim=-1).amax(dim=-1, keepdim=True)
        return 0.5 + 0.5 * (likeliest - chance) / (1 - chance)
    return torch.sigmoid(logits.abs())


def mean_of(tokens: Tensor, chosen: Tensor) -> Tensor:
    """[N, J, D]: of tokens [N, n, D] the means of those that bool [N, n, J] chooses; 0 where it chooses none."""
    weights = chosen / chosen.sum(dim=1, keepdim=True).clamp(min=1)
    return weights.to(tokens.dtype).transpose(1, 2) @ tokens


class MedPatch(Strategy):
    """Confidence-guided patches, joint and late fusion at once."""

    missing = "native"
    second: Tensor
    held: Tensor
    temperature_ehr: Tensor
    temperature_cxr: Tensor
    counted: Tensor
    sure: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        threshold: float = 0.75,
        first_share: float = 0.2,
        joint: float = 1.0,
        held: float = 0.1,
        hidden: int = 1,
    ) -> None:
        super().__init__(shapes)
        if not 0.5 <= threshold <= 1:
            raise ValueError(f"threshold: must lie between 0.5 and 1, is {threshold}")
        if not 0 < first_share < 1:
            raise ValueError(f"first_share: must lie between 0 and 1, is {first_share}")
        if joint < 0:
            raise ValueError(f"joint: must be at least 0, is {joint}")
        if not 0 <= held < 1:
            raise ValueError(f"held: must be at least 0 and below 1, is {held}")
        if hidden < 0:
            raise ValueError(f"hidden: must be at least 0, is {hidden}")
        self.threshold, self.first_share, self.joint = threshold, first_share, joint
        self.kind = shapes.task.kind
        size, outputs = shapes.encoders, shapes.outputs
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.dropout = Dropout(size.dropout)
        self.alone = nn.ModuleDict({name: nn.Linear(size.width, outputs) for name in NAMES})
        self.tell = nn.ModuleDict({name: nn.Linear(size.width, outputs) for name in NAMES})  # of single tokens
        pools = 1 if self.kind == "multiclass" else outputs
        self.high, self.low = (self._head(len(NAMES) * pools * size.width, hidden) for _ in range(2))
        self.missingness = nn.Linear(len(NAMES), outputs)
        self.weights = nn.Parameter(torch.ones(len(NAMES) + 3, outputs))  # of each alone, missingness, low, high
        with torch.no_grad():
            cells = self.image(torch.zeros(0, *shapes.image)).tokens.shape[1]
        for name, count in (("ehr", shapes.hours), ("cxr", cells)):
            self.register_buffer(f"temperature_{name}", torch.ones(count, pools))
        self.register_buffer("second", torch.zeros((), dtype=torch.bool))  # whether the second phase has begun
        self.register_buffer("held", torch.rand(shapes.stays) < held)
        self.register_buffer("counted", torch.zeros(2, 2))  # this epoch's sums of shares of sure tokens, and stays
        self.register_buffer("sure", torch.zeros(2))  # the last one's shares

    def _head(self, width_in: int, hidden: int) -> nn.Sequential:
        width = self.shapes.encoders.width
        layers: list[nn.Module] = [nn.LayerNorm(width_in)]
        for _ in range(hidden):
            layers += [nn.Linear(width_in, 2 * width), nn.ReLU(), Dropout(self.shapes.encoders.dropout)]
            width_in = 2 * width
        return nn.Sequential(*layers, nn.Linear(width_in, self.shapes.outputs))

    def temperatures(self, name: str) -> Tensor:
        """[n, K or 1] of a modality's tokens."""
        found: Tensor = getattr(self, f"temperature_{name}")
        return found

    def forward(self, batch: Batch) -> Output:
        """Logits of the weighted mean of all answers; in the first phase the mean of what each modality says alone.

        `features` of the first phase: both encoders' tokens; of the second, logits `high` and `low` of the joint heads,
        and which share of a stay's tokens is sure.
        """
        second = bool(self.second)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not second):
            series, image = self.series(batch), self.image(batch.images)
            tokens = {"ehr": series.tokens, "cxr": image.tokens}
        ehr, cxr = (
            self.alone[name](self.dropout(each)) for name, each in (("ehr", series.pooled), ("cxr", image.pooled))
        )
        own = torch.stack([ehr, fill_absent(cxr, batch, cxr.new_zeros(cxr.shape[1])).to(ehr.dtype)], dim=1)
        unimodal = {name: own[:, place] + self.prior for name, place in NAMES.items()}
        if not second:
            return Output(mean_of_present(ehr, cxr, batch) + self.prior, unimodal=unimodal, features=tokens)
        high, low, features = self.fused(tokens, batch)
        missingness = self.missingness(batch.present.to(ehr.dtype))
        told = torch.cat([own, torch.stack([missingness, low, high], dim=1).to(own.dtype)], dim=1)  # [B, 5, K]
        late = (self.late_weights(batch) * told).sum(dim=1)
        features |= {"high": high + self.prior, "low": low + self.prior}
        return Output(late + self.prior, unimodal=unimodal, features=features)

    def late_weights(self, batch: Batch) -> Tensor:
        """[B, 5, K]: what each answer counts; of those that are there they sum to 1."""
        there = torch.cat([batch.heard, batch.heard.new_ones(batch.size, 3)], dim=1)
        weights = torch.softmax(self.weights, dim=0) * there[:, :, None]
        return weights / weights.sum(dim=1, keepdim=True)

    def confidences(self, tokens: Tensor, name: str) -> Tensor:
        """[N, n, K or 1] of tokens [N, n, D], calibrated."""
        return confidence((self.tell[name](tokens) + self.prior).float() / self.temperatures(name), self.kind)

    def fused(self, tokens: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits [B, K] of the pools of sure tokens, of the others; the shares [B] or [P] of sure tokens."""
        chosen = {name: self.confidences(each, name).detach() >= self.threshold for name, each in tokens.items()}
        logits = []
        for head, wanted in ((self.high, chosen), (self.low, {name: ~each for name, each in chosen.items()})):
            ehr, cxr = (mean_of(tokens[name], wanted[name]).flatten(1) for name in NAMES)
            cxr = fill_absent(cxr, batch, cxr.new_zeros(cxr.shape[1]))
            logits.append(head(torch.cat([ehr * batch.heard[:, EHR, None], cxr.to(ehr.dtype)], dim=1)))
        return *logits, {f"sure_{name}": each.float().mean(dim=(1, 2)) for name, each in chosen.items()}

    def rows(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each modality's vectors, [B] or [P], their samples, and whether the modality is there."""
        samples = {"ehr": torch.arange(batch.size, device=batch.ehr.device), "cxr": batch.image_sample}
        return {name: (rows, batch.present[rows, NAMES[name]]) for name, rows in samples.items()}

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """First phase: each modality's own, and its tokens' own, which is not the encoder's; `task` shown.

        Second: that of all answers together, and of either pool's.
        """
        found, task = super().losses(output, batch, targets), self.shapes.task
        rows, zero = self.rows(batch), torch.zeros_like(found["task"])
        if self.second:
            for place, (name, (_, there)) in enumerate(rows.items()):
                found |= {name: zero, f"tokens_{name}": zero}
                if self.training:
                    shares = output.features[f"sure_{name}"][there]
                    self.counted[place] += torch.stack([shares.sum(), there.sum()])
            return found | {
                name: self.joint * task_loss(output.features[name], targets, task) for name in ("high", "low")
            }
        found["task"] = found["task"].detach()
        for name, (samples, there) in rows.items():
            learns = there & ~self.held[batch.index[samples]]
            own = sample_losses(output.unimodal[name][samples], targets[samples], task)
            tokens = self.tell[name](output.features[name].detach()) + self.prior
            each = token_losses(tokens, targets[samples], self.kind).mean(dim=(1, 2))
            found |= {name: mean_where(own, learns), f"tokens_{name}": mean_where(each, learns)}
        return found | {"high": zero, "low": zero}

    def between_epochs(self, epoch: Epoch) -> None:
        """The second phase begins, with the temperatures of its tokens; files how many tokens were sure."""
        second = epoch.done >= self.first_share * epoch.count
        if second and not self.second:
            self.calibrate(epoch)
        self.second.fill_(second)
        self.sure.copy_(self.counted[:, 0] / self.counted[:, 1].clamp(min=1))
        self.counted.zero_()

    def calibrate(self, epoch: Epoch) -> None:
        """Temperatures by which the tokens of held stays lose least, place by place and label by label."""
        grid = torch.tensor(LOG_TEMPERATURES, device=self.prior.device)
        lost = {name: PULL * grid.square()[:, None, None] + 0 * self.temperatures(name) for name in NAMES}
        for batch, targets in epoch.batches():
            tokens = {"ehr": self.series(batch).tokens, "cxr": self.image(batch.images).tokens}
            for name, (samples, there) in self.rows(batch).items():
                of = there & self.held[batch.index[samples]]
                logits, truth = (self.tell[name](tokens[name][of]) + self.prior).float(), targets[samples[of]]
                for each, temperature in zip(lost[name], grid.exp(), strict=True):
                    each += token_losses(logits / temperature, truth, self.kind).sum(dim=0)
        for name in NAMES:
            self.temperatures(name).copy_(grid.exp()[lost[name].argmin(dim=0)])

    def waiting(self) -> list[nn.Parameter]:
        """The joint heads, missingness and weights, until the second phase."""
        later = [*self.high.parameters(), *self.low.parameters(), *self.missingness.parameters(), self.weights]
        return [] if self.second else later

    def diagnostics(self) -> dict[str, float]:
        """Of the last epoch's training stays the share of tokens that were sure; temperatures, their mean."""
        shares = {f"sure_{name}": float(self.sure[place]) for place, name in enumerate(NAMES)}
        return shares | {f"temperature_{name}": float(self.temperatures(name).mean()) for name in NAMES}
