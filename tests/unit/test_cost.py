"""FLOPs and parameters against counts by hand, and against FlopCounterMode on real tensors."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.cost import COUNTS, TASK, FlopCounter, cost, costs
from pipeline.modelling import registry
from pipeline.modelling.encoders import LSTMEncoder, TransformerEncoder
from pipeline.modelling.examples import SMALL, example_batch, small_shapes
from pipeline.modelling.interface import Output, Strategy
from pipeline.params import Encoders


def counted(model, *inputs):
    with torch.no_grad(), FlopCounter() as counter:
        model(*inputs)
    return counter.flops


def on_meta(cls, *arguments, **named):
    with torch.device("meta"):
        return cls(*arguments, **named).eval()


def linear(rows, wide, narrow):
    return 2 * rows * wide * narrow


def test_linear_and_convolution_by_hand():
    """A real input and parameters without values."""
    model = nn.Sequential(on_meta(nn.Conv2d, 1, 3, 3, stride=2, padding=1), nn.Flatten(1), on_meta(nn.Linear, 48, 5))
    conv = 2 * 3 * (4 * 4) * (3 * 3)  # multiply-adds: channels, places, kernel
    assert counted(model, torch.zeros(1, 1, 8, 8)) == conv + linear(1, 48, 5)
    assert counted(model, torch.zeros(7, 1, 8, 8)) == 7 * (conv + linear(1, 48, 5))
    assert counted(model, torch.zeros(0, 1, 8, 8)) == 0


def test_what_is_real_on_both_sides_counts_as_well():
    assert counted(lambda a, b: a @ b, torch.zeros(4, 3), torch.zeros(3, 2)) == linear(4, 3, 2)


def test_the_transformer_encoder_by_hand():
    shapes = small_shapes("mortality")
    hours, width = shapes.hours, shapes.encoders.width
    layer = linear(hours, width, 3 * width) + linear(hours, width, width) + 2 * linear(hours, width, 4 * width)
    attention = 2 * linear(hours, width, hours)  # scores and their sum over values; heads share the width
    expected = linear(hours, shapes.channels + 2 * shapes.variables, width) + layer + attention
    assert counted(on_meta(TransformerEncoder, shapes), example_batch(shapes, 1, torch.zeros(1).bool())) == expected


def test_the_lstm_encoder_by_hand():
    shapes = small_shapes("mortality")
    hours, width = shapes.hours, shapes.encoders.width
    directions = 2 * (linear(hours, width, 4 * width) + linear(hours, width, 4 * width))
    projected = linear(1, 2 * width, width)  # of the pooled states; tokens wait until somebody asks
    expected = linear(hours, shapes.channels + 2 * shapes.variables, width) + directions + projected
    assert counted(on_meta(LSTMEncoder, shapes), example_batch(shapes, 1, torch.zeros(1).bool())) == expected


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("name", registry.names())
def test_a_strategy_counts_as_with_real_weights(name):
    """Every strategy, with and without an image; on the CPU nn.LSTM is one operation that torch does not count."""
    shapes = small_shapes(TASK)
    hyper = {"lr": 1e-3}
    found = cost(name, shapes, hyper, FlopCounter())
    if found == (None,) * len(COUNTS):
        return
    model = registry.build(name, shapes, hyper).eval()
    assert found[0] == sum(parameter.numel() for parameter in model.parameters())
    for with_image, flops in zip((True, False), found[1:], strict=True):
        batch = example_batch(shapes, 1, torch.tensor([with_image]))
        with FlopCounterMode(display=False) as real, torch.backends.mkldnn.flags(enabled=False):
            model(batch)  # with gradients: else transformer layers are one operation, too
        assert flops == real.get_total_flops()
    assert found[1] >= found[2]


def planted(monkeypatch, cls):
    module = types.ModuleType("pipeline.strategies.planted")
    cls.__module__ = module.__name__
    module.Planted = cls
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "names", lambda: ["planted", "transformer"])


def test_a_row_a_strategy_and_scale_whose_order_is_the_grids(monkeypatch):
    class Planted(Strategy):
        def __init__(self, shapes, *, hidden):
            super().__init__(shapes)
            self.layers = nn.Sequential(nn.Linear(shapes.channels, hidden), nn.Linear(hidden, shapes.outputs))

        def forward(self, batch):
            return Output(self.layers(batch.ehr[:, -1]))

    planted(monkeypatch, Planted)
    sizes = {"small": (SMALL, 16), "large": (Encoders(32, 2, 1, 0.1, "narrow", 4), 32)}
    hyper = {"planted": {"lr": 1e-3, "hidden": 7}, "transformer": {"lr": 1e-3}}
    frame = costs(["planted", "transformer"], hyper, "core", sizes)
    assert frame.select("strategy", "scale", "px").rows() == [
        ("planted", "small", 16),
        ("planted", "large", 32),
        ("transformer", "small", 16),
        ("transformer", "large", 32),
    ]
    first, second, *others = frame.select(COUNTS).rows()
    assert first == second
    assert others[0] < others[1]
    assert first[1:] == (2 * (first[0] - 7 - 25),) * 2  # every parameter but the biases multiplies once


def test_what_is_fitted_is_no_network_and_not_counted():
    frame = costs(["logistic"], {"logistic": {}}, "core", {"small": (SMALL, 16)})
    assert frame.rows() == [("logistic", "small", 16, None, None, None)]
