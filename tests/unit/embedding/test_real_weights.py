"""Real ImageNet weights, offline: the package of the development dependencies, loaded as any user's file is."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.embedding.card import read_card, weights_file
from pipeline.embedding.loaders import load_encoder
from pipeline.errors import InputError

# ImageNet-1k classes that Keras' and torchvision's lists call so
PALACE, BELL_COTE, DAISY = 698, 442, 985
CARD = read_card("efficientnet-lite0")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(CARD)


def photograph(name):
    """The middle square of one of scikit-learn's two photographs, [224, 224, 3] uint8."""
    image = Image.fromarray(load_sample_image(name))
    side, left, top = min(image.size), (image.width - min(image.size)) // 2, (image.height - min(image.size)) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.array(square.resize((CARD.px, CARD.px), Image.Resampling.BICUBIC))


def classes(vector):
    """The ImageNet classes of a pooled vector, most probable first: by the classifier that the file has, too."""
    weights = torch.load(weights_file(CARD), weights_only=True)
    return (vector @ weights["_fc.weight"].T + weights["_fc.bias"]).argsort(descending=True)[0].tolist()


@pytest.mark.parametrize(("name", "expected"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_photographs_are_recognised(encoder, name, expected):
    colour = torch.from_numpy(photograph(name)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        _, vector = encoder.network((colour / 255 - encoder.mean) / encoder.std)
    assert classes(vector)[0] == expected


def test_a_photograph_is_recognised_in_grey(encoder):
    grey = np.array(Image.fromarray(photograph("china.jpg")).convert("L"))
    found = encoder(torch.from_numpy(grey)[None, None])
    assert set(classes(found.pooled)[:2]) == {PALACE, BELL_COTE}
    assert found.tokens.shape == (1, 49, 1280)
    assert found.grid == encoder.grid == (7, 7)
    assert encoder.width == 1280
    torch.testing.assert_close(found.tokens.mean(1), found.pooled)  # it pools by the mean: the map is the last one


def test_white_and_black_become_what_its_package_says(encoder):
    values = torch.tensor([0.0, 127.0, 255.0]) / 255
    scaled = (values - encoder.mean.flatten()) / encoder.std.flatten()
    torch.testing.assert_close(scaled, (torch.tensor([0.0, 127.0, 255.0]) - 127) / 128)


def test_the_order_is_that_of_another_network(encoder):
    with pytest.raises(InputError, match=r"efficientnet-lite0.yaml: in_order: .*has 296 weights, mobilenetv2_100 314"):
        load_encoder(dataclasses.replace(CARD, model="mobilenetv2_100"))
