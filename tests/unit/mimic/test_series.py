"""The stage series: its files and its report."""

import datetime as dt
import math

import numpy as np
import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.mimic import series
from pipeline.params import Ingest
from tests.support.charted import CHART, COLUMN, CORE, INGEST, INTIME, ITEMS, SERIES, at, chart, output, write


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
    assert report["stays_without_a_value"] == "<10"
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
    assert report["variables"]["heart_rhythm"]["share_of_stays"] is None  # of one stay


def test_a_share_of_few_stays_or_of_all_but_a_few_is_not_told():
    assert series._coverage(np.array([96, 12]), 40) == {"share_of_hours": 0.05, "share_of_stays": 0.3}
    assert [series._coverage(np.array([0, seen]), 40)["share_of_stays"] for seen in (0, 9, 31, 40)] == [
        0,
        None,
        None,
        1,
    ]


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
