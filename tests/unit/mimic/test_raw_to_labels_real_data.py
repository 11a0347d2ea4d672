"""From the open demo's files to labels: counts that were counted once more by hand, and images chosen by eye."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from pipeline.mimic.labels import phenotype_labels
from pipeline.mimic.phenotypes import classify, phenotype_categories

pytestmark = pytest.mark.real_data


def run_stages(folder: Path, root: Path, data: Path, **cohort) -> Path:
    """Run the four stages in `folder` on the demo; returns it."""
    content = yaml.safe_load((root / "params.yaml").read_text())
    content["data"] |= {"mimiciv": str(data / "mimic-iv-demo"), "mimic_cxr": str(data / "mimic-cxr-jpg-demo")}
    content["cohort"] |= cohort
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    for name in ("manifest", "ingest", "cohort", "labels"):
        done = subprocess.run(
            [sys.executable, "-m", f"stages.{name}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory, root, demo_data):
    return run_stages(tmp_path_factory.mktemp("demo"), root, demo_data)


def report(folder: Path, stage: str):
    return json.loads((folder / f"reports/data/{stage}.json").read_text())


def test_releases_are_recognised(done):
    parts = report(done, "manifest")
    assert (parts["mimiciv"]["release"], parts["mimiciv"]["kind"]) == ("MIMIC-IV demo 2.2", "demo")
    assert (parts["mimic_cxr"]["release"], parts["mimic_cxr"]["kind"]) == (
        "MIMIC-CXR-JPG stand-in for the demo",
        "demo",
    )
    found = {database: (part["checksums"]["result"], part["checksums"]["compared"]) for database, part in parts.items()}
    assert found == {"mimiciv": ("verified", 7), "mimic_cxr": ("verified", 2)}
    assert parts["mimiciv"]["rows"]["icu/chartevents"] == 668_862


def test_every_row_is_accounted_for(done):
    counts = report(done, "ingest")
    read = {name: count["rows_read"] for name, count in counts.items()}
    assert read == {
        "patients": 100,
        "admissions": 275,
        "icustays": 140,
        "diagnoses": 4_506,
        "chart": 668_862,
        "output": 9_362,
        "lab": 107_727,
        "cxr_metadata": 253,
        "cxr_findings": 183,
    }
    for count in counts.values():
        assert count["rows_read"] == count["kept"] + sum(count["dropped"].values())
    labs = counts.pop("lab")
    assert all(set(count["dropped"]) <= {"itemid not needed"} for count in counts.values())
    assert labs["dropped"] == {"in no ICU stay": 44_170, "itemid not needed": 37_862, "no number": 95}
    # one draw of stay 32895909, minutes before a stay of half an hour began; its results came in the next stay
    assert labs["noted"] == {"a bound for a number": 57, "in a second stay": 26, "without hadm_id": 149}


def test_the_text_none_is_a_value(done):
    chart = pl.read_parquet(done / "data/interim/chart.parquet")
    ectopy = chart.filter(itemid=224650)
    assert (ectopy["value"] == "None").mean() == pytest.approx(0.87, abs=0.01)
    assert ectopy["value"].null_count() == 0


def test_attrition(done):
    rows = pl.read_csv(done / "data/cohort/attrition.csv")
    assert rows["stays"].to_list() == [140, 140, 140, 140, 74, 74, 62, 53, 53]
    assert rows["subjects"].to_list() == [100, 100, 100, 100, 56, 56, 52, 47, 47]
    told = report(done, "cohort")["attrition"]
    # 9 stays and 5 subjects went at the last step but one, 4 subjects at the one before
    assert [row["stays"] for row in told] == [140, 140, 140, 140, 74, 74, "hidden", 53, 53]
    assert [row["subjects"] for row in told] == [100, 100, 100, 100, "hidden", "hidden", "hidden", 47, 47]


def test_what_is_odd_about_the_demo(done):
    odd = {name: rows for name, rows in report(done, "cohort")["oddities"].items() if rows}
    assert odd == {
        "stays_not_within_their_admission": 24
    }  # 22 end after dischtime, by seconds to a day; 2 begin before


def people(content):
    """The numbers in a document, whatever its shape."""
    if isinstance(content, dict | list):
        return [each for part in (content.values() if isinstance(content, dict) else content) for each in people(part)]
    return [content] if isinstance(content, int) and not isinstance(content, bool) else []


def test_no_count_of_fewer_than_ten_people_is_in_the_reports(done):
    cohort, labels = report(done, "cohort"), report(done, "labels")
    era = {name: row["stays"] for name, row in cohort["groups"]["era"].items()}
    assert era == {"2011 - 2013": 18, "2014 - 2016": 26, "2017 - 2019": "<10", "2020 - 2022": "<10"}
    del labels["codes"]
    strata = labels.pop("prevalence_by_icd_version_and_image")
    told = [people(cohort[name]) for name in ("attrition", "matched", "groups")]
    told += [people(labels), people([{**row, "icd_version": 0} for row in strata])]
    assert all(each for each in told)
    assert not [count for each in told for count in each if 0 < count < 10]


def test_cohort(done):
    stays = pl.read_parquet(done / "data/cohort/stays.parquet")
    assert stays["stay_id"].is_sorted()
    assert stays["hadm_id"].n_unique() == stays["stay_id"].n_unique() == 53
    assert stays["has_cxr"].sum() == 36
    counts = {name: dict(stays[name].value_counts().iter_rows()) for name in ("icd_version", "era", "admission_group")}
    assert counts == {
        "icd_version": {9: 29, 10: 24},
        "era": {"2011 - 2013": 18, "2014 - 2016": 26, "2017 - 2019": 8, "2020 - 2022": 1},
        "admission_group": {"EMERGENCY": 38, "OBSERVATION": 8, "ELECTIVE": 7},
    }
    assert dict(stays["cxr_status"].value_counts().iter_rows()) == {"present": 36, "not_taken": 17}


def test_prospective_preset(tmp_path, root, demo_data):
    folder = run_stages(tmp_path, root, demo_data, preset="prospective")
    rows = pl.read_csv(folder / "data/cohort/attrition.csv")
    assert rows["step"][6] == "first ICU stay of the hospital admission"
    assert rows["stays"].to_list() == [140, 140, 140, 140, 74, 74, 66, 66]


# Each looked up in the raw rows of the metadata: what the choice had to decide.
IMAGES = {
    38540883: "03b13ffd",  # two AP of the same number of pixels (416 x 512, 512 x 416): the smaller id
    35727289: "367f0429",  # two studies of the same second: the larger image
    32604416: "b6808b0f",  # two studies of the same second: AP 640 x 528 before PA 1024 x 1024
    34807493: "ecada1ec",  # one study: AP 384 x 320 before PA 1024 x 1024
    36107367: "aee0af11",  # one study: 640 x 640 before 384 x 320
    37293400: "6b44ac00",  # no view; procedure CHEST (PA)
    32374504: "d53cebbd",  # no view; procedure CHEST AP PORT VIEW
    32587226: "2fc5e737",  # no view; later than one that has a view
    35024147: "697f5c94",  # 48.45 h is too late, 0.00 h is in
    32166508: "1c232d5d",  # at the end of the 48th hour
    39880770: "d356b2d2",  # a later PA before an earlier AP
}
NO_IMAGE = {
    34578020,  # milliseconds before intime
    32119961,  # no view, CHEST (PA AND LAT)
    33558396,  # no view, CHEST (SINGLE VIEW)
}


def test_images_chosen(done):
    links = pl.read_parquet(done / "data/cohort/cxr.parquet")
    first = dict(links.filter(rank=1).select("stay_id", pl.col("dicom_id").str.head(8)).iter_rows())
    assert {stay: first[stay] for stay in IMAGES} == IMAGES
    stays = pl.read_parquet(done / "data/cohort/stays.parquet")
    without = set(stays.filter(~pl.col("has_cxr"))["stay_id"])
    assert without >= NO_IMAGE
    assert not without & set(first)
    assert links.height == 55
    assert links["hours_from_intime"].is_between(0, 48).all()
    counts = report(done, "cohort")["images"]
    assert (counts["images_without_view"], counts["of_these_resolved_by_procedure"]) == (13, 5)


# Counted from the CSV files and HCUP's tables in plain Python.
POSITIVES = {
    "icu_mortality": 6,
    "hospital_mortality": 8,
    "acute_and_unspecified_renal_failure": 19,
    "acute_cerebrovascular_disease": 3,
    "acute_myocardial_infarction": 9,
    "cardiac_dysrhythmias": 24,
    "chronic_kidney_disease": 13,
    "chronic_obstructive_pulmonary_disease_and_bronchiectasis": 10,
    "complications_of_surgical_procedures_or_medical_care": 20,
    "conduction_disorders": 4,
    "congestive_heart_failure_nonhypertensive": 16,
    "coronary_atherosclerosis_and_other_heart_disease": 20,
    "diabetes_mellitus_with_complications": 9,
    "diabetes_mellitus_without_complication": 17,
    "disorders_of_lipid_metabolism": 23,
    "essential_hypertension": 22,
    "fluid_and_electrolyte_disorders": 21,
    "gastrointestinal_hemorrhage": 8,
    "hypertension_with_complications_and_secondary_hypertension": 14,
    "other_liver_diseases": 9,
    "other_lower_respiratory_disease": 9,
    "other_upper_respiratory_disease": 6,
    "pleurisy_pneumothorax_pulmonary_collapse": 8,
    "pneumonia_except_that_caused_by_tuberculosis_or_sexually_transmitted_disease": 10,
    "respiratory_failure_insufficiency_arrest_adult": 24,
    "septicemia_except_in_labor": 10,
    "shock": 12,
}


def test_labels(done):
    labels = pl.read_parquet(done / "data/cohort/labels.parquet")
    assert {name: labels[name].sum() for name in POSITIVES} == POSITIVES
    assert dict(labels["los_class"].value_counts().sort("los_class").iter_rows()) == {
        0: 15,
        1: 12,
        2: 6,
        3: 3,
        4: 2,
        5: 12,
        6: 3,
    }


def test_hcups_tables_know_every_code_of_the_demo(done):
    assert report(done, "labels")["codes"]["unknown_rows_of_all_admissions"] == 0


@pytest.mark.parametrize(
    ("codes", "slugs", "admissions", "labelled"),
    [
        ("J96|J80|R092", ["respiratory_failure_insufficiency_arrest_adult"], 23, 6),
        ("I48", ["cardiac_dysrhythmias"], 42, 25),
        ("J90|J91|J93|J981", ["pleurisy_pneumothorax_pulmonary_collapse"], 10, 1),
        ("E78", ["disorders_of_lipid_metabolism"], 69, 58),
        ("E11", ["diabetes_mellitus_with_complications", "diabetes_mellitus_without_complication"], 60, 37),
    ],
)
def test_the_hole_in_the_legacy_map(done, codes, slugs, admissions, labelled):
    """ICD-10 admissions of the demo with such a code, and those whose label it gives: as counted before (L.3)."""
    rows = pl.read_parquet(done / "data/interim/diagnoses.parquet").filter(
        (pl.col("icd_version") == 10) & pl.col("icd_code").str.contains(f"^({codes})")
    )
    wanted = [phenotype_categories()[slug] for slug in slugs]
    found = classify(rows, "legacy_medfuse").filter(pl.col("ccs").is_in(wanted))
    assert (rows["hadm_id"].n_unique(), found["hadm_id"].n_unique()) == (admissions, labelled)


def test_the_maps_compared(done):
    stays = pl.read_parquet(done / "data/cohort/stays.parquet")
    codes = pl.read_parquet(done / "data/interim/diagnoses.parquet")
    hcup, legacy = (phenotype_labels(stays, classify(codes, name)) for name in ("hcup", "legacy_medfuse"))
    only = {slug: int((hcup[slug] & ~legacy[slug]).sum()) for slug in phenotype_categories()}
    assert only["respiratory_failure_insufficiency_arrest_adult"] == 7
    assert only["cardiac_dysrhythmias"] == 4
    other = {slug: int((legacy[slug] & ~hcup[slug]).sum()) for slug in phenotype_categories()}
    assert {slug: count for slug, count in other.items() if count} == {"septicemia_except_in_labor": 1}
    maps = report(done, "labels")["phenotypes_by_map"]
    assert {slug: row["hcup"] for slug, row in maps.items()} == {
        slug: positives if positives >= 10 else "<10" for slug, positives in POSITIVES.items() if slug in maps
    }
    assert maps["respiratory_failure_insufficiency_arrest_adult"]["only_hcup"] == "<10"
    assert maps["septicemia_except_in_labor"]["only_legacy_medfuse"] == "<10"


def test_a_second_run_writes_the_same_bytes(done, tmp_path, root, demo_data):
    again = run_stages(tmp_path, root, demo_data)
    files = sorted(
        path.relative_to(done)
        for folder in ("data", "reports")
        for path in (done / folder).rglob("*")
        if path.is_file() and path.parent.name != ".locks"
    )
    assert len(files) == 19
    for file in files:
        assert (done / file).read_bytes() == (again / file).read_bytes(), file
