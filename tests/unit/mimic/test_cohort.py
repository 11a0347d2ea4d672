"""The cohort: one hand-made stay for every rule, what is left after each, and what a stay is described by."""

import dataclasses
from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import params
from pipeline.errors import InputError
from pipeline.mimic import cohort as cohort_rules
from pipeline.mimic.cohort import apply_rules, describe_stays, finish_stays, rules, stays_with_vital
from pipeline.mimic.cxr_links import link_images
from pipeline.mimic.variables import load_all
from tests.support.stays import DAY, IN, MOMENT, frames

DIED = {"hospital_expire_flag": 1}


def kept(cohort, vital=None, **rows):
    """Ids of the stays that all rules leave."""
    patients, admissions, icustays, _ = frames(**rows)
    vital = icustays["stay_id"] if vital is None else pl.Series(vital, dtype=pl.Int32)
    every = describe_stays(patients, admissions, icustays, vital)
    return apply_rules(every, rules(cohort))[0]["stay_id"].to_list()


def test_an_ordinary_stay_is_kept(cohort):
    assert kept(cohort) == [31]


@pytest.mark.parametrize(
    ("rows", "stays"),
    [
        # age at ICU admission, not anchor_age
        ({"patients": [{"anchor_age": 17, "anchor_year": 2149}]}, [31]),
        ({"patients": [{"anchor_age": 18, "anchor_year": 2151}]}, []),
        ({"patients": [{"anchor_age": 17}]}, []),
        ({"patients": [{"anchor_age": None}]}, []),
        ({"patients": [{"anchor_age": 120}]}, [31]),
        ({"patients": [{"anchor_age": 121}]}, []),
        ({"patients": [{"anchor_age": 300}]}, []),
        ({"patients": [{"anchor_year": 1815}]}, []),  # 385 years in 2150
        ({"patients": [{"anchor_year": 2300}]}, []),  # -100
        # 48 h, to the microsecond
        ({"stays": [{"outtime": IN + 2 * DAY}]}, [31]),
        ({"stays": [{"outtime": IN + 2 * DAY - timedelta(microseconds=1)}]}, []),
        ({"stays": [{"outtime": None}]}, []),
        ({"stays": [{"intime": None}]}, []),
        ({"stays": [{"outtime": IN - DAY}]}, []),
        # alive at hour 48, though the ICU says that the stay went on
        ({"admissions": [{"deathtime": IN + timedelta(hours=45), "hospital_expire_flag": 1}]}, []),
        ({"admissions": [{"deathtime": IN + timedelta(hours=48), "hospital_expire_flag": 1}]}, [31]),
        ({"admissions": [{"hospital_expire_flag": 1, "dischtime": IN + timedelta(hours=47)}]}, []),
        ({"admissions": [{"hospital_expire_flag": 1, "dischtime": IN + timedelta(hours=49)}]}, [31]),
        ({"admissions": [{"hospital_expire_flag": 0, "dischtime": IN + timedelta(hours=47)}]}, [31]),
        # a second admission after death, as an organ donor's: to the microsecond by deathtime, else by dischtime
        ({"stays": [{"hadm_id": 12}], "admissions": [DIED | {"deathtime": IN - MOMENT}, {}]}, []),
        ({"stays": [{"hadm_id": 12}], "admissions": [DIED | {"deathtime": IN}, {}]}, []),
        ({"stays": [{"hadm_id": 12}], "admissions": [DIED | {"dischtime": IN - MOMENT}, {}]}, []),
        ({"stays": [{"hadm_id": 12}], "admissions": [DIED | {"deathtime": IN + DAY}, {}]}, []),  # before hour 48
        ({"stays": [{"hadm_id": 12}], "admissions": [DIED | {"deathtime": IN + 2 * DAY}, {}]}, [31]),
        ({"stays": [{"hadm_id": 12}], "admissions": [DIED | {"deathtime": IN - DAY, "subject_id": 2}, {}]}, [31]),
        # dod has no clock: on the day of death the stay may have begun before it
        ({"patients": [{"dod": date(2150, 2, 28)}]}, []),
        ({"patients": [{"dod": date(2150, 3, 1)}]}, [31]),
        # the admission dates the death itself, and later: dod is some days off
        ({"patients": [{"dod": date(2150, 2, 27)}], "admissions": [DIED | {"deathtime": IN + 5 * DAY}]}, [31]),
        # exactly one stay in the admission: a short one counts, too
        ({"stays": [{}, {"hadm_id": 11, "outtime": IN + timedelta(hours=1)}]}, []),
        ({"stays": [{}, {}], "admissions": [{}, {}]}, [31, 32]),
        # one unit
        ({"stays": [{"last_careunit": "SICU"}]}, []),
        # linked
        ({"stays": [{"hadm_id": 99}]}, []),
        ({"stays": [{"hadm_id": None}]}, []),
        ({"admissions": [{"subject_id": 2}]}, []),
        ({"stays": [{"subject_id": 2}], "admissions": [{"subject_id": 2}]}, []),
        # a vital sign
        ({"vital": []}, []),
    ],
)
def test_rules(cohort, rows, stays):
    assert kept(cohort, **rows) == stays


def preset(cohort, **rules):
    """The params with one preset of these rules."""
    return dataclasses.replace(cohort, preset="own", presets={"own": params.CohortPreset(**rules)})


def test_prospective_takes_the_first_stay_and_does_not_look_at_the_last_unit(cohort):
    prospective = dataclasses.replace(cohort, preset="prospective")
    later = {"hadm_id": 11, "intime": IN + 4 * DAY, "outtime": IN + 7 * DAY}
    assert kept(prospective, stays=[later, {"hadm_id": 11, "last_careunit": "SICU"}]) == [32]
    assert kept(prospective, stays=[{}, {"hadm_id": 11}]) == [31]  # at the same time: the smaller id


def at(day, days=3, **more):
    """A stay that begins on a day and is so many days long."""
    return {"intime": IN + day * DAY, "outtime": IN + (day + days) * DAY, **more}


@pytest.mark.parametrize(
    ("stays", "by_choice"),
    [
        # two stays in admission 11, the second comes first in the file; one in admission 12
        ([at(4, hadm_id=11), at(0, hadm_id=11), at(20, hadm_id=12)], ([31, 32, 33], [33], [32, 33], [32])),
        # the first stay of subject and admission is too short: it counts, and no other takes its place
        ([at(0, 1, hadm_id=11), at(4, hadm_id=11), at(20, hadm_id=12)], ([32, 33], [33], [33], [])),
        # a stay without intime is the last
        ([at(0, hadm_id=11, intime=None), at(4, hadm_id=11)], ([32], [], [32], [32])),
        # another subject's stay of before changes nothing
        ([at(4), at(0, subject_id=2, hadm_id=13)], ([31, 32], [31, 32], [31, 32], [31, 32])),
    ],
)
def test_which_of_several_stays(cohort, stays, by_choice):
    rows = {
        "stays": stays,
        "admissions": [{}, {}, {"subject_id": 2}],
        "patients": [{}, {}],
    }
    choices = ("all", "only_of_admission", "first_of_admission", "first_of_subject")
    found = tuple(kept(preset(cohort, stays=choice, same_unit=True), **rows) for choice in choices)
    assert found == by_choice


def test_a_transfer_matters_where_same_unit_is_asked_for(cohort):
    moved = [{"last_careunit": "SICU"}]
    assert kept(preset(cohort, stays="all", same_unit=True), stays=moved) == []
    assert kept(preset(cohort, stays="all", same_unit=False), stays=moved) == [31]


def test_the_attrition_names_the_rules_of_the_variant_and_no_others(cohort):
    longer = dataclasses.replace(preset(cohort, stays="first_of_subject", same_unit=False), min_stay_hours=72)
    assert [name for name, _ in rules(longer)] == [
        "subject and admission known",
        "alive at ICU admission",
        "age 18 to 120 years",
        "ICU stay of at least 72 h",
        "alive 48 h after ICU admission",
        "first ICU stay of the subject",
        "heart rate or blood pressure in the first 48 h",
    ]
    everyone = preset(dataclasses.replace(cohort, require_vital=False), stays="all", same_unit=False)
    assert len(rules(everyone)) == 5


def test_knobs_change_the_rules(cohort):
    loose = dataclasses.replace(cohort, min_age_years=16, require_vital=False)
    assert kept(loose, vital=[], patients=[{"anchor_age": 16}]) == [31]
    assert kept(cohort, vital=[], patients=[{"anchor_age": 16}]) == []
    died = {"deathtime": IN + timedelta(hours=60), "hospital_expire_flag": 1}
    assert kept(dataclasses.replace(cohort, alive_at_hours=60), admissions=[died]) == [31]
    assert kept(dataclasses.replace(cohort, alive_at_hours=60.001), admissions=[died]) == []
    assert kept(dataclasses.replace(cohort, min_stay_hours=72)) == [31]
    assert kept(dataclasses.replace(cohort, min_stay_hours=72.001)) == []


def test_attrition_counts_stays_and_subjects_after_each_rule(cohort):
    patients, admissions, icustays, _ = frames(
        stays=[{}, {}, {"subject_id": 2, "outtime": IN}], admissions=[{}, {}, {"subject_id": 2}], patients=[{}, {}]
    )
    every = describe_stays(patients, admissions, icustays, icustays["stay_id"])
    chosen, attrition = apply_rules(every, rules(cohort))
    assert attrition.columns == ["step", "stays", "subjects"]
    assert attrition.row(0) == ("all ICU stays", 3, 2)
    assert attrition.row(4) == ("ICU stay of at least 48 h", 2, 1)
    assert attrition.row(-1)[1:] == (2, 1)
    assert chosen.height == 2
    cohort_rules.check(attrition)
    with pytest.raises(InputError, match="ICU stay of at least 48 h"):
        cohort_rules.check(apply_rules(every.filter(stay_id=33), rules(cohort))[1])


@pytest.mark.parametrize(
    ("itemid", "value", "after", "found"),
    [
        (220045, 80.0, timedelta(0), True),
        (220045, 80.0, timedelta(microseconds=-1), False),
        (220045, 80.0, timedelta(hours=48, microseconds=-1), True),
        (220045, 80.0, timedelta(hours=48), False),
        (220045, 301.0, timedelta(0), False),  # not plausible
        (220045, 300.0, timedelta(0), True),  # the bound belongs to the range
        (220045, None, timedelta(0), False),
        (220179, 120.0, timedelta(hours=1), True),  # blood pressure
        (220180, 60.0, timedelta(hours=1), True),
        (220181, 80.0, timedelta(hours=1), True),
        (220210, 16.0, timedelta(hours=1), False),  # respiratory rate is not asked for
    ],
)
def test_vital_signs(itemid, value, after, found):
    chart = pl.DataFrame(
        {"stay_id": [31], "charttime": [IN + after], "itemid": [itemid], "value": [None], "valuenum": [value]},
        schema={
            "stay_id": pl.Int32,
            "charttime": pl.Datetime("us"),
            "itemid": pl.Int32,
            "value": pl.String,
            "valuenum": pl.Float64,
        },
    )
    stays = frames()[2]
    assert stays_with_vital(chart.lazy(), stays, load_all()).to_list() == ([31] if found else [])


def metadata(*rows):
    """cxr_metadata of (dicom_id, subject_id, study_time): frontal images of one study each."""
    return pl.DataFrame(
        [(d, s, 50 + i, None, "AP", 10, 10, t) for i, (d, s, t) in enumerate(rows)],
        schema={
            "dicom_id": pl.String,
            "subject_id": pl.Int32,
            "study_id": pl.Int32,
            "procedure": pl.String,
            "view_position": pl.String,
            "rows": pl.Int32,
            "columns": pl.Int32,
            "study_time": pl.Datetime("us"),
        },
        orient="row",
    )


def test_finished_stays_tell_absence_by_design_from_an_image_not_taken(cohort):
    patients, admissions, icustays, diagnoses = frames(
        stays=[{"subject_id": i + 1} for i in range(5)],
        admissions=[{"subject_id": i + 1} for i in range(5)],
        patients=[
            {},  # has an image
            {},  # is in MIMIC-CXR, in its years
            {"anchor_year_group": "2017 - 2019"},  # is in MIMIC-CXR, the stay is too late
            {"anchor_year_group": "2017 - 2019", "anchor_year": 2151},  # 2016 to 2018: may just be
            {},  # is not in MIMIC-CXR
        ],
        diagnoses=[(11, 9, "4019"), (12, 10, "I10"), (13, 9, "4019"), (13, 10, "I10"), (14, 10, "I10")],
    )
    images = metadata(
        ("a", 1, IN), ("b", 2, IN - 90 * DAY), ("c", 3, datetime(2144, 1, 1)), ("d", 4, datetime(2148, 1, 1))
    )
    every = describe_stays(patients, admissions, icustays, icustays["stay_id"])
    stays = finish_stays(every, diagnoses, link_images(images, every, cohort), images, patients)
    assert stays["cxr_status"].to_list() == ["present", "not_taken", "not_collectable", "not_taken", "not_collectable"]
    assert stays["has_cxr"].to_list() == [True, False, False, False, False]
    assert stays["icd_version"].to_list() == [9, 10, 19, 10, 0]
    assert stays["los_days"].to_list() == [3.0] * 5
    assert stays["era"][3] == "2017 - 2019"
    assert list(stays.columns) == list(cohort_rules.STAYS_COLUMNS)


def test_eras_in_which_images_certainly_lie_are_covered(cohort):
    patients, admissions, icustays, diagnoses = frames(
        stays=[{"subject_id": 1}, {"subject_id": 2}],
        admissions=[{"subject_id": 1}, {"subject_id": 2}],
        patients=[{"anchor_year_group": "2017 - 2019"}, {"anchor_year_group": "2020 - 2022"}],
    )
    images = metadata(("a", 1, IN + 90 * DAY), ("b", 2, datetime(2144, 1, 1)))
    every = describe_stays(patients, admissions, icustays, icustays["stay_id"])
    stays = finish_stays(every, diagnoses, link_images(images, every, cohort), images, patients)
    assert stays["cxr_status"].to_list() == ["not_taken", "not_collectable"]


@given(st.integers(-3, 3), st.integers(-3, 3), st.booleans())
@settings(deadline=None)
def test_who_is_dead_at_admission_is_as_the_dates_say(cohort, death, dod, own):
    """A death some half-days from intime, in the own or another admission, and a dod some days from it."""
    died_at = IN + death * DAY / 2
    row = DIED | {"deathtime": died_at}
    rows = {
        "stays": [{"hadm_id": 12}],
        "admissions": [{}, row] if own else [row, {}],
        "patients": [{"dod": IN.date() + dod * DAY}],
    }
    patients, admissions, icustays, _ = frames(**rows)
    every = describe_stays(patients, admissions, icustays, icustays["stay_id"])
    assert every["after_death"].to_list() == [died_at <= IN or (not own and dod < 0)]
