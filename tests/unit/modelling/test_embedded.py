"""A frozen encoder's embeddings in the place of pixels: what strategies see of them, and that each can be trained."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling import checks
from pipeline.modelling.embedded import Standardised
from pipeline.modelling.encoders import STAGES, ImageEncoder, start_encoders
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.registry import build, names, strategy_class

EMBEDDING = (2, 6)  # side and width
SHAPES = dataclasses.replace(small_shapes("mortality"), embedding=EMBEDDING)
SEE = [
    name
    for name in names()
    if "cxr" in strategy_class(name).modalities and not issubclass(strategy_class(name), Fitted)
]
QUICK = ["late_fusion", "mmtm", "daft", "drfuse", "medfuse", "healnet"]


def packed(count, vectors=5, seed=0):
    return torch.randn(count, vectors, EMBEDDING[1], generator=torch.Generator().manual_seed(seed)).half()


def test_pooled_is_the_encoders_own_vector_and_the_map_its_tokens_row_by_row():
    torch.manual_seed(0)
    encoder, images = ImageEncoder(SHAPES), packed(3)
    found = encoder(images)
    project = lambda x: encoder.norm(encoder.project(x.float()))  # noqa: E731
    torch.testing.assert_close(found.pooled, project(images[:, 0]))
    torch.testing.assert_close(found.tokens, project(images[:, 1:]))
    assert len(found.maps) == STAGES
    assert found.maps[-1].shape == (3, 6, 2, 2)
    torch.testing.assert_close(found.maps[-1][:, :, 0, 1], images[:, 2].float())
    torch.testing.assert_close(found.maps[-1][:, :, 1, 0], images[:, 3].float())
    torch.testing.assert_close(encoder.grid(encoder.normalise(images)), found.tokens)  # as mmtm and daft ask
    torch.testing.assert_close(encoder.encode(found.maps[0]).pooled, found.tokens.mean(dim=1))  # as drfuse asks
    assert encoder(images[:0]).pooled.shape == (0, SHAPES.encoders.width)
    assert [name for name, _ in encoder.named_parameters()] == [
        "project.weight",
        "project.bias",
        "norm.weight",
        "norm.bias",
    ]


def test_a_vector_alone_is_also_the_one_token():
    torch.manual_seed(0)
    encoder, images = ImageEncoder(dataclasses.replace(SHAPES, embedding=(1, 6))), packed(3, vectors=1)
    found = encoder(images)
    torch.testing.assert_close(found.tokens[:, 0], found.pooled)
    assert found.maps[-1].shape == (3, 6, 1, 1)


@pytest.mark.parametrize("side", [2, 1])
def test_features_are_standardised_by_the_images_named_pooled_and_tokens_apart(side):
    rng = np.random.default_rng(0)
    found = rng.normal(3.0, 0.5, (600, 1 + side**2, 6)).astype(np.float16)
    found[:, 0] = found[:, 0] * 4 + 20
    found[:, :, 5] = 7.0  # the same in every image
    rows = np.arange(0, 600, 2)
    found[1::2] = 1000.0  # of others
    frozen = Standardised(side, 6)
    frozen.learn(found, rows)
    given = torch.from_numpy(found[rows])
    told = torch.cat([frozen(given)[:, None], frozen.grid(given).flatten(2).mT], dim=1).double().numpy()
    for part in (told[:, :1, :5], told[:, 1:, :5]):
        np.testing.assert_allclose(part.mean(axis=(0, 1)), 0.0, atol=1e-3)
        np.testing.assert_allclose(part.std(axis=(0, 1)), 1.0, atol=1e-3)
    np.testing.assert_array_equal(told[:, :, 5], 0.0)
    assert frozen.centre[0, 0] == pytest.approx(32, abs=0.3)
    before = frozen.centre.clone()
    frozen.learn(found, rows[:0])
    assert torch.equal(frozen.centre, before)


def test_an_encoder_starts_where_that_of_an_earlier_run_ended_with_its_moments():
    torch.manual_seed(0)
    source, other = ImageEncoder(SHAPES), build("drfuse", SHAPES, {})
    source.frozen.learn(packed(9).numpy(), np.arange(9))
    started = start_encoders(other, [source])
    assert {"image_shared", "image_own"} <= set(started)
    for encoder in (other.image_shared, other.image_own):  # of the second the first stage is taken out
        assert torch.equal(encoder.project.weight, source.project.weight)
        assert torch.equal(encoder.frozen.centre, source.frozen.centre)
    images = packed(2)
    torch.testing.assert_close(other.image_shared(images).pooled, source(images).pooled)


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in QUICK else [pytest.mark.slow]) for each in SEE]
)
def test_every_strategy_that_sees_images_keeps_the_contract_with_embeddings(name, monkeypatch):
    """But learning from a faint image, which is of pixels."""
    monkeypatch.setattr(checks, "small_shapes", lambda task, px: dataclasses.replace(SHAPES, px=px))
    checks._check_task(name, "mortality", {})


def test_mmtm_gates_the_one_map_again_and_again():
    torch.manual_seed(0)
    model = build("mmtm", SHAPES, {"first_stage": 2}).eval()
    batch = example_batch(SHAPES, 4, torch.tensor([1, 0, 1, 1]).bool())
    features = model(batch).features
    maps = [features[f"stage {number}"] for number in range(STAGES)]
    assert {tuple(each.shape) for each in maps} == {(3, 6, 2, 2)}
    for early in maps[:3]:
        assert torch.equal(early, maps[0])
    assert not torch.equal(maps[3], maps[2])
    assert not torch.equal(maps[4], maps[3])


def test_without_embeddings_the_cnn_is_what_it_was():
    plain = ImageEncoder(small_shapes("mortality"))
    assert plain.frozen is None
    assert not [key for key in plain.state_dict() if key.startswith("frozen")]
    with pytest.raises(InputError, match="narrow CNN has no pretrained weights"):
        ImageEncoder(dataclasses.replace(small_shapes("mortality"), pretrained="IMAGENET1K_V2"))
