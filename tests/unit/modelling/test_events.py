"""The event view of a record: the observed cells, and nothing that was filled in."""

import torch

from pipeline.modelling.encoders import events, observed_cells
from pipeline.modelling.examples import example_batch, select, small_shapes
from pipeline.modelling.views import without_record


def test_events_are_the_observed_cells_in_the_order_of_hours():
    shapes = small_shapes("mortality")
    batch = example_batch(shapes, 5, torch.ones(5).bool())
    found = events(batch, shapes)
    for i in range(5):
        expected = []
        for hour in range(shapes.hours):
            for channel, variable in enumerate(shapes.channel_variable):
                value = batch.ehr[i, hour, channel].item()
                if batch.observed[i, hour, variable] and (channel < 10 or value == 1):  # from 10 on: two categories
                    expected.append((hour / 48, channel, value))
        rows = found.real[i]
        columns = (column[i, rows].tolist() for column in (found.time, found.channel, found.value))
        got = list(zip(*columns, strict=True))
        assert len(got) == len(expected)
        for (time, channel, value), row in zip(got, expected, strict=True):
            assert abs(time - row[0]) < 1e-6
            assert (channel, value) == row[1:]
    assert int(observed_cells(batch, shapes).sum()) == int(found.real.sum())


def test_padding_follows_the_batch_and_an_empty_record_has_no_event():
    shapes = small_shapes("los")
    batch = example_batch(shapes, 4, torch.zeros(4).bool())
    alone = events(select(batch, torch.tensor([2])), shapes)
    whole = events(batch, shapes)
    count = int(alone.real.sum())
    assert torch.equal(alone.value[0, :count], whole.value[2, :count])
    assert not whole.real[2, count:].any()
    empty = events(without_record(batch), shapes)
    assert empty.real.shape == (4, 1)
    assert not empty.real.any()
