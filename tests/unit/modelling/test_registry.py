"""Building a strategy by its name: what is wrong is named; pretrained weights."""

import dataclasses

import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.interface import Shapes
from pipeline.modelling.registry import build, names
from pipeline.tasks import get_task
from tests.support.small import ENCODERS


@pytest.mark.parametrize("strategy", names())
def test_a_misspelt_hyper_parameter_is_named(strategy):
    shapes = Shapes(get_task("los"), 48, tuple(range(27)), 16, ENCODERS)
    with pytest.raises(InputError, match=rf"strategies\.{strategy}\.drop_out: unknown"):
        build(strategy, shapes, {"lr": 1, "drop_out": 0.5})


def test_an_unknown_strategy_and_weights_that_are_not_there_are_named(tmp_path):
    size = dataclasses.replace(ENCODERS, cnn="resnet18")
    shapes = Shapes(get_task("los"), 48, tuple(range(27)), 64, size, "missing.pth")
    with pytest.raises(InputError, match=r"training\.pretrained: missing\.pth: not found"):
        build("resnet", shapes, {"lr": 1})
    with pytest.raises(InputError, match=r"training\.pretrained: 'NO_SUCH' is neither"):
        build("resnet", dataclasses.replace(shapes, pretrained="NO_SUCH"), {"lr": 1})
    with pytest.raises(InputError, match="'medfusion' has no file"):
        build("medfusion", shapes, {"lr": 1})


def test_pretrained_weights_come_from_a_local_file_and_their_norms_are_frozen(tmp_path):
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source = torchvision.models.resnet18(weights=None)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    size = dataclasses.replace(ENCODERS, cnn="resnet18")
    shapes = Shapes(get_task("los"), 48, tuple(range(27)), 64, size, str(tmp_path / "weights.safetensors"))
    model = build("resnet", shapes, {"lr": 1})
    model.train()
    images = torch.rand(2, 1, 64, 64)
    features = model.encoder(images)
    source.eval()
    x = model.encoder.normalise(images)
    for layer in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        x = getattr(source, layer)(x)
    torch.testing.assert_close(features.maps[-1], x)
    assert features.tokens.shape == (2, 4, ENCODERS.width)
