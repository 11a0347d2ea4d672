"""The control hears every image encoder of a strategy, however the strategy calls it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.data.batches import Batches
from pipeline.data.inputs import channel_variables
from pipeline.data.tensors import load_fold
from pipeline.mimic.variables import load_variables
from pipeline.modelling.encoders import ImageEncoder
from pipeline.modelling.interface import Shapes
from pipeline.modelling.registry import build
from pipeline.tasks import get_task
from pipeline.training.image_control import image_features
from tests.support.made_up_data import fabricate
from tests.support.small import ENCODERS

SPEC = SimpleNamespace(training=SimpleNamespace(precision="fp32"))


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    data = fabricate(tmp_path_factory.mktemp("fabricated"), n=60)
    return load_fold(data, 0, get_task("mortality"), load_variables("core"), "mcar")


def heard(fold, strategy, **hyper):
    """The model, a batch of stays with an image, and their features."""
    batches = Batches(fold, torch.device("cpu"))
    torch.manual_seed(0)
    channels = channel_variables(load_variables("core"))
    shapes = Shapes(get_task("mortality"), 48, channels, int(fold.pixels.shape[1]), ENCODERS)
    model = build(strategy, shapes, {"lr": 1e-3, **hyper}).eval()
    rows = torch.from_numpy(np.flatnonzero(fold.pictured))
    return model, batches.gather(rows), image_features(model, SPEC, batches, rows)


@pytest.mark.parametrize(
    ("strategy", "hyper", "count"),
    [
        ("resnet", {}, 1),
        ("late_fusion", {}, 1),
        ("mmtm", {}, 1),  # stage by stage
        ("daft", {"target": "ehr"}, 1),
        ("daft", {"target": "image"}, 1),  # stage by stage
        ("drfuse", {}, 2),  # the second from the first one's stem on
    ],
)
def test_each_encoder_is_heard(fold, strategy, hyper, count):
    model, batch, found = heard(fold, strategy, **hyper)
    encoders = [module for module in model.modules() if isinstance(module, ImageEncoder)]
    assert len(encoders) == count
    assert found.shape == (len(batch.images), sum(encoder.stage_widths[-1] for encoder in encoders))
    assert (np.abs(found).max(axis=0) > 0).mean() > 0.8  # some of a ReLU are dead at the start


def test_what_is_heard_is_the_mean_of_the_last_map(fold):
    model, batch, found = heard(fold, "mmtm")
    with torch.no_grad():
        last = model(batch).features["stage 4"]
    np.testing.assert_allclose(found, last.mean(dim=(2, 3)).numpy(), atol=1e-5)


def test_who_has_no_encoder_is_not_heard(fold):
    assert heard(fold, "transformer")[2] is None
