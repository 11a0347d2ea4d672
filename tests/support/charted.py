"""Charted rows made up for tests, and the hourly values that come of them."""

import datetime as dt
import math

import polars as pl
from hypothesis import strategies as st

from pipeline.mimic import series
from pipeline.mimic.variables import load_variables
from pipeline.params import Ingest, Series

INGEST = Ingest(memory_gb=1.0, threads=2)

SERIES = Series(tier="core", lab_time="available", max_jump=2.0)

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


ITEMS = {item.itemid: (variable, item) for variable in CORE for item in variable.items}

numbers = st.one_of(st.integers(-50, 500), st.floats(-500, 5500, width=32))

rows = st.lists(
    st.tuples(st.integers(-7200, 180_000), st.sampled_from(sorted(ITEMS)), numbers, st.integers(0, 5)), max_size=60
)
