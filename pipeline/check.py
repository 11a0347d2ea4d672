"""`python -m pipeline.check`: whether the params can be run here, in seconds, before anything is; changes nothing."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from pipeline.errors import InputError
from pipeline.mimic.folders import find_files
from pipeline.mimic.manifest import columns_of
from pipeline.modelling.registry import knobs, strategy_class
from pipeline.options import parser
from pipeline.params import Params, load
from pipeline.strict import meant

BUILT_IN = "data/raw/synthetic/"  # the first stage makes it


def faults(params: Params) -> list[str]:
    """A line a fault: raw folders and the headers of their tables, strategies and their knobs, the device."""
    looks: list[Callable[[], Any]] = [functools.partial(_fits, name, params) for name in params.grid.strategies]
    if not params.data.mimiciv.startswith(BUILT_IN):
        looks.insert(0, lambda: columns_of(find_files(params.data)))
    looks.append(lambda: _device(params.training.device))
    found = []
    for look in looks:
        try:
            look()
        except InputError as error:
            found.append(str(error))
    return found


def _fits(name: str, params: Params) -> None:
    """Raises InputError where a strategy is no Python, or lacks or does not know a knob of its block."""
    known = knobs(strategy_class(name))
    own = params.strategies[name].keys() - {"lr"}
    for knob in sorted(own - known.keys()):
        raise InputError(f"strategies.{name}.{knob}: unknown; it knows {', '.join(known)}{meant(knob, known)}")
    for knob, argument in known.items():
        if knob not in own and argument.default is argument.empty:
            raise InputError(f"strategies.{name}.{knob}: missing")


def _device(wanted: str) -> None:
    """Raises InputError where a GPU is asked for and torch finds none."""
    from pipeline.modelling.device import pick_device

    pick_device(wanted)


def main() -> None:
    """Prints `ready`, or a line a fault with exit status 1."""
    found = parser("pipeline.check", "Whether paths, headers, params, strategies and device fit, before anything runs.")
    arguments = found.parse_args()
    try:
        params = load(arguments.params, arguments.changes)
        lines = faults(params)
    except InputError as error:
        lines = [str(error)]
    if lines:
        sys.exit("\n".join(f"check: error: {line}" for line in lines))
    print(f"ready: scale {params.scale}, {len(params.grid.strategies)} strategies, device {params.training.device}")


if __name__ == "__main__":
    main()
