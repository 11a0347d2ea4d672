"""params.yaml holds each strategy's knobs, all of them, at the values that its file starts from."""

import inspect

import pytest
import yaml

from pipeline.modelling import registry
from pipeline.modelling.fitted import Fitted


@pytest.mark.parametrize("name", registry.names())
def test_the_block_holds_every_knob_at_its_default(root, name):
    block = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["strategies"][name]
    parameters = inspect.signature(registry.strategy_class(name)).parameters.values()
    knobs = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    apart = ("lr", "space")  # of the loop, and of tuning
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in block.items() if key not in apart}
    assert own == knobs
    assert ("lr" in block) != issubclass(registry.strategy_class(name), Fitted)
