"""The shared encoders: what reaches fusion from a record and from an image is of one scale."""

import torch

from pipeline.modelling.encoders import ImageEncoder, TransformerEncoder
from pipeline.modelling.examples import example_batch, small_shapes


def test_tokens_of_images_and_of_hours_are_normed_alike():
    torch.manual_seed(0)
    shapes = small_shapes("mortality", 32)
    batch = example_batch(shapes, 6, torch.ones(6).bool())
    for tokens in (ImageEncoder(shapes)(batch.images).tokens, TransformerEncoder(shapes)(batch).tokens):
        torch.testing.assert_close(tokens.square().mean(dim=2), torch.ones(tokens.shape[:2]), atol=1e-2, rtol=0)
