"""Hourly values of the open MIMIC-IV demo, each checked by hand in the raw rows that its comment names."""

import duckdb
import numpy as np
import polars as pl
import pytest

from pipeline.mimic.series import write_series
from pipeline.mimic.variables import load_variables, needed_itemids
from pipeline.params import Ingest, Series

pytestmark = pytest.mark.real_data

CORE = load_variables("core")


@pytest.fixture(scope="module")
def demo(demo_data, tmp_path_factory):
    """The series of every demo stay of 48 hours or more: (hourly.parquet, values.npy, report)."""
    folder = tmp_path_factory.mktemp("demo")
    icu = demo_data / "mimic-iv-demo" / "icu"
    text = "all_varchar = true, nullstr = ''"
    queries = {
        "chart": "select stay_id::int as stay_id, charttime::timestamp as charttime, itemid::int as itemid, value,"
        f" valuenum::double as valuenum from read_csv('{icu / 'chartevents.csv.gz'}', {text})"
        f" where itemid::int in {tuple(needed_itemids('chartevents'))} order by all",
        "output": "select stay_id::int as stay_id, charttime::timestamp as charttime, itemid::int as itemid,"
        f" value::double as value from read_csv('{icu / 'outputevents.csv.gz'}', {text})"
        f" where itemid::int in {tuple(needed_itemids('outputevents'))} order by all",
        "stays": "select stay_id::int as stay_id, intime::timestamp as intime"
        f" from read_csv('{icu / 'icustays.csv.gz'}', {text})"
        " where outtime::timestamp - intime::timestamp >= interval 48 hour order by stay_id",
    }
    for name, query in queries.items():
        duckdb.execute(f"copy ({query}) to '{folder / name}.parquet'")
    series = Series(tier="core", lab_time="available", max_jump=2.0)
    report = write_series(
        folder, folder / "stays.parquet", CORE, series, Ingest(memory_gb=1.0, threads=2), folder / "series"
    )
    hourly = pl.read_parquet(folder / "series" / "hourly.parquet")
    return hourly, np.load(folder / "series" / "values.npy"), report


# Raw rows: (charttime, itemid, value) of chartevents and outputevents.
BY_HAND = [
    # intime 2171-11-14 10:06:41. Heart rate 114 at 10:27, 109 at 10:30, 112 at 10:45, 100 at 10:59, 101 at 11:00, which
    # still lies in the first hour of the stay
    (30057454, 0, "heart_rate", (114 + 109 + 112 + 100 + 101) / 5),
    # 223761 (Fahrenheit): 98.6 at 10:30, 97.9 at 11:00
    (30057454, 0, "temperature", ((98.6 - 32) / 1.8 + (97.9 - 32) / 1.8) / 2),
    # 226559: 200 at 11:00, 150 at 12:00, 125 at 13:00, 150 at 14:00, 150 at 15:00, 125 at 16:00, 75 at 17:00
    (30057454, 5, "urine_output_6h", 200 + 150 + 125 + 150 + 150 + 125),
    (30057454, 6, "urine_output_6h", 150 + 125 + 150 + 150 + 125 + 75),
    (30057454, 6, "urine_hours_24h", 7),
    # 226512 says 86.2 kg at 10:06:00, 41 seconds before intime; 224639 says 88.2 at 05:00 the next day, hour 18. So
    # hour 6 has six covered hours and no weight; hour 27 has 183 mL in six hours
    (30057454, 6, "urine_rate_6h", None),
    (30057454, 27, "urine_output_6h", 183),
    (30057454, 27, "urine_rate_6h", 183 / 6 / 88.2),
    # intime 2143-03-22 06:42:00. Eyes 3, motor 1, verbal 1 ("No Response") at 08:27
    (30101877, 1, "gcs_total", 5),
    # eyes 4, motor 6, "No Response-ETT" (charted as 1) at 09:00
    (30101877, 2, "gcs_eyes", 4),
    (30101877, 2, "gcs_verbal", None),
    (30101877, 2, "gcs_total", None),
    # hour 13: at 19:58 eyes 4 and the tube; at 20:00 eyes 3, motor 6, verbal 1 ("No Response")
    (30101877, 13, "gcs_eyes", 3),
    (30101877, 13, "gcs_total", 10),
    # intime 2137-08-17 17:36:37. At 22:00 227488 (irrigant in) 3000 and 227489 (out) 3300; nothing else before
    (38383343, 4, "urine_output", 300),
    (38383343, 4, "urine_hours_6h", 1),
    (38383343, 3, "urine_output", None),
    # intime 2134-08-05 14:53:33. 220052: -7 at 16:11 (out of range), 0 at 16:30 (in it); 220181: 79 at 16:00
    (38333427, 1, "mbp", (0 + 79) / 2),
    # intime 2175-07-06 17:41:00. 224651 "Runs Vtach" at 10:00 the next day, 224650 "PVC's"; 220048 "V Paced"
    (30955999, 16, "ectopy_frequency", 4),
    (30955999, 16, "ectopy_type", "PVC's"),
    (30955999, 16, "heart_rhythm", "V Paced"),
    # 224650 "None" at 18:06
    (30955999, 0, "ectopy_type", "None"),
    (30955999, 0, "ectopy_frequency", None),
]


@pytest.mark.parametrize(("stay", "hour", "name", "expected"), BY_HAND)
def test_values_checked_by_hand(demo, stay, hour, name, expected):
    found = demo[0].filter(pl.col("stay_id") == stay, pl.col("hour") == hour)[name].to_list()
    if isinstance(expected, int | float):
        assert found == [pytest.approx(expected, abs=1e-9)]
    else:
        assert found == [expected]


def test_an_hour_begins_at_its_full_second(demo, demo_data):
    """Intime 2116-12-03 01:02:00, and a heart rate at 21:02:00: it belongs to hour 20, not to hour 19."""
    icu = demo_data / "mimic-iv-demo" / "icu"
    rows = duckdb.execute(
        "select epoch(c.charttime::timestamp - s.intime::timestamp)::int, c.valuenum::double"
        f" from read_csv('{icu / 'chartevents.csv.gz'}', all_varchar = true) c"
        f" join read_csv('{icu / 'icustays.csv.gz'}', all_varchar = true) s using (stay_id)"
        " where stay_id = '38197705' and c.itemid = '220045' and c.charttime::timestamp - s.intime::timestamp"
        " between interval 19 hour and interval 21 hour"
    ).fetchall()
    assert 20 * 3600 in [seconds for seconds, _ in rows]
    found = demo[0].filter(pl.col("stay_id") == 38197705, pl.col("hour") == 20)["heart_rate"].item()
    assert found == np.mean([value for seconds, value in rows if 20 * 3600 <= seconds < 21 * 3600])


def test_every_value_lies_in_its_range(demo):
    hourly, values, _ = demo
    for index, variable in enumerate(CORE):
        observed = values[:, :, index][~np.isnan(values[:, :, index])]
        assert observed.size > 0, variable.name
        low, high = (0, np.inf) if variable.name == "urine_output" else (variable.low, variable.high)
        assert low <= observed.min(), variable.name
        assert observed.max() <= high, variable.name
    assert hourly["hour"].max() == 47


def test_medians_are_those_of_sick_adults(demo):
    medians = {v.name: float(np.nanmedian(demo[1][:, :, i])) for i, v in enumerate(CORE)}
    for name, low, high in [
        ("heart_rate", 75, 100),
        ("sbp", 105, 130),
        ("dbp", 50, 70),
        ("mbp", 70, 85),
        ("resp_rate", 15, 23),
        ("temperature", 36.3, 37.5),
        ("spo2", 95, 99),
        ("glucose", 100, 180),
        ("urine_rate_24h", 0.3, 2),
    ]:
        assert low <= medians[name] <= high, name


def test_counts(demo):
    hourly, values, report = demo
    assert values.shape == (74, 48, 27)
    assert report["stays_without_a_value"] == 0
    assert report["hours_with_a_value"] == hourly.height == 3501
    assert report["unknown_texts"] == {}
    # eleven mean pressures of the demo are out of range in the first 48 hours; eight of them in stays this long
    assert report["variables"]["mbp"]["out_of_range"] == 8
    assert report["variables"]["gcs_verbal"]["dropped"] == 456  # "No Response-ETT", 47 % of these rows
