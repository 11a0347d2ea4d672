"""Strategies by name, which is the module's; only the named module is imported: a cell depends on its file alone."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.closure import no_python
from pipeline.errors import InputError
from pipeline.modelling.cards import STRATEGIES
from pipeline.strict import meant

if TYPE_CHECKING:  # torch takes a second to import, and most of what asks for names needs none
    from pipeline.modelling.interface import Shapes, Strategy


def names() -> list[str]:
    """All strategies: the files of pipeline/strategies."""
    return sorted(path.stem for path in STRATEGIES.glob("*.py") if path.stem != "__init__")


def module_name(name: str) -> str:
    """The dotted module of a strategy. Raises InputError where there is none."""
    if name not in names():
        raise InputError(
            f"grid.strategies: {name!r} has no file pipeline/strategies/{name}.py; there are {', '.join(names())}"
            + meant(name, names())
        )
    return f"pipeline.strategies.{name}"


def strategy_class(name: str) -> type[Strategy]:
    """The one Strategy subclass that the module defines. Raises InputError where there is none, or no Python."""
    dotted = module_name(name)
    from pipeline.modelling.interface import Strategy

    try:
        module = importlib.import_module(dotted)
    except SyntaxError as error:  # in its file, or in one that it imports
        raise no_python(error, Path(error.filename or f"{name}.py")) from None
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Strategy) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise InputError(f"pipeline/strategies/{name}.py: must define one Strategy, defines {len(own)}")
    return own[0]


def knobs(cls: type[Strategy]) -> dict[str, inspect.Parameter]:
    """Its hyper-parameters: the keyword-only arguments of its constructor, and of its base's where it passes **on."""
    known: dict[str, inspect.Parameter] = {}
    for each in cls.__mro__:
        if "__init__" in vars(each):
            arguments = inspect.signature(each.__init__).parameters.values()  # type: ignore[misc]
            known = {p.name: p for p in arguments if p.kind is p.KEYWORD_ONLY} | known
            if all(p.kind is not p.VAR_KEYWORD for p in arguments):
                break
    return known


def build(name: str, shapes: Shapes, hyper: dict[str, Any]) -> Strategy:
    """The strategy with its hyper-parameters (the block strategies.NAME; `lr` belongs to the loop: training.run)."""
    cls = strategy_class(name)
    from pipeline.modelling.fitted import Fitted

    lr = [] if issubclass(cls, Fitted) else ["lr"]
    own = {key: value for key, value in hyper.items() if key != "lr"}
    known = knobs(cls)
    for key in own:
        if key not in known:
            raise InputError(f"strategies.{name}.{key}: unknown; it knows {', '.join([*lr, *known])}")
    for key, parameter in known.items():
        if key not in own and parameter.default is parameter.empty:
            raise InputError(f"strategies.{name}.{key}: missing")
    try:
        return cls(shapes, **own)
    except ValueError as error:
        raise InputError(f"strategies.{name}: {error}") from None
