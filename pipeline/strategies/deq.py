"""deq: the fused state is the fixed point of one block, in which modalities and fusion refine each other.

Paper: Ni et al., 2023 (arXiv 2306.16645).
Idea: each modality's state is refined with its encoding at hand, and the fusion state weighs anew what it takes from
them. The block is applied until nothing changes, as if it were a network of endless layers of the same weights; the
gradient is that of the fixed point, so its memory is that of one layer however many steps are taken. The mean square of
the block's Jacobian is kept small, that there is a fixed point to find.
Missing image: native. Its state is 0, and the fusion takes nothing from it, in training and at inference; an absent
record is treated the same way. Where nothing at all is there, the record of medians speaks.
Changed: norms of states start at 0.3, and no group's variance counts as less than 0.1: in the authors' block, at our
widths, the solver finds no fixed point of some stays. It takes `steps` steps, and of each stay's iterates the one that
the block moves least; the authors stop by a norm over the batch, so that an answer depends on who else is in it. Its
ridge is a share of the residuals' size. Both in training and at inference the answer is one application after the
solver's iterate. The Jacobian weighs as in the authors' multilabel task (elsewhere from 0.01 to 20). The paper's body
could not be read: the source is the authors' code, which knows no missing modality. history.csv has the residual,
relative to the state, in the median and at the 95th percentile of the first training stays: where it is not small, the
answer is no equilibrium. Reproduced by tests: the fixed point at the start, its gradient, memory that does not grow
with the steps. Not reproduced: that iterating to the fixed point predicts better than a few layers do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder, fill_absent
from pipeline.modelling.interface import Batch, Epoch, Output, Shapes, Strategy

GROUPS = 4  # of the group norms, as the authors'
FLOOR = 0.1  # of a group's variance: of what a ReLU leaves next to nothing, the norm makes no steps
SIZE = 0.3  # of a state's entries at the start: the block then contracts
RIDGE = 1e-4  # of Anderson's least squares, in units of the residuals' mean square
EHR, CXR, FUSED = 0, 1, 2  # parts of a state


@torch.no_grad()
def anderson(step: Callable[[Tensor], Tensor], start: Tensor, steps: int, memory: int) -> Tensor:
    """[B, N]: of each row's iterates from `start`, the one that `step` moves least; `step` is applied `steps` times.

    An iterate mixes what `step` made of the last `memory` ones, by weights of sum 1 for which the movements cancel
    best (Walker and Ni 2011, type II). A row's weights depend on no other row.
    """
    before, after = (start.new_zeros((len(start), memory, start.shape[1])) for _ in range(2))
    x, best, least = start, start, start.new_full((len(start),), torch.inf)
    for done in range(steps):
        moved = step(x)
        size = (moved - x).norm(dim=1)
        best, least = torch.where((size < least)[:, None], x, best), torch.minimum(size, least)
        before[:, done % memory], after[:, done % memory] = x, moved
        kept = min(done + 1, memory)
        movements = after[:, :kept] - before[:, :kept]
        gram = movements @ movements.mT
        scale = gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-30)
        system = gram / scale[:, None, None] + RIDGE * torch.eye(kept, device=gram.device, dtype=gram.dtype)
        weights = torch.linalg.solve_ex(system, torch.ones_like(gram[:, :, :1]))[0]  # without a wait for the GPU
        x = (weights / weights.sum(dim=1, keepdim=True) * after[:, :kept]).sum(dim=1)
    return best


def implicit(applied: Tensor, state: Tensor, steps: int, memory: int) -> Tensor:
    """`applied` = f(state) [B, N] itself, with the gradient of the fixed point: g becomes the y of y = Jᵀ y + g."""
    answer = applied.clone()

    def solved(g: Tensor) -> Tensor:
        def step(y: Tensor) -> Tensor:
            return torch.autograd.grad(applied, state, y, retain_graph=True)[0] + g

        return anderson(step, torch.zeros_like(g), steps, memory)

    answer.register_hook(solved)
    return answer


def jacobian_square(applied: Tensor, state: Tensor, probes: int) -> Tensor:
    """Hutchinson's estimate of ‖J‖² / N, the mean over rows, J [N, N] = ∂applied/∂state of a row; with a gradient."""
    found = []
    for _ in range(probes):
        (back,) = torch.autograd.grad(applied, state, torch.randn_like(applied), create_graph=True)
        found.append(back.square().mean())
    return torch.stack(found).mean()


def _norm(width: int, size: float = 1.0) -> nn.GroupNorm:
    norm = nn.GroupNorm(GROUPS, width, eps=FLOOR)
    nn.init.constant_(norm.weight, size)
    return norm


class _Refine(nn.Module):
    """A modality's part of the block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_first, self.norm_second, self.norm = _norm(width), _norm(width), _norm(width, SIZE)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """The state [B, D] after one application, given the modality's encoding x [B, D]."""
        inner = self.second(torch.relu(self.norm_first(self.first(z)))) + x
        refined: Tensor = self.norm(torch.relu(z + self.norm_second(inner)))
        return refined


class Block(nn.Module):
    """One application to a state [B, 3D]: the EHR's part, the image's, the fusion's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.refine = nn.ModuleList(_Refine(width) for _ in range(2))
        self.share = nn.Parameter(torch.ones(2))  # of each encoding in what is injected into the fusion
        self.shift = nn.Parameter(torch.zeros(()))
        self.gate, self.fuse = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = _norm(width, SIZE)

    def forward(self, state: Tensor, encodings: Tensor, there: Tensor) -> Tensor:
        """[B, 3D]; `encodings` [2, B, D]; `there` [2, B, 1], 0 or 1: of what is not, nothing enters."""
        parts = state.chunk(3, dim=1)
        fused = parts[FUSED]
        refined = [self.refine[m](parts[m], encodings[m]) * there[m] for m in (EHR, CXR)]
        taken = sum(fused * self.gate(refined[m] + fused) * there[m] for m in (EHR, CXR))
        injected = sum(self.share[m] * encodings[m] * there[m] for m in (EHR, CXR)) + self.shift
        return torch.cat([*refined, self.norm(torch.relu(self.fuse(taken) + injected))], dim=1)


class DEQ(Strategy):
    """Deep equilibrium fusion."""

    missing = "native"
    residual: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        steps: int = 25,
        memory: int = 5,
        jacobian: float = 0.1,
        probes: int = 1,
        gradient: str = "implicit",
    ) -> None:
        super().__init__(shapes)
        for key, count in {"steps": steps, "memory": memory, "probes": probes}.items():
            if count < 1:
                raise ValueError(f"{key} must be at least 1, is {count}")
        if jacobian < 0:
            raise ValueError(f"jacobian must be at least 0, is {jacobian}")
        if gradient not in ("implicit", "last"):
            raise ValueError(f"gradient must be implicit or last, is {gradient!r}")
        width = shapes.encoders.width
        if width % GROUPS:
            raise ValueError(f"the encoders' width must be a multiple of {GROUPS}, is {width}")
        self.solver_steps, self.memory, self.jacobian, self.probes = steps, memory, jacobian, probes
        self.gradient = gradient
        self.series, self.image = TransformerEncoder(shapes), ImageEncoder(shapes)
        self.block = Block(width)
        self.dropout = nn.Dropout(shapes.encoders.dropout)
        self.head = nn.Linear(width, shapes.outputs)
        self.register_buffer("residual", torch.ones(2))  # median and 95th percentile; 1: nothing is solved

    def forward(self, batch: Batch) -> Output:
        """Logits of the fusion's part of the fixed point."""
        series, image = self.series(batch).pooled, self.image(batch.images).pooled
        image = fill_absent(image, batch, image.new_zeros(image.shape[1]))
        with _exactly(batch):
            encodings = torch.stack([series.float(), image.float()])
            there = batch.heard.T[:, :, None].float()
            start = encodings.new_zeros((batch.size, 3 * encodings.shape[2]))
            given = encodings.detach()
            found = anderson(lambda z: self.block(z, given, there), start, self.solver_steps, self.memory)
            state = found.requires_grad_() if torch.is_grad_enabled() else found
            applied: Tensor = self.block(state, encodings, there)
            residual = (applied - state).detach().norm(dim=1) / state.detach().norm(dim=1).clamp(min=1e-12)
            answer = applied
            if torch.is_grad_enabled() and self.gradient == "implicit":
                answer = implicit(applied, state, self.solver_steps, self.memory)
        logits = self.head(self.dropout(answer.chunk(3, dim=1)[FUSED]))
        return Output(logits + self.prior, features={"state": state, "applied": applied, "residual": residual})

    def losses(self, output: Output, batch: Batch, targets: Tensor) -> dict[str, Tensor]:
        """Task loss; the size of the block's Jacobian at the fixed point."""
        found = super().losses(output, batch, targets)
        if self.jacobian > 0:
            with _exactly(batch):
                size = jacobian_square(output.features["applied"], output.features["state"], self.probes)
            found["jacobian"] = self.jacobian * size
        return found

    def between_epochs(self, epoch: Epoch) -> None:
        """Measures on the first training stays how far the answers are from a fixed point."""
        for batch, _ in epoch.batches():
            at = torch.tensor([0.5, 0.95], device=self.residual.device)
            self.residual.copy_(torch.quantile(self(batch).features["residual"], at))
            break

    def diagnostics(self) -> dict[str, float]:
        """‖f(z) − z‖ / ‖z‖ of the first training stays, in the data's order, at the weights of the epoch's end."""
        return {"residual_median": float(self.residual[0]), "residual_95": float(self.residual[1])}


def _exactly(batch: Batch) -> contextlib.AbstractContextManager[Any]:
    """In float32 where the rest is not: an iteration lives on small differences."""
    return torch.autocast("cuda" if batch.ehr.is_cuda else "cpu", enabled=False)
