"""The shared encoders: what reaches fusion from a record and from an image is of one scale."""

import torch

from pipeline.modelling.encoders import ImageEncoder, LSTMEncoder, TransformerEncoder, _Strided
from pipeline.modelling.examples import example_batch, small_shapes


def test_tokens_of_images_and_of_hours_are_normed_alike():
    torch.manual_seed(0)
    shapes = small_shapes("mortality", 32)
    batch = example_batch(shapes, 6, torch.ones(6).bool())
    for tokens in (ImageEncoder(shapes)(batch.images).tokens, TransformerEncoder(shapes)(batch).tokens):
        torch.testing.assert_close(tokens.square().mean(dim=2), torch.ones(tokens.shape[:2]), atol=1e-2, rtol=0)


def test_an_lstms_tokens_are_computed_when_they_are_asked_for_and_once():
    torch.manual_seed(0)
    shapes = small_shapes("mortality", 32)
    encoder = LSTMEncoder(shapes).eval()
    projected = []
    encoder.project.register_forward_hook(lambda module, given, found: projected.append(tuple(found.shape)))
    features = encoder(example_batch(shapes, 3, torch.ones(3).bool()))
    width = shapes.encoders.width
    assert projected == [(3, width)]
    assert features.tokens is features.tokens
    assert projected == [(3, width), (3, shapes.hours, width)]


def test_a_strided_matrix_product_is_the_convolution_that_it_stands_for():
    torch.manual_seed(0)
    skip = _Strided(3, 4)
    assert skip.weight.shape == (4, 3, 1, 1)
    for size, pixels in ((2, 8), (2, 7), (0, 8)):
        x = torch.randn(size, 3, pixels, pixels, requires_grad=True)
        expected = torch.nn.functional.conv2d(x, skip.weight, stride=2)
        found = skip(x)
        torch.testing.assert_close(found, expected)
        wanted, had = (torch.autograd.grad(y.square().sum(), [x, skip.weight]) for y in (expected, found))
        for one, other in zip(wanted, had, strict=True):
            torch.testing.assert_close(one, other)
