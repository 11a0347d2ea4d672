"""MEDS of a hand-made hospital, event by event, and by the schemas of the package `meds`."""

import json
from contextlib import chdir
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from pipeline.exporting.meds import write_meds
from pipeline.files import write_json
from pipeline.mimic.jpegs import with_path
from pipeline.mimic.manifest import build_manifest
from pipeline.mimic.variables import load_variables
from pipeline.params import Ingest, load
from pipeline.tasks import phenotype_slugs
from tests.support.prepared import prepare
from tests.support.raw_tree import ICUSTAYS, LABEVENTS, ingested, raw_tree

ABSENT = "the package meds is not installed: uv sync"
BOUNDS = Ingest(memory_gb=1.0, threads=1)
# a second ICU stay of the same admission, begun while two results of the first were not yet there
SECOND = "1,11,33,SICU,,2150-01-05 12:00:00,,1.0\n"
LATE = (
    "9,1,11,9,50912,,2150-01-05 11:50:00,2150-01-05 12:20:00,1.4,1.4,mg/dL,0.5,1.2,,STAT,\n"
    "10,1,11,9,50912,,2150-01-05 11:55:00,2150-01-05 12:20:00,1.4,1.4,mg/dL,0.5,1.2,,STAT,\n"
)


def at(text):
    return datetime.fromisoformat(f"2150-01-{text}")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """data/ of the hand-made tree: subject 1 trains in fold 0 and tests in fold 1, subject 2 the other way round."""
    folder = tmp_path_factory.mktemp("hospital")
    changes = {"iv/icu/icustays.csv.gz": ICUSTAYS + SECOND, "iv/hosp/labevents.csv.gz": LABEVENTS + LATE}
    ingested(folder, changes)
    data = folder / "data"
    stays = pl.DataFrame(
        {
            "stay_id": [31, 32],
            "subject_id": [1, 2],
            "hadm_id": [11, 12],
            "intime": [datetime(2150, 1, 1, 12), datetime(2160, 1, 1, 12)],
        },
        schema_overrides=dict.fromkeys(("stay_id", "subject_id", "hadm_id"), pl.Int32),
    )
    cxr = pl.DataFrame(
        [
            {"stay_id": 31, "rank": 1, "dicom_id": "a-1", "study_id": 52, "cxr_time": at("02 00:00:05"), "view": "PA"},
            {"stay_id": 31, "rank": 2, "dicom_id": "b-1", "study_id": 51, "cxr_time": at("01 13:30:00"), "view": "AP"},
            {"stay_id": 33, "rank": 1, "dicom_id": "a-1", "study_id": 52, "cxr_time": at("02 00:00:05"), "view": "PA"},
        ]
    ).with_columns(subject_id=pl.lit(1))
    labels = {"stay_id": [31, 32], "icu_mortality": [False, True], "hospital_mortality": [False, True]}
    labels |= {"los_class": [2, 6]} | {slug: [bool(i % 2), False] for i, slug in enumerate(phenotype_slugs())}
    parts = [(31, 0, "train"), (32, 0, "test"), (31, 1, "test"), (32, 1, "train")]
    splits = pl.DataFrame(parts, schema=["stay_id", "fold", "part"], orient="row")
    (data / "cohort").mkdir()
    stays.write_parquet(data / "cohort/stays.parquet")
    cxr.write_parquet(data / "cohort/cxr.parquet")
    pl.DataFrame(labels, schema_overrides={"los_class": pl.Int8}).write_parquet(data / "cohort/labels.parquet")
    splits.with_columns(subject_id=pl.col("stay_id") - 30).write_parquet(data / "splits.parquet")
    write_json({"preset": "carebench"}, data / "cohort/rules.json")
    write_json({"tier": "plus", "lab_time": "available", "max_jump": 2.0}, data / "series/rules.json")
    write_json(build_manifest(raw_tree(folder, changes)), data / "manifest.json")
    (data / "audit.ok").touch()
    return data


@pytest.fixture(scope="module")
def there(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "meds"
    write_meds(data, out, BOUNDS)
    return out


def events(out, split):
    return pl.read_parquet(out / f"data/{split}/0.parquet")


def test_every_event_of_a_subject_stands_at_the_time_when_it_could_be_known(there):
    rows = events(there, "train").select("time", "code", "numeric_value", "text_value", "stay_id").rows()
    creatinine, troponin = "LAB//50912//mg/dL", "LAB//51003//ng/mL"
    assert set(events(there, "train")["subject_id"]) == {1}
    assert [(*row[:2], None if row[2] is None else round(row[2], 4), *row[3:]) for row in rows] == [
        (None, "GENDER//F", None, None, None),
        (datetime(2100, 1, 1), "MEDS_BIRTH", None, None, None),
        (at("01 10:00:00"), "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM", None, None, None),
        (at("01 10:00:00"), "INSURANCE//Medicare", None, None, None),
        (at("01 10:00:00"), "LANGUAGE//?", None, None, None),
        (at("01 10:00:00"), "RACE//WHITE", None, None, None),
        (at("01 12:00:00"), "ICU_ADMISSION//MICU", None, None, 31),
        (at("01 12:00:00"), creatinine, 1.1, None, 31),
        (at("01 12:30:00"), "CHART//220045//bpm", 90.0, None, 31),
        (at("01 12:30:00"), "CHART//223900//points", None, "NA", 31),
        (at("01 12:30:00"), "CHART//224650", None, "None", 31),
        (at("01 13:00:00"), "CHART//220045//bpm", 88.0, None, 31),
        (at("01 13:00:00"), "OUTPUT//226559//mL", 0.0, None, 31),
        (at("01 13:30:00"), "CXR//AP", None, None, 31),
        (at("01 14:00:00"), "OUTPUT//226559//mL", 120.5, None, 31),
        (at("01 14:10:00"), creatinine, 1.2, None, 31),
        (at("01 15:00:00"), troponin, 0.01, None, 31),
        (at("01 17:00:00"), creatinine, 0.0, None, 31),
        (at("02 00:00:05"), "CXR//PA", None, None, 31),
        (at("05 12:00:00"), "ICU_ADMISSION//SICU", None, None, 33),
        (at("05 12:00:00"), "ICU_DISCHARGE//MICU", None, None, 31),
        # of both stays, and each drawn once
        (at("05 12:20:00"), creatinine, 1.4, None, 31),
        (at("05 12:20:00"), creatinine, 1.4, None, 31),
        (at("09 10:00:00"), "DIAGNOSIS//ICD//9//0389", None, None, None),
        (at("09 10:00:00"), "DIAGNOSIS//ICD//9//4019", None, None, None),
        (at("09 10:00:00"), "HOSPITAL_DISCHARGE", None, None, None),
    ]


def test_a_date_of_death_is_known_when_it_has_passed_and_a_time_of_death_then(data, there, tmp_path):
    assert events(there, "held_out").filter(code="MEDS_DEATH")["time"].to_list() == [datetime(2160, 1, 9, 9)]
    path = data / "interim/admissions.parquet"
    was = path.read_bytes()
    pl.read_parquet(path).with_columns(deathtime=pl.lit(None, pl.Datetime("us"))).write_parquet(path)
    write_meds(data, tmp_path / "meds", BOUNDS)
    path.write_bytes(was)
    died = events(tmp_path / "meds", "held_out").filter(code="MEDS_DEATH")["time"].to_list()
    assert died == [datetime(2161, 2, 3, 23, 59, 59)]


def test_labs_count_from_the_draw_where_the_series_do(data, tmp_path):
    rules = data / "series/rules.json"
    was = rules.read_text()
    rules.write_text(was.replace("available", "charttime"))
    write_meds(data, tmp_path / "meds", BOUNDS)
    rules.write_text(was)
    labs = events(tmp_path / "meds", "train").filter(pl.col("code") == "LAB//50912//mg/dL")
    assert labs["time"].to_list()[:2] == [at("01 11:30:00"), at("01 13:00:00")]


def test_an_image_is_told_by_its_path_in_the_release(data, there):
    images = events(there, "train").filter(pl.col("code").str.starts_with("CXR"))
    first = with_path(pl.read_parquet(data / "cohort/cxr.parquet").filter(stay_id=31))["path"].item()
    assert images["cxr_path"].to_list() == ["files/p1/p1/s51/b-1.jpg", first]


def test_labels_are_asked_after_48_hours(there):
    for task, column, values in (
        ("icu_mortality", "boolean_value", [False, True]),
        ("phenotype/shock", "boolean_value", [False, False]),
        ("phenotype/septicemia_except_in_labor", "boolean_value", [True, False]),
        ("los", "integer_value", [2, 6]),
    ):
        found = pl.read_parquet(there / f"tasks/{task}/0.parquet")
        assert found["subject_id"].to_list() == [1, 2]
        assert found["prediction_time"].to_list() == [datetime(2150, 1, 3, 12), datetime(2160, 1, 3, 12)]
        assert found[column].to_list() == values
    assert len(list((there / "tasks/phenotype").iterdir())) == 25


def test_splits_are_those_of_the_fold(data, there, tmp_path):
    splits = pl.read_parquet(there / "metadata/subject_splits.parquet")
    assert splits.rows() == [(1, "train"), (2, "held_out")]
    write_meds(data, tmp_path / "meds", BOUNDS, fold=1)
    assert pl.read_parquet(tmp_path / "meds/metadata/subject_splits.parquet").rows() == [(1, "held_out"), (2, "train")]
    assert set(events(tmp_path / "meds", "held_out")["subject_id"]) == {1}


def test_every_code_is_described_once(there):
    codes = pl.read_parquet(there / "metadata/codes.parquet")
    used = {code for split in ("train", "held_out") for code in events(there, split)["code"]}
    assert codes["code"].to_list() == sorted(used)
    told = {code: (description, parents) for code, description, parents in codes.iter_rows()}
    assert told["CHART//220045//bpm"] == ("Heart Rate", ["VARIABLE//heart_rate"])
    assert told["CHART//223900//points"] == (
        "GCS - Verbal Response",
        ["VARIABLE//gcs_verbal", "VARIABLE//intubated"],
    )
    assert told["DIAGNOSIS//ICD//9//4019"] == (None, ["ICD9CM/401.9"])
    assert told["DIAGNOSIS//ICD//10//J9601"] == (None, ["ICD10CM/J96.01"])
    assert told["MEDS_BIRTH"] == (None, None)


def test_the_same_data_make_the_same_bytes(data, there, tmp_path):
    write_meds(data, tmp_path / "meds", BOUNDS)
    for path in there.rglob("*.*"):
        assert (tmp_path / "meds" / path.relative_to(there)).read_bytes() == path.read_bytes(), path


@pytest.fixture
def meds():
    return pytest.importorskip("meds", reason=ABSENT)


@pytest.fixture
def read():
    """A Parquet file as the table that the package's classes take."""
    found = pytest.importorskip("pyarrow.parquet", reason=ABSENT)
    return lambda path: found.read_table(path, partitioning=None)


def test_events_are_valid_by_the_packages_schema(there, meds, read):
    folder = there / meds.data_subdirectory
    assert {path.parent.name for path in folder.rglob("*.parquet")} == {meds.train_split, meds.held_out_split}
    for path in folder.rglob("*.parquet"):
        table = read(path)
        meds.DataSchema.validate(table.drop_columns("text_value"))
        aligned = meds.DataSchema.align(table)  # of texts Parquet knows one kind, Arrow two: the type changes, no value
        assert {name: aligned[name].to_pylist() for name in aligned.column_names} == table.to_pydict()
        frame = pl.read_parquet(path)
        assert frame["subject_id"].is_sorted()
        for own in frame.partition_by("subject_id"):
            assert own["time"].is_sorted()
    assert {meds.birth_code, meds.death_code} <= set(events(there, "held_out")["code"])


def test_labels_are_valid_by_the_packages_schema(there, meds, read):
    found = list((there / "tasks").rglob("*.parquet"))
    assert len(found) == 27
    for path in found:
        meds.LabelSchema.validate(read(path))


def test_metadata_are_valid_by_the_packages_schema(there, meds, read):
    meds.SubjectSplitSchema.validate(read(there / meds.subject_splits_filepath))
    meds.CodeMetadataSchema.align(read(there / meds.code_metadata_filepath))
    about = json.loads((there / meds.dataset_metadata_filepath).read_text())
    meds.DatasetMetadataSchema.validate(about)
    assert about["meds_version"] == meds.__version__
    extra = about["raw_source_id_columns"] + about["additional_value_modality_columns"]
    assert set(read(there / "data/train/0.parquet").column_names) - set(meds.DataSchema.columns()) == set(extra)


def test_what_a_model_may_use_tells_no_outcome(there):
    """Up to the time of prediction no diagnosis, discharge or death stands among a subject's events."""
    labels = pl.read_parquet(there / "tasks/icu_mortality/0.parquet")
    for split in ("train", "held_out"):
        known = events(there, split).join(labels, on="subject_id").filter(pl.col("time") <= pl.col("prediction_time"))
        assert known.height > 3
        assert not known.filter(pl.col("code").str.contains("DIAGNOSIS|DISCHARGE|DEATH")).height


def test_the_series_can_be_made_again_of_the_events(root, tmp_path):
    """Hours of stays that the pipeline has made are the means, over the same hours, of what was written."""
    stages = ("manifest", "ingest", "cohort", "labels", "series", "splits")
    folder = prepare(tmp_path, 60, stages, load(root / "params.yaml").synthetic)
    (folder / "data/audit.ok").touch()
    with chdir(folder):
        write_meds(folder / "data", tmp_path / "meds", BOUNDS)
    stays = pl.read_parquet(folder / "data/cohort/stays.parquet", columns=["stay_id", "intime"]).with_row_index("row")
    values = np.load(folder / "data/series/values.npy")
    every = pl.concat([pl.read_parquet(path) for path in (tmp_path / "meds/data").glob("*/0.parquet")])
    for index, variable in enumerate(load_variables("core")[:5]):
        codes = [f"CHART//{item.itemid}//{item.unit}" for item in variable.items]
        own = every.filter(
            pl.col("code").is_in(codes), pl.col("numeric_value").is_between(variable.low, variable.high)
        ).join(stays.with_columns(pl.col("stay_id").cast(pl.Int64)), on="stay_id")
        own = own.with_columns(hour=(pl.col("time") - pl.col("intime")).dt.total_microseconds() // 3_600_000_000)
        means = own.filter(pl.col("hour").is_between(0, 47)).group_by("row", "hour")
        found = means.agg(pl.col("numeric_value").cast(pl.Float64).mean())
        made = np.full((stays.height, 48), np.nan)
        made[found["row"], found["hour"]] = found["numeric_value"]
        assert found.height > 100
        np.testing.assert_allclose(made, values[:, :, index], rtol=1e-6)
