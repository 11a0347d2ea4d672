"""The cohort's report: what is odd is counted, and no group of few is told."""

import polars as pl

from pipeline.mimic import cohort as cohort_rules
from pipeline.mimic.cohort import describe_stays
from tests.support.stays import DAY, IN, MOMENT, frames


def test_oddities_are_counted(cohort):
    patients, admissions, icustays, _ = frames(
        stays=[{}, {"outtime": None}, {"outtime": IN - DAY}, {"hadm_id": 99}],
        admissions=[
            {"hospital_expire_flag": 1},
            {"deathtime": IN - DAY, "hospital_expire_flag": 0},
            {"admission_type": "X", "hospital_expire_flag": 2, "dischtime": IN - 2 * DAY},
        ],
    )
    counts = cohort_rules.count_oddities(describe_stays(patients, admissions, icustays, icustays["stay_id"]))
    assert counts == {
        "stays_of_unknown_subject_or_admission": 1,
        "stays_without_intime": 0,
        "stays_without_outtime": 1,
        "stays_that_end_before_they_begin": 1,
        "stays_whose_admission_ends_before_it_begins": 1,
        "stays_not_within_their_admission": 1,
        "stays_that_begin_after_death": 4,
        "stays_of_unknown_age": 0,
        "stays_of_an_age_below_0_or_above_120": 0,
        "hospital_expire_flag_neither_0_nor_1": 1,
        "died_in_hospital_without_deathtime": 1,
        "deathtime_without_hospital_death": 1,
        "deathtime_before_intime": 1,
        "admission_type_not_known": 1,
        "without_era": 0,
    }


def test_a_stay_outside_of_its_admission_and_an_age_that_cannot_be_are_counted(cohort):
    patients, admissions, icustays, _ = frames(
        stays=[{"subject_id": 1 + i} for i in range(5)],
        admissions=[
            {"subject_id": 1},
            {"subject_id": 2, "admittime": IN + MOMENT},
            {"subject_id": 3, "dischtime": IN + 3 * DAY - MOMENT},
            {"subject_id": 4, "admittime": IN, "dischtime": IN + 3 * DAY},
            {"subject_id": 5},
        ],
        patients=[{}, {"anchor_age": None}, {"anchor_age": 300}, {"anchor_year": 1815}, {"anchor_year": 2300}],
    )
    counts = cohort_rules.count_oddities(describe_stays(patients, admissions, icustays, icustays["stay_id"]))
    assert counts["stays_not_within_their_admission"] == 2
    assert counts["stays_of_unknown_age"] == 1
    assert counts["stays_of_an_age_below_0_or_above_120"] == 3


def summary(stays: int, with_image: int, late: int) -> dict:
    """The report of so many stays, the first `late` of them in another era, the last `with_image` with an image."""
    frame = pl.DataFrame(
        {
            "subject_id": range(stays),
            "has_cxr": [i >= stays - with_image for i in range(stays)],
            "era": ["2020 - 2022" if i < late else "2011 - 2013" if i % 2 else "2014 - 2016" for i in range(stays)],
        }
    ).with_columns(
        pl.when("has_cxr").then(pl.lit("present")).otherwise(pl.lit("not_taken")).alias("cxr_status"),
        **{name: pl.lit("one") for name in ("race_group", "admission_group", "gender", "icd_version", "insurance")},
    )
    steps = [("all ICU stays", 140, 100), ("odd", 139, 99), ("short", stays, stays)]
    attrition = pl.DataFrame(steps, schema=["step", "stays", "subjects"], orient="row")
    images = {"images": 3, "links": 3, "stays_with_image": with_image}
    every = describe_stays(*frames()[:3], pl.Series([31], dtype=pl.Int32))
    return cohort_rules.summarise(every, frame, attrition, images)


def test_the_report_tells_no_group_below_ten_and_nothing_that_gives_it_away():
    counts = summary(stays=60, with_image=30, late=1)
    assert counts["groups"]["era"] == {
        "2011 - 2013": {"stays": 30, "with_cxr": 15},
        "2014 - 2016": {"stays": "hidden", "with_cxr": 15},
        "2020 - 2022": {"stays": "<10", "with_cxr": 0},
    }
    assert counts["groups"]["gender"] == {"one": {"stays": 60, "with_cxr": 30}}
    assert counts["groups"]["cxr_status"] == {
        "not_taken": {"stays": 30, "with_cxr": 0},
        "present": {"stays": 30, "with_cxr": 30},
    }
    assert [row["stays"] for row in counts["attrition"]] == [140, "hidden", 60]  # one stay went
    assert counts["matched"] == {"stays": 30, "subjects": 30}
    assert counts["images"] == {"images": 3, "links": "<10", "stays_with_image": 30}  # 3 rows of a file


def test_all_but_a_few_with_an_image_are_not_counted_either():
    counts = summary(stays=60, with_image=57, late=0)
    assert counts["matched"] == {"stays": "hidden", "subjects": "hidden"}
    assert counts["images"]["stays_with_image"] == "hidden"
    assert counts["groups"]["cxr_status"]["not_taken"]["stays"] == "<10"
    assert counts["groups"]["cxr_status"]["present"] == {"stays": "hidden", "with_cxr": "hidden"}
