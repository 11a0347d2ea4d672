"""Hourly values of the tier `plus` on the open MIMIC-IV demo, each checked by hand in the raw rows that are named."""

import json

import numpy as np
import polars as pl
import pytest

from pipeline import files
from pipeline.mimic.manifest import build_manifest
from pipeline.mimic.series import write_series
from pipeline.mimic.tables import ingest
from pipeline.mimic.variables import EVENT_SOURCES, load_variables, needed_itemids
from pipeline.params import Data, Ingest, Series

pytestmark = pytest.mark.real_data

PLUS = load_variables("plus")
BOUNDS = Ingest(memory_gb=1.0, threads=2)


@pytest.fixture(scope="module")
def interim(demo_data, tmp_path_factory):
    """The interim tables of the demo, and the stays of 48 hours or more beside them."""
    folder = tmp_path_factory.mktemp("interim")
    data = Data(str(demo_data / "mimic-iv-demo"), str(demo_data / "mimic-cxr-jpg-demo"), "csv.gz", False)
    counts = ingest(build_manifest(data), {source: needed_itemids(source) for source in EVENT_SOURCES}, BOUNDS, folder)
    files.write_json(counts, folder / "counts.json")
    stays = pl.read_parquet(folder / "icustays.parquet").filter(
        pl.col("outtime") - pl.col("intime") >= pl.duration(days=2)
    )
    stays.select("stay_id", "intime").write_parquet(folder / "stays.parquet")
    return folder


def test_no_row_of_the_demo_is_left_out_or_bent_for_what_the_demo_has_not(interim):
    """Other units, other subjects, rows twice, words behind a bound: rules that must take nothing real away."""
    counts = json.loads((interim / "counts.json").read_text())
    assert counts["chart"]["dropped"].keys() <= {"itemid not needed", "no stay_id", "no value"}
    assert counts["output"]["dropped"].keys() == {"itemid not needed"}
    assert counts["lab"]["dropped"].keys() == {"in no ICU stay", "itemid not needed", "no number"}
    assert not [
        words for name in ("chart", "output", "lab") for words in counts[name].get("noted", {}) if "unit" in words
    ]
    assert {name: counts[name]["kept"] for name in ("chart", "output", "lab")} == {
        "chart": 135_964,
        "output": 7_349,
        "lab": 25_600,
    }


def series(interim, folder, lab_time):
    report = write_series(interim, interim / "stays.parquet", PLUS, Series("plus", lab_time, 2.0), BOUNDS, folder)
    return pl.read_parquet(folder / "hourly.parquet"), np.load(folder / "values.npy"), report


@pytest.fixture(scope="module")
def available(interim, tmp_path_factory):
    return series(interim, tmp_path_factory.mktemp("available"), "available")


@pytest.fixture(scope="module")
def drawn(interim, tmp_path_factory):
    return series(interim, tmp_path_factory.mktemp("drawn"), "charttime")


BY_HAND = [
    # intime 2110-11-30 17:11:36. Drawn at 16:15, before the stay, stored at 17:37: 50983 138, 50971 4.2, and 51003 with
    # neither value nor number, but the comment "<0.01.  CTROPNT > 0.10 NG/ML SUGGESTS ACUTE MI."
    (31959184, 0, "sodium", 138, None),
    (31959184, 0, "potassium", 4.2, None),
    (31959184, 0, "troponin_t", 0.01, None),
    # drawn at 23:49, stored at 00:53 the next day: hour 7 for who waits for the result, hour 6 by the draw
    (31959184, 6, "sodium", None, 140),
    (31959184, 7, "sodium", 140, None),
    # intime 2140-03-25 14:37:26. 50822 (whole blood): 3.6 drawn at 18:14, stored at 18:17; 50971: 3.4 drawn at 18:00,
    # stored at 19:05. Hour 4 begins at 18:37:26
    (33383124, 3, "potassium", 3.6, (3.6 + 3.4) / 2),
    (33383124, 4, "potassium", 3.4, None),
    # intime 2117-03-14 16:34:58. Without hadm_id, drawn at 15:41, stored at 17:09: 50912 1.6; 50931 "___", number 213
    (34531557, 0, "creatinine", 1.6, None),
    (34531557, 0, "glucose_lab", 213, None),
    # with it, drawn at 21:19, stored at 22:17
    (34531557, 4, "creatinine", None, 1.3),
    (34531557, 5, "creatinine", 1.3, None),
    # intime 2143-03-22 06:42:00. 08:27 "Nasal cannula" and verbal "No Response"; 09:00 "No Response-ETT"; 10:00 the
    # tube, CMV/ASSIST/AutoFlow; 19:56 "Nasal cannula", 19:58 "No Response-ETT", 20:00 "No Response", no evidence
    (30101877, 0, "intubated", None, None),
    (30101877, 1, "intubated", 0, 0),
    (30101877, 2, "intubated", 1, 1),
    (30101877, 3, "intubated", 1, 1),
    (30101877, 12, "intubated", None, None),
    (30101877, 13, "intubated", 1, 1),
    # 10:00: PEEP set 5, total 6, FiO2 50; 12:00: PEEP set 5, FiO2 40
    (30101877, 3, "peep", 5.5, 5.5),
    (30101877, 3, "fio2", 50, 50),
    (30101877, 5, "peep", 5, 5),
    # 05:00, an hour and 42 minutes before intime: 72 inches and 183 cm; at the same second the larger one counts
    (30101877, 0, "height", 183, 183),
    # intime 2171-11-14 10:06:41, charted at 10:06:00: 67 inches, 170 cm
    (30057454, 0, "height", 67 * 2.54, 67 * 2.54),
    # intime 2129-04-06 00:25:00. FiO2 4 at 08:30: litres
    (35128235, 8, "fio2", None, None),
]


@pytest.mark.parametrize(("stay", "hour", "name", "by_result", "by_draw"), BY_HAND)
def test_values_checked_by_hand(available, drawn, stay, hour, name, by_result, by_draw):
    for (hourly, _, _), expected in ((available, by_result), (drawn, by_draw)):
        found = hourly.filter(pl.col("stay_id") == stay, pl.col("hour") == hour)[name].to_list() or [None]
        assert found == [expected if expected is None else pytest.approx(expected, abs=1e-9)]


def test_creatinine_of_every_stay_against_the_raw_rows(available, demo_data):
    """Told once more, in Polars and in floating hours: results of the admission, by the time of storage."""
    icu = pl.read_csv(demo_data / "mimic-iv-demo/icu/icustays.csv.gz", try_parse_dates=True)
    labs = pl.read_csv(
        demo_data / "mimic-iv-demo/hosp/labevents.csv.gz", try_parse_dates=True, infer_schema_length=None
    )
    labs = labs.filter(pl.col("itemid") == 50912, pl.col("valuenum").is_not_null())
    hour = (pl.col("storetime") - pl.col("intime")).dt.total_seconds() / 3600
    expected = (
        labs.join(icu, on="subject_id")
        .filter(pl.col("hadm_id").is_null() | (pl.col("hadm_id") == pl.col("hadm_id_right")))
        .filter(pl.col("los") >= 2, hour >= 0, hour < 48)
        .group_by("stay_id", hour.floor().cast(pl.Int8).alias("hour"))
        .agg(pl.col("valuenum").mean().alias("creatinine"))
        .sort("stay_id", "hour")
    )
    found = available[0].filter(pl.col("creatinine").is_not_null()).select("stay_id", "hour", "creatinine")
    assert found.height == expected.height > 150
    assert found["stay_id"].to_list() == expected["stay_id"].to_list()
    assert found["hour"].to_list() == expected["hour"].to_list()
    assert np.allclose(found["creatinine"], expected["creatinine"], rtol=0, atol=1e-12)


def test_core_is_the_same_at_either_tier(interim, available, tmp_path):
    core = load_variables("core")
    write_series(interim, interim / "stays.parquet", core, Series("core", "available", 2.0), BOUNDS, tmp_path)
    values = np.load(tmp_path / "values.npy")
    assert np.array_equal(values, available[1][:, :, : len(core)], equal_nan=True)


def test_medians_are_those_of_sick_adults(available):
    medians = {
        v.name: float(np.nanmedian(available[1][:, :, i])) for i, v in enumerate(PLUS) if i >= 27 and v.name in USUAL
    }
    for name, (low, high) in USUAL.items():
        assert low <= medians[name] <= high, name


USUAL = {
    "sodium": (134, 144),
    "potassium": (3.7, 4.5),
    "creatinine": (0.7, 1.6),
    "bicarbonate": (20, 27),
    "hemoglobin": (8.5, 12),
    "hematocrit": (25, 36),
    "platelets": (120, 250),
    "wbc": (8, 14),
    "ph": (7.32, 7.44),
    "pco2": (35, 47),
    "po2": (80, 150),
    "lactate": (1.2, 3),
    "inr": (1, 1.6),
    "fio2": (40, 50),
    "peep": (5, 8),
    "height": (160, 180),
    "weight": (65, 100),
}


def test_counts(available):
    _, values, report = available
    assert values.shape == (74, 48, 84)
    assert report["unknown_texts"] == {}
    share = {name: counts["share_of_stays"] for name, counts in report["variables"].items()}
    assert all(share[name] > 0.9 for name in ("sodium", "creatinine", "hemoglobin", "platelets", "wbc", "intubated"))
    assert share["height"] == pytest.approx(44 / 74)  # all of them from before intime; three are more than a day older
