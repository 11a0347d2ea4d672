"""Image links: which images are frontal, which lie in the window, and every step of the choice among them."""

import dataclasses
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import params
from pipeline.closure import ROOT
from pipeline.mimic.cxr_links import frontal_view, link_images

PARAMS = ROOT / "params.yaml"
IN = datetime(2150, 3, 1, 12)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
DEFAULTS = {
    "dicom_id": "a",
    "subject_id": 1,
    "study_id": 51,
    "procedure": "CHEST (PORTABLE AP)",
    "view_position": "AP",
    "rows": 400,
    "columns": 300,
    "study_time": IN + HOUR,
}
METADATA_SCHEMA = {
    "dicom_id": pl.String,
    "subject_id": pl.Int32,
    "study_id": pl.Int32,
    "procedure": pl.String,
    "view_position": pl.String,
    "rows": pl.Int32,
    "columns": pl.Int32,
    "study_time": pl.Datetime("us"),
}
STAYS_SCHEMA = {"stay_id": pl.Int32, "subject_id": pl.Int32, "intime": pl.Datetime("us")}


@pytest.fixture(scope="module")
def cohort():
    return params.load(PARAMS).cohort


def link(cohort, *images, stays=((31, 1, IN),)):
    """Links of images that differ from an ordinary one in the given fields."""
    metadata = pl.DataFrame([DEFAULTS | image for image in images], schema=METADATA_SCHEMA)
    return link_images(metadata, pl.DataFrame(list(stays), schema=STAYS_SCHEMA, orient="row"), cohort)


def order(cohort, *images):
    """dicom_ids by rank."""
    links = link(cohort, *images).images
    assert links["rank"].to_list() == list(range(1, links.height + 1))
    return links["dicom_id"].to_list()


@pytest.mark.parametrize(
    ("view", "procedure", "expected"),
    [
        ("AP", "CHEST (LAT ONLY)", "AP"),  # what is stated counts
        ("PA", None, "PA"),
        (" ap ", None, "AP"),
        ("LATERAL", "CHEST (PORTABLE AP)", None),
        ("LL", "CHEST (PA)", None),
        ("AP AXIAL", "CHEST (PORTABLE AP)", None),
        ("AP LLD", "CHEST (PORTABLE AP)", None),
        (None, "CHEST (PORTABLE AP)", "AP"),
        ("", "CHEST (PA)", "PA"),
        (None, "chest ap port view", "AP"),
        (None, "CHEST (PA AND LAT)", None),
        (None, "CHEST (AP AND LATERAL)", None),
        (None, "CHEST (PA AND AP)", None),
        (None, "CHEST (SINGLE VIEW)", None),
        (None, "CHEST (APICAL LORDOTIC)", None),  # no word AP
        (None, "PACEMAKER, MAP", None),
        (None, "PA, COLLATERAL", "PA"),  # no word LATERAL
        (None, None, None),
    ],
)
def test_frontal(view, procedure, expected):
    frame = pl.DataFrame(
        {"view_position": [view], "procedure": [procedure]}, schema={"view_position": pl.String, "procedure": pl.String}
    )
    assert frame.select(frontal_view()).item() == expected


@pytest.mark.parametrize(
    ("time", "linked"),
    [
        (IN - TICK, False),
        (IN, True),
        (IN + 48 * HOUR, True),
        (IN + 48 * HOUR + TICK, False),
        (None, False),
    ],
)
def test_both_ends_of_the_window_belong_to_it(cohort, time, linked):
    assert order(cohort, {"study_time": time}) == (["a"] if linked else [])


@settings(deadline=None, max_examples=60)
@given(st.timedeltas(timedelta(hours=-30), timedelta(hours=60)))
def test_window_and_hours_agree(offset):
    cohort = params.load(PARAMS).cohort
    links = link(cohort, {"study_time": IN + offset}).images
    hours = offset / HOUR
    assert links.height == (0 <= hours <= 48)
    if links.height:
        assert links["hours_from_intime"].item() == pytest.approx(hours, abs=1e-9)


def test_the_window_is_a_knob(cohort):
    wide = dataclasses.replace(cohort, cxr_hours_before=24, cxr_hours_after=6)
    assert order(wide, {"study_time": IN - 24 * HOUR}) == ["a"]
    assert order(wide, {"study_time": IN - 24 * HOUR - TICK}) == []
    assert order(wide, {"study_time": IN + 6 * HOUR + TICK}) == []
    only_pa = dataclasses.replace(cohort, cxr_views=("PA",))
    assert order(only_pa, {}, {"dicom_id": "b", "view_position": "PA"}) == ["b"]


def test_the_latest_study_comes_first_whatever_its_views_and_sizes(cohort):
    early = {"dicom_id": "a", "rows": 3000}
    late = {"dicom_id": "b", "study_id": 52, "view_position": "PA", "study_time": IN + 2 * HOUR}
    assert order(cohort, early, late) == ["b", "a"]
    assert order(cohort, late, early) == ["b", "a"]


def test_a_later_study_without_frontal_image_does_not_count(cohort):
    late = {"dicom_id": "b", "study_id": 52, "view_position": "LATERAL", "study_time": IN + 2 * HOUR}
    assert order(cohort, {}, late) == ["a"]


def test_ap_comes_before_pa_and_then_the_larger_image(cohort):
    pa = {"dicom_id": "a", "view_position": "PA", "rows": 3000}
    small = {"dicom_id": "b", "rows": 100, "columns": 900}
    large = {"dicom_id": "c", "rows": 301, "columns": 300}
    assert order(cohort, pa, small, large) == ["c", "b", "a"]


def test_resolved_views_take_part(cohort):
    resolved = {"dicom_id": "b", "view_position": None}
    assert order(cohort, {"view_position": "PA"}, resolved) == ["b", "a"]


def test_of_equal_images_the_smaller_id_comes_first(cohort):
    turned = {"dicom_id": "a", "rows": 300, "columns": 400}  # the same number of pixels
    assert order(cohort, {"dicom_id": "b"}, turned) == ["a", "b"]
    assert order(cohort, turned, {"dicom_id": "b"}) == ["a", "b"]


def test_an_image_of_unknown_size_comes_last(cohort):
    assert order(cohort, {"dicom_id": "a", "rows": None}, {"dicom_id": "b", "rows": 1, "columns": 1}) == ["b", "a"]


def test_studies_of_the_same_time_are_one_pool(cohort):
    pa = {"dicom_id": "a", "study_id": 52, "view_position": "PA", "rows": 3000}
    ap = {"dicom_id": "b", "study_id": 51}
    large = {"dicom_id": "c", "study_id": 53, "rows": 3000}
    assert order(cohort, pa, ap, large) == ["c", "b", "a"]


def test_images_of_a_study_stay_together_though_their_times_differ(cohort):
    first = {"dicom_id": "a", "study_id": 51, "study_time": IN + HOUR}
    between = {"dicom_id": "b", "study_id": 52, "study_time": IN + 2 * HOUR}
    last = {"dicom_id": "c", "study_id": 51, "study_time": IN + 3 * HOUR, "rows": 10}
    assert order(cohort, first, between, last) == ["a", "c", "b"]


def test_large_sizes_do_not_overflow(cohort):
    huge = {"dicom_id": "b", "rows": 100_000, "columns": 100_000}
    assert order(cohort, {"dicom_id": "a"}, huge) == ["b", "a"]


def test_links_are_of_the_same_subject_and_an_image_may_lie_in_two_windows(cohort):
    stays = [(31, 1, IN), (32, 1, IN + 24 * HOUR), (33, 2, IN)]
    links = link(
        cohort,
        {"study_time": IN + 30 * HOUR},
        {"dicom_id": "x", "subject_id": 9},
        {"dicom_id": "y", "view_position": "LATERAL"},
        {"dicom_id": "z", "view_position": None, "study_time": None},
        stays=stays,
    )
    assert links.images.select("stay_id", "rank", "dicom_id", "hours_from_intime").rows() == [
        (31, 1, "a", 30.0),
        (32, 1, "a", 6.0),
    ]
    assert links.counts == {
        "images": 4,
        "images_without_view": 1,
        "of_these_resolved_by_procedure": 1,
        "images_not_frontal": 1,
        "images_without_usable_time": 1,
        "images_of_unknown_size": 0,
        "frontal_images_of_no_stay_of_the_cohort": 1,
        "eligible_images": 1,
        "links": 2,
        "stays_with_image": 2,
        "images_in_windows_of_several_stays": 1,
    }


def test_an_image_in_three_windows_is_one_image_in_several(cohort):
    stays = [(31, 1, IN), (32, 1, IN + 10 * HOUR), (33, 1, IN + 20 * HOUR)]
    links = link(
        cohort, {"study_time": IN + 30 * HOUR}, {"dicom_id": "b", "study_id": 52, "study_time": IN}, stays=stays
    )
    assert links.images.group_by("stay_id").agg("dicom_id").sort("stay_id").rows() == [
        (31, ["a", "b"]),
        (32, ["a"]),
        (33, ["a"]),
    ]
    assert (links.counts["links"], links.counts["images_in_windows_of_several_stays"]) == (4, 1)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["AP", "PA"]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)
        ),
        min_size=1,
        max_size=8,
    ),
    st.randoms(),
)
def test_choice_equals_a_plain_one_and_does_not_depend_on_the_order_of_rows(images, random):
    cohort = params.load(PARAMS).cohort
    rows = [
        {
            "dicom_id": f"{i:02d}",
            "study_id": 100 * hour + study,  # images of a study share its time
            "study_time": IN + hour * HOUR,
            "view_position": view,
            "rows": height,
            "columns": width,
        }
        for i, (hour, view, height, width, study) in enumerate(images)
    ]
    expected = sorted(
        rows,
        key=lambda row: (
            IN - row["study_time"],
            row["view_position"] != "AP",
            -row["rows"] * row["columns"],
            row["dicom_id"],
        ),
    )
    random.shuffle(rows)
    assert order(cohort, *rows) == [row["dicom_id"] for row in expected]
