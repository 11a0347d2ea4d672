"""The hourly series: window, conversion, range, aggregation, look-backs; files and report of the stage."""

import datetime as dt
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.mimic import series
from pipeline.mimic.derived import covered_hours, last_observed, lookback_sum
from pipeline.mimic.variables import load_variables
from pipeline.params import Ingest, Series

INGEST = Ingest(memory_gb=1.0, threads=2)
SERIES = Series(tier="core", lab_time="available")
CORE = load_variables("core")
COLUMN = {variable.name: index for index, variable in enumerate(CORE)}
INTIME = dt.datetime(2150, 3, 7, 10, 6, 41)

CHART = {
    "stay_id": pl.Int32,
    "charttime": pl.Datetime("us"),
    "itemid": pl.Int32,
    "value": pl.String,
    "valuenum": pl.Float64,
}
OUTPUT = {"stay_id": pl.Int32, "charttime": pl.Datetime("us"), "itemid": pl.Int32, "value": pl.Float64}


def at(hours=0.0, seconds=0):
    return INTIME + dt.timedelta(hours=hours, seconds=seconds)


def chart(*rows, stay=1):
    """Rows of chart.parquet: (time, itemid, number or text)."""
    return pl.DataFrame(
        [
            (stay, time, item, str(value), float(value) if isinstance(value, int | float) else None)
            for time, item, value in rows
        ],
        schema=CHART,
        orient="row",
    )


def output(*rows, stay=1):
    return pl.DataFrame([(stay, time, item, float(v)) for time, item, v in rows], schema=OUTPUT, orient="row")


def write(folder, chart_rows, output_rows, stays=None):
    """The folder and the file of the stays, as write_series wants them."""
    stays = stays if stays is not None else pl.DataFrame({"stay_id": [1], "intime": [INTIME]})
    stays = stays.cast({"stay_id": pl.Int32, "intime": pl.Datetime("us")})
    chart_rows.write_parquet(folder / "chart.parquet")
    output_rows.write_parquet(folder / "output.parquet")
    stays.write_parquet(folder / "stays.parquet")
    return folder, folder / "stays.parquet"


def extract(folder, chart_rows=None, output_rows=None, stays=None):
    """Values of stay 1 as {name: [48]}, and the counts by variable."""
    chart_rows = chart_rows if chart_rows is not None else chart()
    output_rows = output_rows if output_rows is not None else output()
    interim, stays_file = write(folder, chart_rows, output_rows, stays)
    with series.open_events(interim, CORE, SERIES, INGEST) as events:
        values, counts = series.extract(events, pl.read_parquet(stays_file))
        names = [variable.name for variable in events.variables]
    return (
        {name: values[0, :, index] for index, name in enumerate(names)},
        {name: dict(zip(series.COUNTS, counts[index].tolist(), strict=True)) for index, name in enumerate(names)},
    )


def given_hours(hours):
    """{hour: value} of the hours that are not NaN."""
    return {hour: value for hour, value in enumerate(hours.tolist()) if not math.isnan(value)}


# --- the window and the hour


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


# --- conversion, range, aggregation


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
    assert counts["temperature"] == {"rows": 6, "used": 3, "dropped": 0, "unknown": 0, "empty": 0, "out_of_range": 3}


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


# --- GCS


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


# --- rhythm and ectopy


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


# --- urine


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


# --- everything at once, against a plain loop

ITEMS = {item.itemid: (variable, item) for variable in CORE for item in variable.items}
TEXTS = {
    220048: ["SR (Sinus Rhythm)", " V Paced", "odd"],
    224650: ["None", "PVC's"],
    224651: ["None", "Rare", "odd"],
    226479: ["None"],
    226480: ["Frequent"],
    223900: ["No Response-ETT", "Oriented"],
}
numbers = st.one_of(st.integers(-50, 500), st.floats(-500, 5500, width=32))
rows = st.lists(
    st.tuples(st.integers(-7200, 180_000), st.sampled_from(sorted(ITEMS)), numbers, st.integers(0, 5)), max_size=60
)


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


# --- files and report


def hospital(stays, seed=0):
    """A few thousand rows of `stays` stays, shuffled; the intimes differ."""
    rng = np.random.default_rng(seed)
    n = stays * 200
    numeric = sorted(i for i, (v, _) in ITEMS.items() if v.source == "chartevents" and not v.vocabulary)
    ids = np.arange(30_000_000, 30_000_000 + stays)
    intimes = [INTIME + dt.timedelta(days=int(d)) for d in range(stays)]
    stay = rng.integers(0, stays, n)
    seconds = rng.integers(-3600, 200_000, n)
    chart_rows = pl.DataFrame(
        {
            "stay_id": ids[stay],
            "charttime": [intimes[s] + dt.timedelta(seconds=int(t)) for s, t in zip(stay, seconds, strict=True)],
            "itemid": rng.choice(numeric, n),
            "value": ["x"] * n,
            "valuenum": rng.normal(80, 40, n),
        },
        schema=CHART,
    )
    output_rows = chart_rows.select("stay_id", "charttime", itemid=pl.lit(226559, pl.Int32), value="valuenum")
    return chart_rows, output_rows, pl.DataFrame({"stay_id": ids, "intime": intimes})


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_bytes_do_not_depend_on_threads_batches_or_the_order_of_rows(tmp_path, monkeypatch):
    chart_rows, output_rows, stays = hospital(30)
    paths = write(tmp_path, chart_rows, output_rows, stays)
    first = series.write_series(*paths, CORE, SERIES, Ingest(1.0, 1), tmp_path / "one")
    monkeypatch.setattr(series, "BATCH_STAYS", 7)
    shuffled = write(tmp_path, chart_rows.sample(fraction=1, shuffle=True, seed=3), output_rows.reverse(), stays)
    second = series.write_series(*shuffled, CORE, SERIES, Ingest(1.0, 4), tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert first == second


def test_the_two_files_agree(tmp_path):
    chart_rows, output_rows, stays = hospital(12)
    rhythm = chart((at(0), 220048, "V Paced"), (at(3), 220048, "odd"), stay=30_000_000)
    stays = pl.concat([stays, pl.DataFrame({"stay_id": [40_000_000], "intime": [INTIME]})])  # has no rows
    report = series.write_series(
        *write(tmp_path, pl.concat([chart_rows, rhythm]), output_rows, stays), CORE, SERIES, INGEST, tmp_path / "series"
    )
    values = np.load(tmp_path / "series" / "values.npy", mmap_mode="r")
    hourly = pl.read_parquet(tmp_path / "series" / "hourly.parquet")
    assert (values.shape, values.dtype) == ((13, 48, 27), np.float32)
    assert hourly.columns == ["stay_id", "hour", *COLUMN]
    assert hourly["hour"].is_between(0, 47).all()
    assert hourly.select("stay_id", "hour").is_unique().all()
    assert hourly.equals(hourly.sort("stay_id", "hour"))
    assert np.isnan(values[12]).all()
    assert report["stays_without_a_value"] == 1
    assert report["hours_with_a_value"] == hourly.height == (~np.isnan(values)).any(axis=2).sum()
    position = {stay: index for index, stay in enumerate(stays["stay_id"])}
    for row in hourly.iter_rows(named=True):
        for variable in CORE:
            value, packed = row[variable.name], values[position[row["stay_id"]], row["hour"], COLUMN[variable.name]]
            if value is None:
                assert math.isnan(packed)
            elif variable.kind == "category":
                assert variable.vocabulary[int(packed)] == value
            else:
                assert packed == np.float32(value)
    assert hourly.schema["heart_rhythm"] == pl.String
    assert hourly["heart_rhythm"].drop_nulls().to_list() == ["V Paced", "Other"]
    assert report["variables"]["heart_rhythm"]["unknown"] == 1
    assert report["variables"]["heart_rhythm"]["share_of_stays"] == pytest.approx(1 / 13)


def test_the_report_counts_rows_by_place(tmp_path):
    rows = chart((at(-1), 220045, 80), (at(0), 220045, 80), (at(47), 220045, 400), (at(50), 220045, 80))
    report = series.write_series(
        *write(tmp_path, rows, output((at(1), 226559, 5))), CORE, SERIES, INGEST, tmp_path / "series"
    )
    assert report["rows_of_these_stays"] == {"before_intime": 1, "in_48_hours": 3, "later": 1}
    assert report["variables"]["heart_rate"]["out_of_range"] == 1
    assert report["variables"]["heart_rate"]["share_of_hours"] == pytest.approx(1 / 48)


def test_the_report_quotes_a_text_that_many_stays_have_and_no_rare_one(tmp_path, caplog):
    ids = range(30_000_000, 30_000_010)
    common = [chart((at(3), 220048, "New Rhythm "), stay=stay) for stay in ids]
    rare = [chart((at(4), 220048, "as Mr. N. says"), stay=stay) for stay in ids[:9]]
    stays = pl.DataFrame({"stay_id": list(ids), "intime": [INTIME] * len(ids)})
    report = series.write_series(
        *write(tmp_path, pl.concat([*common, *rare]), output(), stays), CORE, SERIES, INGEST, tmp_path / "series"
    )
    assert report["unknown_texts"] == {"heart_rhythm": ["New Rhythm"]}
    assert report["variables"]["heart_rhythm"]["unknown"] == 19
    assert "as Mr. N. says" in caplog.text  # for who runs it


def test_absent_files_and_an_empty_cohort_are_named(tmp_path):
    paths = write(tmp_path, chart(), output())
    with pytest.raises(InputError, match=r"absent/chart\.parquet: not found"):
        series.write_series(tmp_path / "absent", paths[1], CORE, SERIES, INGEST, tmp_path / "series")
    pl.read_parquet(paths[1]).clear().write_parquet(paths[1])
    with pytest.raises(InputError, match="holds no stay"):
        series.write_series(*paths, CORE, SERIES, INGEST, tmp_path / "series")
    assert not (tmp_path / "series" / "values.npy").exists()


def test_too_little_memory_names_the_knob(tmp_path):
    paths = write(tmp_path, chart(), output())
    with (  # noqa: PT012
        pytest.raises(InputError, match=r"ingest\.memory_gb: 1\.0 GB do not suffice"),
        series.open_events(paths[0], CORE, SERIES, INGEST) as events,
    ):
        events.connection.execute("set memory_limit = '10 MB'; set max_temp_directory_size = '1 MB'")
        events.connection.execute("select list(range) from range(20000000)").fetchall()
