"""Groups of race and admission."""

import polars as pl
import pytest

from pipeline.mimic.groups import admission_group, race_group


@pytest.mark.parametrize(
    ("race", "group"),
    [
        ("WHITE", "WHITE"),
        ("WHITE - OTHER EUROPEAN", "WHITE"),
        ("BLACK/CAPE VERDEAN", "BLACK"),
        ("HISPANIC OR LATINO", "HISPANIC"),
        ("HISPANIC/LATINO - CUBAN", "HISPANIC"),
        ("ASIAN - SOUTH EAST ASIAN", "ASIAN"),
        ("PORTUGUESE", "OTHER"),
        ("AMERICAN INDIAN/ALASKA NATIVE", "OTHER"),
        ("MULTIPLE RACE/ETHNICITY", "OTHER"),
        ("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "OTHER"),
        ("SOUTH AMERICAN", "OTHER"),
        ("OTHER", "OTHER"),
        ("UNKNOWN", "UNKNOWN"),
        ("UNABLE TO OBTAIN", "UNKNOWN"),
        ("PATIENT DECLINED TO ANSWER", "UNKNOWN"),
        (None, "UNKNOWN"),
        (" white ", "WHITE"),
    ],
)
def test_race_groups(race, group):
    assert pl.DataFrame({"race": [race]}, schema={"race": pl.String}).select(race_group()).item() == group


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        *[(kind, "EMERGENCY") for kind in ("EW EMER.", "DIRECT EMER.", "URGENT", "something new", None)],
        *[(kind, "OBSERVATION") for kind in ("OBSERVATION ADMIT", "EU OBSERVATION", "DIRECT OBSERVATION")],
        ("AMBULATORY OBSERVATION", "OBSERVATION"),
        *[(kind, "ELECTIVE") for kind in ("ELECTIVE", "SURGICAL SAME DAY ADMISSION", "elective ")],
    ],
)
def test_admission_groups(kind, group):
    frame = pl.DataFrame({"admission_type": [kind]}, schema={"admission_type": pl.String})
    assert frame.select(admission_group()).item() == group
