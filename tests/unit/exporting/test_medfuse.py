"""MedFuse's folder read back as its own reader reads it: line by line, into bins of an hour."""

import csv
import math

import numpy as np
import polars as pl
import pytest

from pipeline.exporting.medfuse import CHANNELS, timeseries, write_medfuse
from pipeline.mimic.variables import load_variables
from pipeline.tasks import phenotype_slugs

PLACE = {variable.name: index for index, variable in enumerate(load_variables("core"))}
NUMERIC = ("dbp", "glucose", "heart_rate", "mbp", "spo2", "resp_rate", "sbp", "temperature")
SCORES = ("gcs_eyes", "gcs_motor", "gcs_total", "gcs_verbal")
FOLD = 1


@pytest.fixture(scope="module")
def there(packed, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "medfuse"
    write_medfuse(packed, out, FOLD)
    return out


def listed(path):
    """The lines of a listfile as its reader keeps them: name -> hours, stay and labels; and the labels' names."""
    with path.open() as file:
        header, *lines = csv.reader(file)
    assert header[:3] == ["stay", "period_length", "stay_id"]
    return {line[0]: (float(line[1]), int(line[2]), [int(y) for y in line[3:]]) for line in lines}, header[3:]


def binned(path, hours=48):
    """Channel -> the value in each hour's bin, None where there is none; a time on an edge is of the bin below."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    found = {channel: [None] * hours for channel in rows[0] if channel != "Hours"}
    for row in rows:
        time = float(row.pop("Hours"))
        for channel, value in row.items():
            if value and time <= hours + 1e-6:
                found[channel][int(time - 1e-6)] = value
    return found


@pytest.mark.parametrize("task", ["in-hospital-mortality", "icu-mortality", "phenotyping"])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_listfile_holds_the_stays_of_its_part_with_their_labels(packed, there, task, part):
    found, names = listed(there / task / f"{part}_listfile.csv")
    splits = pl.read_parquet(packed / "splits.parquet").filter(fold=FOLD, part=part)
    labels = {row["stay_id"]: row for row in pl.read_parquet(packed / "cohort/labels.parquet").iter_rows(named=True)}
    assert sorted(stay for _, stay, _ in found.values()) == splits["stay_id"].sort().to_list()
    columns = {"in-hospital-mortality": ["hospital_mortality"], "icu-mortality": ["icu_mortality"]}
    for name, (hours, stay, truth) in found.items():
        assert hours == 48
        assert truth == [int(labels[stay][column]) for column in columns.get(task, phenotype_slugs())]
        assert (there / task / ("test" if part == "test" else "train") / name).is_file()
    assert names == ["y_true"] if task in columns else names[23:] == ["Septicemia (except in labor)", "Shock"]


def test_nobody_of_dev_and_nothing_else_is_there(packed, there):
    told = {name for part in ("train", "val", "test") for name in listed(there / f"phenotyping/{part}_listfile.csv")[0]}
    for task in ("in-hospital-mortality", "icu-mortality", "phenotyping"):
        assert {path.name for path in (there / task).rglob("*_timeseries.csv")} == told
    dev = pl.read_parquet(packed / "splits.parquet").filter(fold=FOLD, part="dev")
    assert dev.height
    assert len(told) == 60 - dev.height


def test_episodes_count_a_subjects_stays_in_the_order_of_time(packed, there):
    stays = pl.read_parquet(packed / "cohort/stays.parquet").sort("intime")
    again = stays.filter(pl.col("subject_id").is_duplicated())
    assert again.height
    for part in ("train", "val", "test"):
        for name, (_, stay, _) in listed(there / f"phenotyping/{part}_listfile.csv")[0].items():
            subject = stays.filter(stay_id=stay)["subject_id"][0]
            own = stays.filter(subject_id=subject)["stay_id"].to_list()
            assert name == f"{subject}_episode{own.index(stay) + 1}_timeseries.csv"


def test_every_bin_holds_what_was_charted_in_that_hour(packed, there):
    values, stays = np.load(packed / "series/values.npy"), pl.read_parquet(packed / "cohort/stays.parquet")["stay_id"]
    for name, (_, stay, _) in listed(there / "phenotyping/train_listfile.csv")[0].items():
        own = values[stays.index_of(stay)]
        bins = binned(there / "phenotyping/train" / name)
        assert list(bins) == list(CHANNELS)
        for channel, (variable, _) in CHANNELS.items():
            if variable in NUMERIC:
                read = np.array([math.nan if value is None else float(value) for value in bins[channel]], np.float32)
                np.testing.assert_array_equal(read, own[:, PLACE[variable]])
            elif variable not in SCORES:  # not in tier core
                assert bins[channel] == [None] * 48


def test_scores_are_the_discretisers_texts():
    values = np.full((48, len(PLACE)), np.nan, np.float32)
    values[3, [PLACE[name] for name in SCORES]] = 4, 6, 15, 5
    values[4, [PLACE[name] for name in SCORES]] = 1, 1, 3, 1
    frame = timeseries(values, PLACE).select(pl.col("^Glascow.*$"))
    assert frame.columns == [
        *("Glascow coma scale eye opening", "Glascow coma scale motor response", "Glascow coma scale total"),
        "Glascow coma scale verbal response",
    ]
    assert frame.row(3) == ("4 Spontaneously", "6 Obeys Commands", "15", "5 Oriented")
    assert frame.row(4) == ("1 No Response", "1 No Response", "3", "1 No Response")
    assert frame.row(5) == (None,) * 4


def test_a_share_of_oxygen_is_a_fraction():
    place = {variable.name: index for index, variable in enumerate(load_variables("plus"))}
    values = np.full((48, len(place)), np.nan, np.float32)
    values[0, [place["fio2"], place["ph"], place["weight"], place["height"]]] = 40, 7.25, 81, 170
    row = timeseries(values, place).row(0, named=True)
    assert row["Fraction inspired oxygen"] == pytest.approx(0.4)
    assert (row["pH"], row["Weight"], row["Height"], row["Capillary refill rate"]) == (7.25, 81, 170, None)


def test_images_have_the_part_of_their_stay(packed, there):
    read = pl.read_csv(there / "mimic-cxr-ehr-split.csv")
    assert read.columns == ["dicom_id", "study_id", "subject_id", "split"]
    parts = pl.read_parquet(packed / "splits.parquet").filter(fold=FOLD).select("stay_id", "part")
    cxr = pl.read_parquet(packed / "cohort/cxr.parquet").join(parts, on="stay_id").filter(pl.col("part") != "dev")
    wanted = dict(cxr.select("dicom_id", pl.col("part").replace("val", "validate")).iter_rows())
    assert dict(read.select("dicom_id", "split").iter_rows()) == wanted
    assert set(wanted.values()) == {"train", "validate", "test"}


def test_all_stays_tell_their_times(packed, there):
    read = pl.read_csv(there / "root/all_stays.csv", try_parse_dates=True)
    stays = pl.read_parquet(packed / "cohort/stays.parquet")
    assert read["stay_id"].to_list() == stays["stay_id"].to_list()
    assert read["intime"].cast(pl.Datetime("us")).to_list() == stays["intime"].dt.truncate("1s").to_list()
