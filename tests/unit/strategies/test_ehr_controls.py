"""The two controls: what they are told, what they learn from it, and that no pixel reaches them."""

import dataclasses
import math

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.data.batches import Batches
from pipeline.data.tensors import load_fold
from pipeline.mimic.variables import load_variables
from pipeline.modelling.cards import read_card
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.interface import CXR
from pipeline.modelling.registry import build
from pipeline.strategies.ehr_metadata import metadata
from pipeline.tasks import get_task
from tests.support.made_up_data import fabricate

CONTROLS = ("ehr_presence", "ehr_metadata")


def twins(name):
    """A control and `transformer`, with the same weights; the keys that the control has beside them."""
    torch.manual_seed(0)
    control, plain = (build(each, small_shapes("phenotype"), {"lr": 1e-3}).eval() for each in (name, "transformer"))
    more = control.load_state_dict(plain.state_dict(), strict=False)
    assert not more.unexpected_keys
    return control, plain, more.missing_keys


def example(size=64, seed=0):
    with_image = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.5
    return example_batch(small_shapes("mortality"), size, with_image, seed)


def has_image(batch):
    return batch.present[:, CXR, None].float()


def has_pa_image(batch):
    return torch.zeros(batch.size, 1).index_copy(0, batch.image_sample, batch.image_view[:, None].float())


def trained(name, label, steps=80):
    """Each step on new samples: noise cannot be learnt by heart."""
    torch.manual_seed(0)
    model = build(name, small_shapes("mortality"), {"lr": 1e-3})
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        batch = example(seed=step)
        optimiser.zero_grad()
        model.losses(model(batch), batch, label(batch))["task"].backward()
        optimiser.step()
    return model.eval()


def share_right(model, label):
    batch = example(200, seed=1000)
    with torch.inference_mode():
        return float(((model(batch).logits > 0) == (label(batch) > 0)).float().mean())


@pytest.mark.parametrize(("name", "told"), [("ehr_presence", 1), ("ehr_metadata", 4)])
def test_a_control_is_the_transformer_with_further_inputs_and_nothing_else(name, told):
    control, plain, more = twins(name)
    assert more == ["told.weight"]
    assert control.told.weight.shape == (16, told)
    batch = example()
    there = batch.present[:, CXR]
    with torch.no_grad():
        differ = (control(batch).logits - plain(batch).logits).abs().amax(dim=1)
    assert differ[~there].max() == 0
    assert differ[there].min() > 1e-3


@pytest.mark.parametrize("name", CONTROLS)
def test_what_is_told_meets_the_record(name):
    """A fusion strategy can have an image mean something else in another record; its control can too."""
    control, plain, _ = twins(name)
    batch = example()
    with torch.no_grad():
        shift = (control(batch).logits - plain(batch).logits)[batch.present[:, CXR]]
    assert shift.std(dim=0).mean() > 0.05 * shift.abs().mean()


@pytest.mark.parametrize("name", CONTROLS)
def test_a_label_that_equals_has_cxr_is_learnt_and_no_pixel_matters(name):
    model = trained(name, has_image)
    assert share_right(model, has_image) > 0.95
    batch = example()
    broken = dataclasses.replace(batch, images=torch.full_like(batch.images, math.nan))
    assert torch.equal(model(broken).logits, model(batch).logits)


def test_the_view_is_learnt_where_it_is_told():
    assert share_right(trained("ehr_metadata", has_pa_image), has_pa_image) > 0.95


def test_metadata_is_that_of_each_samples_own_image():
    batch = example(9)
    expected = np.zeros((9, 4))
    for place, sample in enumerate(batch.image_sample.tolist()):
        count = int(batch.image_count[place])
        expected[sample] = [1, float(batch.image_hours[place]), int(batch.image_view[place] == 1), math.log(count)]
    np.testing.assert_allclose(metadata(batch), expected, atol=1e-6)


def test_view_and_count_are_the_artefacts_and_a_removed_image_tells_nothing(tmp_path):
    data = fabricate(tmp_path, n=60)
    tensors = load_fold(data, 0, get_task("mortality"), load_variables("core"), "mcar")
    batches, rows = Batches(tensors, torch.device("cpu")), torch.arange(60)
    batch = batches.gather(rows)
    images = pl.read_parquet(data / "images/index.parquet").rows_by_key("stay_id", named=True, unique=True)
    eligible = pl.read_parquet(data / "cohort/cxr.parquet")["stay_id"].to_list()
    assert set(batch.image_count.tolist()) == {1, 2}
    for place, sample in enumerate(batch.image_sample.tolist()):
        stay = int(tensors.stay_id[sample])
        assert ("AP", "PA")[batch.image_view[place]] == images[stay]["view"]
        assert batch.image_count[place] == eligible.count(stay)
    removed = torch.from_numpy(tensors.removed_at < 0.5)
    told = metadata(batches.gather(rows, removed))
    assert told[removed].eq(0).all()
    assert torch.equal(told[~removed], metadata(batch)[~removed])


def test_a_control_is_neither_unimodal_nor_a_fusion():
    assert [read_card(name).modalities for name in CONTROLS] == [
        ("ehr", "presence"),
        ("ehr", "metadata", "presence"),
    ]
