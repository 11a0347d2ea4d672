"""Urine: sums, and rates that look back."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mimic.derived import covered_hours, last_observed, lookback_sum, without_jumps
from tests.support.charted import at, chart, extract, given_hours, output


def test_irrigant_in_counts_negative_and_a_sum_below_zero_becomes_zero(tmp_path):
    values, _ = extract(
        tmp_path,
        output_rows=output(
            (at(0), 227489, 3300),
            (at(0), 227488, 3000),
            (at(1), 226559, 50),
            (at(1), 227488, 200),
            (at(2), 226559, 60),
            (at(2), 226560, 60),
            (at(3), 226559, 0),
            (at(4), 226559, 6000),
        ),
    )
    assert given_hours(values["urine_output"]) == {0: 300.0, 1: 0.0, 2: 120.0, 3: 0.0}
    assert given_hours(values["urine_output_6h"]) == {0: 300.0, 1: 300.0, 2: 420.0, 3: 420.0}


def test_a_rate_needs_all_hours_covered_and_a_weight_by_then(tmp_path):
    rows = output(*((at(h, 1), 226559, 100) for h in range(3, 12)))
    values, _ = extract(tmp_path, chart((at(9, 3599), 224639, 50)), rows)
    assert given_hours(values["urine_hours_6h"]) == {3: 1, 4: 2, 5: 3, 6: 4, 7: 5, 8: 6, 9: 6, 10: 6, 11: 6}
    # six hours are covered from hour 8 on; the weight comes in the last second of hour 9
    assert given_hours(values["urine_rate_6h"]) == pytest.approx({9: 2.0, 10: 2.0, 11: 2.0})
    assert given_hours(values["urine_rate_12h"]) == {}


def test_the_last_weight_counts_and_none_from_before_intime_or_out_of_range(tmp_path):
    rows = output(*((at(h), 226559, 100) for h in range(12)))
    weights = chart((at(-1), 226512, 90), (at(6), 226512, 50), (at(8), 224639, 0), (at(9.5), 224639, 100))
    values, _ = extract(tmp_path, weights, rows)
    assert given_hours(values["urine_rate_6h"]) == pytest.approx({6: 2.0, 7: 2.0, 8: 2.0, 9: 1.0, 10: 1.0, 11: 1.0})


def test_a_weight_that_jumps_is_left_out_and_the_one_before_goes_on(tmp_path):
    """A rate over 251 kg would be a third of what it is."""
    rows = output(*((at(h), 226559, 100) for h in range(10)))
    weights = chart((at(0), 226512, 81.6), (at(7), 224639, 251), (at(9), 224639, 83))
    values, counts = extract(tmp_path, weights, rows)
    assert given_hours(values["weight"]) == {0: 81.6, 9: 83.0}
    assert given_hours(values["urine_rate_6h"]) == pytest.approx(
        {5: 100 / 81.6, 6: 100 / 81.6, 7: 100 / 81.6, 8: 100 / 81.6, 9: 100 / 83}
    )
    assert counts["weight"] == {
        **{"rows": 3, "used": 3, "dropped": 0, "unknown": 0, "empty": 0, "out_of_range": 0},
        "hours_that_jump": 1,
    }
    assert all(count["hours_that_jump"] == 0 for name, count in counts.items() if name != "weight")


def test_nothing_but_a_weight_has_to_be_steady(tmp_path):
    values, _ = extract(tmp_path, chart((at(0), 220045, 60), (at(1), 220045, 180)))
    assert given_hours(values["heart_rate"]) == {0: 60.0, 1: 180.0}


@pytest.mark.parametrize(
    ("charted", "kept"),
    [
        ([80, 160, 80, 40], [80, 160, 80, 40]),  # twice and half are no jump yet
        ([80, 161, 39, 80], [80, None, None, 80]),
        ([180, 81, 82, 83], [180, None, 82, 83]),  # the first was wrong, in pounds: outvoted
        ([81, 180, 82, 40], [81, None, 82, None]),  # the one after a wrong one is none itself
        ([251, None, 81, None], [251, None, None, None]),
        ([None, 80, None, 200], [None, 80, None, None]),
    ],
)
def test_what_jumps_by_the_median_of_what_was_charted_before(charted, kept):
    hourly = np.array([[math.nan if value is None else float(value) for value in charted]])
    expected = [math.nan if value is None else float(value) for value in kept]
    np.testing.assert_array_equal(without_jumps(hourly, 2.0), [expected])


def test_look_backs_stand_in_the_hours_with_a_urine_row_alone(tmp_path):
    values, _ = extract(tmp_path, output_rows=output((at(0), 226559, 100), (at(7), 226559, 30)))
    assert given_hours(values["urine_output_6h"]) == {0: 100.0, 7: 30.0}
    assert given_hours(values["urine_output_12h"]) == {0: 100.0, 7: 130.0}
    assert given_hours(values["urine_hours_12h"]) == {0: 1.0, 7: 8.0}


def test_an_implausible_rate_is_left_out_and_counted(tmp_path):
    rows = output(*((at(h), 226559, 5000) for h in range(6)))
    values, counts = extract(tmp_path, chart((at(0), 226512, 40)), rows)
    assert given_hours(values["urine_rate_6h"]) == {}
    assert counts["urine_rate_6h"]["out_of_range"] == 1


hourly_values = st.lists(st.one_of(st.none(), st.integers(0, 900)), min_size=48, max_size=48)


@given(hourly_values, st.sampled_from([1, 6, 12, 24, 60]))
def test_look_backs_against_a_plain_loop(charted, k):
    hourly = np.array([[math.nan if value is None else float(value) for value in charted]])
    sums, covered, last = lookback_sum(hourly, k), covered_hours(hourly, k), last_observed(hourly)
    for hour in range(48):
        back = range(max(0, hour - k + 1), hour + 1)
        assert sums[0, hour] == sum(charted[h] or 0 for h in back)
        assert covered[0, hour] == sum(any(charted[e] is not None for e in range(h + 1)) for h in back)
        known = [value for value in charted[: hour + 1] if value is not None]
        assert (math.isnan(last[0, hour]) and not known) or last[0, hour] == known[-1]


weights = st.lists(st.one_of(st.none(), st.integers(20, 400)), min_size=1, max_size=48)


@given(weights, st.sampled_from([1.1, 1.5, 2.0, 3.0]), st.lists(st.integers(20, 400), max_size=5))
def test_jumps_against_a_plain_loop_and_what_comes_later_changes_nothing(charted, ratio, later):
    hourly = np.array([[math.nan if value is None else float(value) for value in charted]])
    (kept,) = without_jumps(hourly, ratio)
    for hour, value in enumerate(charted):
        before = [other for other in charted[:hour] if other is not None]
        jumps = (value is not None and bool(before)) and (
            value > ratio * statistics.median_high(before) or value < statistics.median_low(before) / ratio
        )
        assert math.isnan(kept[hour]) == (value is None or jumps)
        assert value is None or jumps or kept[hour] == value
    longer = np.concatenate([hourly, np.array([later], dtype=np.float64).reshape(1, -1)], axis=1)
    np.testing.assert_array_equal(without_jumps(longer, ratio)[:, : len(charted)], [kept])
