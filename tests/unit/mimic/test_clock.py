"""Ages, eras and deaths from MIMIC's shifted dates."""

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.mimic.clock import age_at, death_time, era_at, first_possible_year

DAY = timedelta(days=1)
IN = datetime(2150, 3, 1, 12)


MOMENTS = st.datetimes(datetime(2100, 1, 1), datetime(2220, 1, 1))


@settings(deadline=None, max_examples=100)
@given(MOMENTS, st.integers(0, 91), st.integers(2100, 2220), st.integers(2008, 2020))
def test_age_and_era_follow_the_years(moment, age, anchor_year, group):
    row = pl.DataFrame(
        {
            "moment": [moment],
            "anchor_age": [age],
            "anchor_year": [anchor_year],
            "anchor_year_group": [f"{group} - {group + 2}"],
        }
    )
    got_age, first, era = row.select(
        age=age_at("moment"), first=first_possible_year("moment"), era=era_at("moment")
    ).row(0)
    shift = moment.year - anchor_year
    assert got_age == age + shift
    assert first == group + shift
    start, end = (int(year) for year in era.split(" - "))
    assert end - start == 2
    assert (start - 2008) % 3 == 0
    assert 2008 <= start <= 2020
    middle = group + shift + 1
    assert start <= middle <= end or middle < 2008 or middle > 2022
    if (group - 2008) % 3 == 0 and shift % 3 == 0 and 2008 <= group + shift <= 2020:
        assert start == group + shift  # a shift by whole groups is exact


@pytest.mark.parametrize(
    ("group", "years", "era"),
    [
        ("2011 - 2013", 0, "2011 - 2013"),
        ("2011 - 2013", 1, "2011 - 2013"),  # 2012 to 2014
        ("2011 - 2013", 2, "2014 - 2016"),  # 2013 to 2015
        ("2011 - 2013", 3, "2014 - 2016"),
        ("2011 - 2013", -1, "2011 - 2013"),
        ("2011 - 2013", -2, "2008 - 2010"),
        ("2008 - 2010", -3, "2008 - 2010"),  # nothing lies before
        ("2020 - 2022", 2, "2020 - 2022"),  # nothing lies behind
        ("2011-2013", 0, "2011 - 2013"),
        (None, 0, None),
        ("unknown", 0, None),
    ],
)
def test_era_by_hand(group, years, era):
    row = pl.DataFrame(
        {"moment": [datetime(2150 + years, 6, 1)], "anchor_year": [2150], "anchor_year_group": [group]},
        schema_overrides={"anchor_year_group": pl.String},
    )
    assert row.select(era_at("moment")).item() == era


@pytest.mark.parametrize(
    ("deathtime", "flag", "expected"),
    [(IN, 1, IN), (None, 1, IN + DAY), (None, 0, None), (None, None, None), (IN, 0, IN)],
)
def test_death_falls_back_on_the_discharge(deathtime, flag, expected):
    row = pl.DataFrame(
        {"deathtime": [deathtime], "dischtime": [IN + DAY], "hospital_expire_flag": [flag]},
        schema={"deathtime": pl.Datetime("us"), "dischtime": pl.Datetime("us"), "hospital_expire_flag": pl.Int16},
    )
    assert row.select(death_time()).item() == expected
