"""Several images of a stay: their mean by attention, what strategies make of them, and of one alone what they did."""

import dataclasses

import pytest
import torch

from pipeline.modelling.encoders import OverImages, by_sample, image_age
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.registry import build, names, strategy_class
from pipeline.modelling.views import images_of, keep_images, latest_images

THREE = dataclasses.replace(small_shapes("phenotype"), images=3)
WITH_IMAGE = torch.tensor([1, 0, 1, 1, 0, 1]).bool()
READERS = ("healnet", "late_fusion")


def batch():
    return example_batch(THREE, 6, WITH_IMAGE)


def made(name, shapes=THREE):
    torch.manual_seed(0)
    model = build(name, shapes, {"lr": 1e-3}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def test_the_example_has_stays_of_one_two_and_three_images():
    assert batch().image_sample.tolist() == [0, 2, 2, 2, 3, 5, 5, 5]
    assert batch().image_place.tolist() == [0, 0, 1, 2, 0, 0, 1, 2]


def test_readers_of_every_image_are_those_that_say_so():
    assert tuple(sorted(name for name in names() if strategy_class(name).every_image)) == READERS


def test_images_are_placed_at_their_samples_and_ages_count_from_the_latest():
    each = torch.arange(8.0)
    spread, there = by_sample(each, batch())
    assert spread.tolist() == [[0, 0, 0], [1, 2, 3], [4, 0, 0], [5, 6, 7]]
    assert there.tolist() == [[True, False, False], [True] * 3, [True, False, False], [True] * 3]
    hours = torch.tensor([0.5, 0.9, 0.4, 0.1, 0.2, 0.8, 0.8, 0.3])
    found = image_age(dataclasses.replace(batch(), image_hours=hours))
    torch.testing.assert_close(found, torch.tensor([0, 0, 0.5, 0.8, 0, 0, 0, 0.5]))
    none = keep_images(batch(), torch.zeros(6, dtype=torch.bool))
    assert by_sample(each[:0], none)[0].shape == (0, 1)
    assert image_age(none).shape == (0,)


def test_attention_over_images_is_the_softmax_that_a_loop_makes():
    torch.manual_seed(0)
    over, some = OverImages(4), batch()
    pooled, age = torch.randn(8, 4), image_age(some)
    torch.testing.assert_close(over(pooled, some)[1], pooled[1:4].mean(dim=0))  # untrained: the plain mean
    torch.nn.init.normal_(over.score.weight)
    weight, found = over.score.weight[0], over(pooled, some)
    for place, rows in enumerate(([0], [1, 2, 3], [4], [5, 6, 7])):
        score = torch.stack([(weight[:4] * pooled[row]).sum() + weight[4] * age[row] for row in rows])
        expected = sum(share * pooled[row] for share, row in zip(score.softmax(0), rows, strict=True))
        torch.testing.assert_close(found[place], expected)


@pytest.mark.parametrize("name", READERS)
def test_every_image_counts_and_an_answer_needs_no_batch_mate(name):
    model, whole = made(name), batch()
    logits = model(whole).logits
    changed = whole.images.clone()
    changed[3] = 1 - changed[3]  # the oldest of sample 2
    differs = (model(dataclasses.replace(whole, images=changed)).logits - logits).abs().amax(dim=1)
    assert differs[2] > 1e-6
    assert differs[[0, 1, 3, 4, 5]].max() == 0
    alone = {key: getattr(whole, key)[2:3] for key in ("ehr", "observed", "since", "present", "index")}
    one = dataclasses.replace(whole, **alone, **images_of(whole, torch.tensor([2])))
    assert one.image_place.tolist() == [0, 1, 2]
    torch.testing.assert_close(model(one).logits, logits[2:3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", READERS)
def test_a_stay_of_one_image_is_answered_alike_whatever_its_mates_have(name):
    model, whole = made(name), batch()
    few, many = model(latest_images(whole)).logits, model(whole).logits
    torch.testing.assert_close(few[[0, 1, 3, 4]], many[[0, 1, 3, 4]], atol=1e-5, rtol=1e-5)
    assert (few[[2, 5]] - many[[2, 5]]).abs().amax() > 1e-6


@pytest.mark.parametrize("name", READERS)
def test_where_stays_have_one_image_the_strategy_is_what_it_was(name):
    one, three = made(name, small_shapes("phenotype")), made(name)
    more = {key: value.shape for key, value in three.state_dict().items()}
    same = {key: value.shape for key, value in one.state_dict().items()}
    assert same != more
    assert not any("over" in key for key in same)
    assert one(latest_images(batch())).logits.shape == three(batch()).logits.shape


def test_images_of_others_come_whole_and_in_order():
    whole = batch()
    found = images_of(whole, torch.tensor([5, 1, 2]))
    assert found["image_sample"].tolist() == [0, 0, 0, 2, 2, 2]
    assert torch.equal(found["images"], whole.images[[5, 6, 7, 1, 2, 3]])
    assert found["image_place"].tolist() == [0, 1, 2, 0, 1, 2]
