"""The leak audit: silent on clean hospitals, and each planted leak is caught by the check meant for it."""

import dataclasses
import re
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.audit import CHECKS, Events, audit, read_artefacts
from pipeline.mimic.phenotypes import load_ccs
from pipeline.mimic.variables import load_variables
from tests.support.charted import INTIME, at, chart, extract, output
from tests.support.inprocess import DATA_STAGES, ROOT, run, synthesize, write_params
from tests.support.planted import PLANTED
from tests.support.planted.changes import common_label
from tests.support.planted.people import temporal
from tests.support.planted.series import stay_without_labels

BY_NAME = {check.__name__: check for check in CHECKS}
CASES = [(check, plant) for check, plants in PLANTED.items() for plant in plants]


def built(folder: Path, patients: int, seed: int, **changes: object):
    """The artefacts of a synthetic hospital, by the real stages."""
    write_params(folder, patients, seed, changes)
    synthesize(folder)
    run(folder, *DATA_STAGES)
    of_a_stay = int(str(changes.get("images.per_stay", 1)))
    return read_artefacts(folder / "data", load_variables("core"), load_ccs(), 0, 48, images_per_stay=of_a_stay)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return built(tmp_path_factory.mktemp("clean"), patients=400, seed=11)


def test_clean_data_pass(clean):
    rows, leaks = audit(clean)
    assert [row for row in rows if not row["passed"]] == []
    assert leaks == []


def test_several_images_of_a_stay_are_audited(tmp_path):
    several = built(tmp_path, 200, 11, **{"images.per_stay": 3})
    run(tmp_path, "audit")
    assert several.images["rank"].max() == 3
    assert audit(several)[1] == []
    check = BY_NAME["images_of_others"]
    turned = several.images.with_columns(rank=pl.col("rank").reverse().over("stay_id"))
    for wrong, words in (
        (dataclasses.replace(several, images=turned), "not in the order of its links"),
        (dataclasses.replace(several, images_per_stay=2), "not the stay's"),
    ):
        leak = check(wrong)
        assert leak is not None
        assert words in leak.text


def test_a_temporal_split_without_later_eras_in_training_passes(clean):
    early = dataclasses.replace(clean, **temporal(clean, "2011 - 2013"))
    for check in ("subjects_cross_parts", "subjects_not_tested_once", "later_era_in_training"):
        assert BY_NAME[check](early) is None
    assert BY_NAME["later_era_in_training"](clean) is None  # with folds, eras are mixed


def test_every_check_has_a_planted_leak_and_there_are_many():
    assert list(PLANTED) == list(BY_NAME)
    assert len({plant for _, plant in CASES}) == len(CASES) >= 24


@pytest.mark.parametrize(("check", "plant"), CASES, ids=[plant.__name__ for _, plant in CASES])
def test_a_planted_leak_is_caught_by_its_check(clean, check, plant):
    leak = BY_NAME[check](dataclasses.replace(clean, **plant(clean)))
    assert leak is not None
    assert "\n" not in leak.text
    ids = {*clean.stays["stay_id"].cast(pl.String), *clean.stays["subject_id"].cast(pl.String)}
    assert not ids & set(re.findall(r"\d+", leak.text)), "an id stands in the report's text"
    assert not any(dicom in leak.text for dicom in clean.metadata["dicom_id"])


@pytest.mark.slow
@pytest.mark.parametrize(("check", "plant"), CASES, ids=[plant.__name__ for _, plant in CASES])
def test_no_planted_leak_makes_another_check_stumble(clean, check, plant):
    rows, _ = audit(dataclasses.replace(clean, **plant(clean)))
    assert check in [row["name"] for row in rows if not row["passed"]]


@pytest.fixture(scope="module")
def plus(tmp_path_factory):
    """The artefacts of a hospital at the tier plus, and those of the same files, told that labs count from the draw."""
    folder = tmp_path_factory.mktemp("plus")
    write_params(folder, 150, 12, {"series.tier": "plus"})
    synthesize(folder)
    run(folder, *DATA_STAGES, "audit")
    return [
        read_artefacts(folder / "data", load_variables("plus"), load_ccs(), 0, 48, lab_time=time, max_jump=2.0)
        for time in ("available", "charttime")
    ]


def test_labs_are_audited_by_the_time_that_counts(plus):
    available, drawn = plus
    assert audit(available)[1] == []
    leak = BY_NAME["events_outside_window"](drawn)
    assert leak is not None
    named = set(re.findall(r"[a-z_0-9]+", leak.text.partition("(")[2]))
    assert {"sodium", "creatinine", "ph"} <= named <= {v.name for v in available.variables if v.source == "labevents"}


def test_a_height_may_be_a_day_old_and_not_older(plus):
    artefacts = plus[0]
    chart = artefacts.events["chartevents"].rows
    for hours, caught in ((22, False), (25, True)):
        time = pl.when(pl.col("itemid").is_in([226707, 226730])).then(pl.col("time") - pl.duration(hours=hours))
        events = {**artefacts.events, "chartevents": Events(chart.with_columns(time=time.otherwise("time")))}
        leak = BY_NAME["events_outside_window"](dataclasses.replace(artefacts, events=events))
        assert (leak is not None) == caught
        assert leak is None or "never charted (height)" in leak.text


@pytest.mark.parametrize("name", ["intubated", "fio2", "peep", "weight"])
def test_what_is_charted_at_the_bedside_is_audited_hour_by_hour(plus, name):
    """Each value an hour before it was charted."""
    artefacts = plus[0]
    earlier = artefacts.hourly.with_columns(pl.col(name).shift(-1).over("stay_id"))
    leak = BY_NAME["events_outside_window"](dataclasses.replace(artefacts, hourly=earlier))
    assert leak is not None
    assert f"({name})" in leak.text


def test_the_report_counts_and_the_error_names_an_id(clean):
    rows, leaks = audit(dataclasses.replace(clean, **stay_without_labels(clean)))
    (found,) = [row for row in rows if not row["passed"]]
    assert found["detail"] == "without a row in labels.parquet: 1 stay_id(s)"
    assert leaks == [f"stays_without_series: {found['detail']}, the first stay_id {clean.stays['stay_id'][0]}"]


def test_a_subject_may_go_without_a_test_where_there_is_one_fold(clean):
    """As in a split by time; twice in a test it cannot be."""
    one = clean.splits.filter(pl.col("fold") == 0)
    check = BY_NAME["subjects_not_tested_once"]
    assert check(dataclasses.replace(clean, splits=one)) is None
    assert check(dataclasses.replace(clean, splits=clean.splits.filter(pl.col("fold") != 4))) is not None


def quiet_hospital(folder: Path, seed: int) -> None:
    artefacts = built(folder, patients=70 + seed % 5 * 8, seed=seed)
    assert artefacts.stays.height > 20
    rows, leaks = audit(artefacts)
    assert leaks == []
    assert len(rows) == len(CHECKS)


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_hospital_is_met_with_silence(tmp_path, seed):
    quiet_hospital(tmp_path, seed)


def test_a_hospital_with_all_traps_in_the_layouts_of_later_releases_is_met_with_silence(tmp_path):
    """A trap is a property of the data that misleads a comparison; nothing in it leaks."""
    traps = dict.fromkeys(yaml.safe_load((ROOT / "params.yaml").read_text())["synthetic"]["traps"], 1.0)
    traps["dead_before_48h"] = 0.1
    releases = {"mimiciv": "3.1", "mimic_cxr": "2.1.0"}
    trapped = built(tmp_path, 120, 5, **{"synthetic.traps": traps, "synthetic.release": releases})
    assert audit(trapped)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 20))
def test_seventeen_more_clean_hospitals_are_met_with_silence(tmp_path, seed):
    quiet_hospital(tmp_path, seed)


SECONDS = st.one_of(
    st.integers(-7200, 50 * 3600), st.sampled_from([-1, 0, 3599, 3600, 48 * 3600 - 1, 48 * 3600, 48 * 3600 + 1])
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(SECONDS, st.integers(0, 299)), min_size=1, max_size=12), late=SECONDS)
def test_an_hour_may_hold_what_was_charted_in_it_to_the_second_and_nothing_else(rows, late):
    """One stay's heart rates, averaged by hand; then one from outside of the window in its first or last hour."""
    start = datetime(2150, 1, 1, 12, 30, 7)
    hours: dict[int, list[int]] = {}
    for second, value in rows:
        if 0 <= second < 48 * 3600:
            hours.setdefault(second // 3600, []).append(value)
    stay = pl.DataFrame({"stay_id": [1], "subject_id": [1], "intime": [start]})
    late = late if not 0 <= late < 48 * 3600 else late + 48 * 3600
    events = pl.DataFrame(
        [(1, start + timedelta(seconds=second), 220045, None, float(value)) for second, value in [*rows, (late, 300)]],
        schema={"stay_id": pl.Int64, "time": pl.Datetime, "itemid": pl.Int32, "text": pl.String, "number": pl.Float64},
        orient="row",
    )
    means = {hour: sum(values) / len(values) for hour, values in hours.items()}

    def leak(means: dict[int, float]):
        hourly = pl.DataFrame(
            [(1, hour, mean) for hour, mean in sorted(means.items())],
            schema={"stay_id": pl.Int64, "hour": pl.Int8, "heart_rate": pl.Float64},
            orient="row",
        )
        artefacts = SimpleNamespace(
            icustays=stay,
            stays=stay,
            hourly=hourly,
            variables=load_variables("core")[:1],
            events={"chartevents": Events(events.lazy())},
            max_jump=2.0,
        )
        return BY_NAME["events_outside_window"](artefacts)

    assert leak(means) is None
    assert leak({**means, 0 if late < 0 else 47: 300.0}) is not None
    for hour in means:
        assert leak({other: mean for other, mean in means.items() if other != hour}) is not None


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 47), st.integers(1, 3599), st.integers(20, 400)), min_size=1, max_size=8))
def test_a_weight_that_jumps_may_be_absent_and_a_rate_goes_on_with_the_one_before(tmp_path_factory, rows):
    """What `extract` makes of weights and urine, at either tier; nothing else of them may be absent."""
    folder = tmp_path_factory.mktemp("jumps")
    weighed = chart(*((at(hour, second), 224639, weight) for hour, second, weight in rows))
    urine = output(*((at(hour), 226559, 60) for hour in range(48)))
    found, _ = extract(folder, weighed, urine)
    stay = pl.DataFrame({"stay_id": [1], "subject_id": [1], "intime": [INTIME]})
    event = ["stay_id", pl.col("charttime").alias("time"), "itemid"]

    def leak(**changed):
        names = ("urine_output", "urine_rate_6h", "weight")
        values = {name: changed.get(name, found[name]) for name in names}
        artefacts = SimpleNamespace(
            icustays=stay,
            stays=stay,
            hourly=pl.DataFrame({"stay_id": [1] * 48, "hour": range(48), **values}, nan_to_null=True),
            variables=[variable for variable in load_variables("plus") if variable.name in names],
            events={
                "chartevents": Events(weighed.lazy().select(*event, text="value", number="valuenum")),
                "outputevents": Events(urine.lazy().select(*event, text=pl.lit(None, pl.String), number="value")),
            },
            max_jump=2.0,
        )
        return BY_NAME["events_outside_window"](artefacts)

    assert leak() is None
    first = min(hour for hour, _, _ in rows)
    assert leak(weight=np.where(np.arange(48) == first, np.nan, found["weight"])) is not None
    if not np.isnan(found["urine_rate_6h"]).all():
        assert leak(urine_rate_6h=found["urine_rate_6h"] * 25) is not None


def test_a_true_predictor_is_no_leak(clean):
    """As good as none is: AUROC about 0.98, present in half of the stays, over 235 stays and every hour."""
    rng = np.random.default_rng(0)
    label = clean.labels[common_label(clean)].to_numpy()
    values = np.array(clean.values)
    values[:, :, 0] = (
        80 + 3 * label[:, None] + rng.standard_normal((len(label), 1)) + 0.1 * rng.standard_normal((1, 48))
    )
    values[rng.random(len(label)) < 0.5, :, 0] = np.nan
    assert BY_NAME["labels_among_inputs"](dataclasses.replace(clean, values=values)) is None


def test_a_label_with_few_positives_is_not_told_from_luck(clean):
    """Nine deaths of whom all have a certain text charted: a clinician's finding, not a leak."""
    rare = np.zeros(clean.stays.height, bool)
    rare[:9] = True
    values = np.array(clean.values)
    values[:, :, 0] = np.where(rare[:, None], 200.0, 80.0)
    labels = clean.labels.with_columns(pl.Series("shock", rare))
    assert BY_NAME["labels_among_inputs"](dataclasses.replace(clean, values=values, labels=labels)) is None


def test_the_table_of_the_audit_is_complete(root):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (root / "docs/audit.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    told = {row[0].strip("`"): re.findall(r"`(\w+)`", row[2]) for row in rows}
    assert told == {check: [plant.__name__ for plant in plants] for check, plants in PLANTED.items()}


def test_labels_by_the_legacy_map_pass_where_it_is_in_force_alone(tmp_path):
    write_params(tmp_path, 150, 5, {"labels.phenotypes": "legacy_medfuse"})
    synthesize(tmp_path)
    run(tmp_path, *DATA_STAGES)
    run(tmp_path, "audit")
    hcup = read_artefacts(tmp_path / "data", load_variables("core"), load_ccs(), 0, 48)
    assert BY_NAME["phenotypes_contradict_diagnoses"](hcup) is not None
