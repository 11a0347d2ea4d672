"""What a strategy costs to run: its parameters, and the FLOPs of a forward pass over a stay with or without an image.

Nothing is computed where shapes suffice: parameters are on the meta device, which knows no values, and each operation's
FLOPs follow from its shapes by torch.utils.flop_counter: matrix products, convolutions and attention, 2 a multiply-add,
the rest left out. The batch itself is real, since its values decide shapes (which images are there, what was charted).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry

from pipeline.data.inputs import HOURS, channel_variables
from pipeline.mimic.variables import load_variables
from pipeline.modelling.examples import example_batch
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Shapes
from pipeline.modelling.registry import build, strategy_class
from pipeline.params import Encoders
from pipeline.tasks import get_task

TASK = "phenotype"  # the task of most logits; others differ in what is made a label
COUNTS = ("parameters", "flops_with_image", "flops_without_image")
SCHEMA = {"strategy": pl.String, "scale": pl.String, "px": pl.Int64} | dict.fromkeys(COUNTS, pl.Int64)


class FlopCounter(TorchDispatchMode):
    """Adds up FLOPs in `flops` while it is active. An operation that meets a meta tensor happens on the meta device.

    What an operation gives is remembered by its shapes: on the meta device most take a millisecond of Python.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.known: dict[Any, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation's result."""
        leaves, tree = tree_flatten((args, kwargs or {}))
        if not any(leaf.is_meta for leaf in leaves if isinstance(leaf, Tensor)):
            result, flops = _counted(func, args, kwargs or {})
        elif any(returned.alias_info for returned in func._schema.returns):  # a view is its own tensor's alone
            result, flops = _on_meta(func, args, kwargs or {})
        else:
            key = (func, tree, *(_shape(leaf) for leaf in leaves))
            if key not in self.known:
                self.known[key] = _on_meta(func, args, kwargs or {})
            result, flops = self.known[key]
        self.flops += flops
        return result


def _shape(leaf: Any) -> Any:
    """What an operation's shapes follow from, of one argument."""
    return (leaf.shape, leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else (type(leaf), leaf)


def _on_meta(func: Any, args: Any, kwargs: Any) -> tuple[Any, int]:
    args, kwargs = tree_map_only(Tensor, lambda x: x if x.is_meta else x.to("meta"), (args, kwargs))
    return _counted(func, args, kwargs)


def _counted(func: Any, args: Any, kwargs: Any) -> tuple[Any, int]:
    result, formula = func(*args, **kwargs), flop_registry.get(func._overloadpacket)
    return result, formula(*args, **kwargs, out_val=result) if formula else 0


def cost(name: str, shapes: Shapes, hyper: dict[str, Any], counter: FlopCounter) -> tuple[int | None, ...]:
    """COUNTS of a strategy; None for one that is fitted by scikit-learn: no network.

    The stay is that of checks.example_batch, with three cells in ten charted: it matters to those alone that look at
    charted cells one by one.
    """
    if issubclass(strategy_class(name), Fitted):
        return (None,) * len(COUNTS)
    try:
        return _cost("meta", name, shapes, hyper, counter)
    except RuntimeError:  # what is computed depends on values: which expert a token goes to, whose phase has begun
        torch.manual_seed(0)
        return _cost("cpu", name, shapes, hyper, counter)


def _cost(
    device: str, name: str, shapes: Shapes, hyper: dict[str, Any], counter: FlopCounter
) -> tuple[int | None, ...]:
    with torch.device(device):
        model = build(name, shapes, hyper).eval()
    found = [sum(parameter.numel() for parameter in model.parameters())]
    for with_image in (True, False):
        counter.flops = 0
        batch = example_batch(shapes, 1, torch.tensor([with_image]))
        with torch.no_grad(), counter:
            model(batch)
        found.append(counter.flops)
    return tuple(found)


def costs(
    strategies: Sequence[str], hyper: dict[str, dict[str, Any]], tier: str, sizes: Mapping[str, tuple[Encoders, int]]
) -> pl.DataFrame:
    """A row a strategy and scale, in the order given; `sizes` are encoders and pixels by the scale's name."""
    channels, counter, rows = channel_variables(load_variables(tier)), FlopCounter(), []
    for name in strategies:
        for scale, (encoders, px) in sizes.items():
            shapes = Shapes(get_task(TASK), HOURS, channels, px, encoders)
            rows.append((name, scale, px, *cost(name, shapes, hyper[name], counter)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
