"""The optimiser of every strategy: AdamW, which parameters it decays, and the schedule of its learning rate."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from pipeline.modelling.interface import Strategy


class AdamW(torch.optim.AdamW):
    """torch's own, bit for bit, without importing torch's compiler: 1.6 of the 4 s in which a train cell starts.

    torch.optim wraps these methods for torch.compile, and each wrapper imports torch._dynamo when it is called.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


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
