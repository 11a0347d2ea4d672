"""The optimiser of every strategy: AdamW, which parameters it decays, and the schedule of its learning rate."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.modelling.interface import Strategy


@dataclass(frozen=True)
class _Lists:
    """The state of parameters that have gradients: `whose` ids; `steps` are the entries of one tensor, `step`."""

    whose: list[int]
    mean: list[Tensor]
    square: list[Tensor]
    step: Tensor
    steps: list[Tensor]


def _lists(params: list[Tensor], state: dict[Tensor, Any]) -> _Lists:
    """Of the optimiser's `state`, which is given what it lacks."""
    for p in params:
        if not state[p]:
            state[p].update(step=torch.zeros((), device=p.device), exp_avg=torch.zeros_like(p))
            state[p]["exp_avg_sq"] = torch.zeros_like(p)
    step = torch.stack([state[p]["step"] for p in params])
    steps = list(step.unbind())
    for p, own in zip(params, steps, strict=True):
        state[p]["step"] = own
    mean, square = ([state[p][key] for p in params] for key in ("exp_avg", "exp_avg_sq"))
    return _Lists([id(p) for p in params], mean, square, step, steps)


class AdamW(torch.optim.AdamW):
    """torch's own, fused, bit for bit, without importing torch's compiler: 1.6 of the 4 s in which a train cell starts.

    torch.optim wraps these methods for torch.compile, and each wrapper imports torch._dynamo when it is called.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))

    def __init__(self, params: Any, **options: Any) -> None:
        self.lists: dict[int, _Lists] = {}  # of each group
        super().__init__(params, fused=True, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        self.lists.clear()
        inspect.unwrap(torch.optim.AdamW.load_state_dict)(self, state_dict)

    @torch.no_grad()
    def descend(self, most: float) -> None:
        """A step by the gradients, which are first scaled to a norm of `most` over all parameters where it is larger.

        As clip_grad_norm_ and step, in three operations a group in place of several a parameter.
        """
        trained = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        gradients = [[p.grad for p in params] for params in trained]
        if not any(gradients):
            return
        norm = torch.cat([gradient.reshape(-1) for group in gradients for gradient in group]).norm()
        scale = ((norm + 1e-6) / most).clamp(min=1)
        for number, (group, params, grads) in enumerate(zip(self.param_groups, trained, gradients, strict=True)):
            if not params:
                continue
            lists = self.lists.get(number)
            if lists is None or lists.whose != [id(p) for p in params]:  # some have their first gradient
                lists = self.lists[number] = _lists(params, self.state)
            lists.step.add_(1)
            torch._fused_adamw_(
                params,
                grads,
                lists.mean,
                lists.square,
                [],
                lists.steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=scale,
            )


def optimiser_groups(strategy: Strategy, weight_decay: float) -> list[dict[str, Any]]:
    """Every trainable parameter in exactly one of two groups; biases, norms and single vectors are not decayed.

    A bias is one by its name too: those of many like layers may stand in one tensor, as flexmoe's experts' do.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in strategy.named_parameters():
        if parameter.requires_grad:
            is_bias = "bias" in name.rsplit(".", 1)[-1]
            (kept if is_bias or parameter.ndim <= 1 else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Factor on lr at `step` of `steps`: linear warm-up, then a cosine to zero."""
    warmup = max(1, round(steps * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
