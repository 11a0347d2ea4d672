"""Urine: sums, and rates that look back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mimic.derived import covered_hours, last_observed, lookback_sum
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
