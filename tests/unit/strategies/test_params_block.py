"""params.yaml holds each strategy's knobs, all of them, at the values that its file starts from."""

import pytest
import yaml

from pipeline.modelling import registry
from pipeline.modelling.fitted import Fitted


@pytest.mark.parametrize("name", registry.names())
def test_the_block_holds_every_knob_at_its_default(root, name):
    block = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["strategies"][name]
    knobs = {key: knob.default for key, knob in registry.knobs(registry.strategy_class(name)).items()}
    apart = ("lr", "space")  # of the loop, and of tuning
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in block.items() if key not in apart}
    assert own == knobs
    assert ("lr" in block) != issubclass(registry.strategy_class(name), Fitted)


def test_knobs_of_a_base_count_where_they_are_passed_on():
    class Base(registry.strategy_class("gbm")):
        def __init__(self, shapes, *, a=1, b=2):
            pass

    class PassesOn(Base):
        def __init__(self, shapes, *, c=3, **base):
            super().__init__(shapes, **base)

    class Stops(Base):
        def __init__(self, shapes, *, c=3):
            super().__init__(shapes)

    assert {key: knob.default for key, knob in registry.knobs(PassesOn).items()} == {"a": 1, "b": 2, "c": 3}
    assert list(registry.knobs(Stops)) == ["c"]
    assert list(registry.knobs(Base)) == ["a", "b"]
