"""From charted rows to hourly values: window, conversion, range, aggregation."""

import math

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.charted import CHART, COLUMN, CORE, ITEMS, at, chart, extract, given_hours, output, rows


@given(st.integers(-3 * 3600, 51 * 3600))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_charting_falls_into_its_hour_to_the_second(tmp_path, seconds):
    values, counts = extract(tmp_path, chart((at(seconds=seconds), 220045, 80)))
    inside = 0 <= seconds < 48 * 3600
    assert given_hours(values["heart_rate"]) == ({seconds // 3600: 80.0} if inside else {})
    assert counts["heart_rate"]["rows"] == inside


def test_the_edges_of_the_hours(tmp_path):
    values, _ = extract(
        tmp_path,
        chart(
            (at(seconds=-1), 220045, 10),
            (at(), 220045, 20),
            (at(1, -1), 220045, 40),
            (at(1), 220045, 50),
            (at(48, -1), 220045, 60),
            (at(48), 220045, 70),
        ),
    )
    assert given_hours(values["heart_rate"]) == {0: 30.0, 1: 50.0, 47: 60.0}


def test_rows_of_another_stay_stay_out(tmp_path):
    rows = pl.concat([chart((at(2), 220045, 80)), chart((at(2), 220045, 200), stay=2)])
    assert given_hours(extract(tmp_path, rows)[0]["heart_rate"]) == {2: 80.0}


def test_the_mean_is_over_all_values_whatever_their_itemid(tmp_path):
    values, _ = extract(
        tmp_path,
        chart((at(0.1), 220050, 100), (at(0.1), 220179, 110), (at(0.5), 225309, 120), (at(0.5), 220050, 130)),
    )
    assert given_hours(values["sbp"]) == {0: 115.0}


def test_a_value_is_converted_before_its_range_is_looked_at(tmp_path):
    values, counts = extract(
        tmp_path,
        chart(
            (at(0), 223761, 98.6),  # 37 °C; outside of 25-45 as it stands
            (at(1), 223762, 98.6),  # Fahrenheit in the Celsius field
            (at(2), 223761, 40),  # Celsius in the Fahrenheit field: 4.4 °C; inside as it stands
            (at(3), 223761, 113),
            (at(4), 223761, 77),
            (at(5), 223761, 113.1),
        ),
    )
    assert given_hours(values["temperature"]) == pytest.approx({0: 37.0, 3: 45.0, 4: 25.0})
    assert counts["temperature"] == {
        "rows": 6,
        "used": 3,
        "dropped": 0,
        "unknown": 0,
        "empty": 0,
        "out_of_range": 3,
        "hours_that_jump": 0,
    }


@pytest.mark.parametrize(
    ("item", "name", "low", "high"),
    [(220045, "heart_rate", 0, 300), (220277, "spo2", 50, 100), (225664, "glucose", 10, 2000)],
)
def test_both_bounds_belong_to_the_range(tmp_path, item, name, low, high):
    values, _ = extract(
        tmp_path,
        chart((at(0), item, low), (at(1), item, high), (at(2), item, low - 0.01), (at(3), item, high + 0.01)),
    )
    assert given_hours(values[name]) == {0: low, 1: high}


def test_nan_infinities_and_nulls_are_no_values(tmp_path):
    values, counts = extract(
        tmp_path,
        chart(
            (at(0), 220045, math.nan), (at(0), 220045, math.inf), (at(0), 220045, -math.inf), (at(0), 220045, "ERROR")
        ),
    )
    assert given_hours(values["heart_rate"]) == {}
    assert counts["heart_rate"]["out_of_range"] == 3
    assert counts["heart_rate"]["empty"] == 1


def test_gcs_takes_the_last_value_and_the_larger_of_two_at_once(tmp_path):
    values, _ = extract(
        tmp_path,
        chart(
            (at(0.2), 220739, 4), (at(0.9), 220739, 2), (at(0.5), 220739, 3), (at(1.5), 220739, 1), (at(1.5), 220739, 3)
        ),
    )
    assert given_hours(values["gcs_eyes"]) == {0: 2.0, 1: 3.0}


def verbal(time, text, number):
    return chart((time, 223900, number)).with_columns(value=pl.lit(text))


def test_an_intubated_verbal_score_is_missing_and_so_is_the_total(tmp_path):
    rows = pl.concat(
        [
            chart((at(0), 220739, 4), (at(0), 223901, 6), (at(1), 220739, 3), (at(1), 223901, 5), (at(2), 220739, 4)),
            verbal(at(0), "No Response-ETT", 1),
            verbal(at(1), "No Response", 1),
            verbal(at(2), "Oriented", 5),
        ]
    )
    values, counts = extract(tmp_path, rows)
    assert given_hours(values["gcs_verbal"]) == {1: 1.0, 2: 5.0}
    assert given_hours(values["gcs_total"]) == {1: 9.0}  # hour 2 has no motor score
    assert counts["gcs_verbal"]["dropped"] == 1


def test_the_last_rhythm_of_the_hour_by_text(tmp_path):
    values, counts = extract(
        tmp_path,
        chart(
            (at(0.1), 220048, "AF (Atrial Fibrillation)"),
            (at(0.2), 220048, "ST (Sinus Tachycardia) "),
            (at(1), 220048, "Something new"),
            (at(0), 224650, "None"),
            (at(0), 224651, "Frequent"),
            (at(1), 224651, "None"),
            (at(2), 224651, "Sometimes"),
        ),
    )
    rhythm = CORE[COLUMN["heart_rhythm"]].vocabulary
    assert given_hours(values["heart_rhythm"]) == {
        0: rhythm.index("ST (Sinus Tachycardia)"),
        1: rhythm.index("Other"),
    }
    assert given_hours(values["ectopy_type"]) == {0: 0.0}  # the text "None" is a value
    assert given_hours(values["ectopy_frequency"]) == {0: 3.0, 1: 0.0}
    assert counts["heart_rhythm"]["unknown"] == counts["ectopy_frequency"]["unknown"] == 1
    assert counts["heart_rhythm"]["used"] == 3


TEXTS = {
    220048: ["SR (Sinus Rhythm)", " V Paced", "odd"],
    224650: ["None", "PVC's"],
    224651: ["None", "Rare", "odd"],
    226479: ["None"],
    226480: ["Frequent"],
    223900: ["No Response-ETT", "Oriented"],
}


def by_hand(events, variable):
    """The hours of an extracted variable by the rules of the design, in plain Python."""
    hours = {}
    for seconds, itemid, number, text in events:
        if itemid not in {item.itemid for item in variable.items} or not 0 <= seconds < 48 * 3600:
            continue
        if variable.vocabulary:
            value = variable.code(text)
        elif variable.name == "gcs_verbal" and text == "No Response-ETT":
            value = None
        elif itemid == 223761:
            value = (number - 32) / 1.8
        elif itemid == 227488:
            value = -abs(number)
        else:
            value = number
        if value is not None and variable.low <= value <= variable.high:
            hours.setdefault(seconds // 3600, []).append((seconds, value))
    result = {}
    for hour, found in hours.items():
        if variable.aggregate == "last":
            result[hour] = max(found)[1]
        else:
            total = math.fsum(value for _, value in found)
            result[hour] = max(total, 0.0) if variable.aggregate == "sum" else total / len(found)
    return result


@given(rows)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sql_against_a_plain_loop(tmp_path, drawn):
    events = [
        (seconds, itemid, number, TEXTS[itemid][pick % len(TEXTS[itemid])] if itemid in TEXTS else str(number))
        for seconds, itemid, number, pick in drawn
    ]
    source = {itemid: variable.source for itemid, (variable, _) in ITEMS.items()}
    chart_rows = pl.DataFrame(
        [(1, at(seconds=s), i, text, float(n)) for s, i, n, text in events if source[i] == "chartevents"],
        schema=CHART,
        orient="row",
    )
    output_rows = output(*((at(seconds=s), i, n) for s, i, n, _ in events if source[i] == "outputevents"))
    values, _ = extract(tmp_path, chart_rows, output_rows)
    for variable in CORE:
        if variable.items:
            assert given_hours(values[variable.name]) == pytest.approx(by_hand(events, variable), abs=1e-9)
