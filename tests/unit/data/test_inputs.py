"""Filling, scaling, one-hot and hours since observed, against a naive loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.data.inputs import CLIP, build_inputs, channel_variables
from pipeline.data.statistics import describe, fold_statistics
from pipeline.mimic.variables import load_variables

VARIABLES = load_variables("plus")  # core is its beginning
STATISTICS = {
    v.name: {"median": 2.0 + i, "iqr": 1.0, "scale": 0.5 + i, "count": 9}
    for i, v in enumerate(VARIABLES)
    if v.kind != "category"
}


def naive(values):
    """One stay, hour by hour."""
    channels, observed, since = [], [], []
    for column, variable in enumerate(VARIABLES):
        rows = []
        seen = []
        ago = []
        last = None
        for hour in range(48):
            if not np.isnan(values[hour, column]):
                last = hour
            seen.append(last == hour)
            ago.append(1.0 if last is None else (hour - last) / 48)
            limit = variable.fill.carry_hours
            use = last is not None and (limit is None or hour - last <= limit)
            x = values[last, column] if use else None
            if variable.kind == "category":
                rows.append([float(x == entry) for entry in range(len(variable.vocabulary))])
            else:
                s = STATISTICS[variable.name]
                x = s["median"] if x is None else x
                rows.append([np.clip((x - s["median"]) / s["scale"], -CLIP, CLIP)])
        channels.append(rows)
        observed.append(seen)
        since.append(ago)
    return np.concatenate([np.array(c) for c in channels], axis=1), np.array(observed).T, np.array(since).T


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_inputs_equal_a_naive_loop(seed, density):
    rng = np.random.default_rng(seed)
    values = np.where(
        rng.random((2, 48, len(VARIABLES))) < density, rng.integers(0, 3, (2, 48, len(VARIABLES))), np.nan
    ).astype(np.float32)
    inputs = build_inputs(values, VARIABLES, STATISTICS)
    for stay in range(2):
        ehr, observed, since = naive(values[stay])
        np.testing.assert_allclose(inputs.ehr[stay], ehr, atol=1e-5)
        assert np.array_equal(inputs.observed[stay], observed)
        np.testing.assert_allclose(inputs.since[stay], since, atol=1e-6)


def test_a_later_value_never_reaches_an_earlier_hour():
    rng = np.random.default_rng(0)
    values = rng.normal(2, 1, (1, 48, len(VARIABLES))).astype(np.float32)
    later = values.copy()
    later[:, 30:] += 1
    a, b = build_inputs(values, VARIABLES, STATISTICS), build_inputs(later, VARIABLES, STATISTICS)
    assert np.array_equal(a.ehr[:, :30], b.ehr[:, :30])


def test_nothing_charted_is_the_median_and_no_category():
    inputs = build_inputs(np.full((1, 48, len(VARIABLES)), np.nan, np.float32), VARIABLES, STATISTICS)
    assert not inputs.ehr.any()
    assert not inputs.observed.any()
    assert (inputs.since == 1).all()
    assert inputs.ehr.shape == (1, 48, len(channel_variables(VARIABLES)))
    assert len(channel_variables(VARIABLES)) == len(channel_variables(load_variables("core"))) + 57


@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e3, 1e3, width=32)))
def test_the_scale_is_never_zero(values):
    entry = describe(values)
    assert entry["scale"] > 0
    assert entry["median"] == pytest.approx(np.median(values.astype(float)))


def test_statistics_see_training_rows_alone():
    values = np.arange(4 * 48 * 2, dtype=np.float32).reshape(4, 48, 2)
    train = np.array([True, False, True, False])
    known = fold_statistics(values, train, ["a", "b"], [True, False])
    values[~train] = np.nan
    assert list(known) == ["a"]
    assert known["a"]["count"] == 96
    assert known["a"]["median"] == pytest.approx(np.nanmedian(values[:, :, 0]))
