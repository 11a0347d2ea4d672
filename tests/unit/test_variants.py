"""The table of cohort variants: what it holds, what the command prints, and its counts on the open demo."""

import os
import subprocess
import sys
from datetime import datetime, timedelta

import polars as pl
import pytest
import yaml

from pipeline import params
from pipeline.mimic.cohort import apply_rules, describe_stays, rules
from pipeline.mimic.cxr_links import link_images
from pipeline.variants import CAREBENCH, count, markdown, variants

IN = datetime(2150, 3, 1, 12)
HOUR = timedelta(hours=1)
CHOICES = ["stays_rule", "same_unit", "min_stay_hours", "cxr_views", "cxr_hours_before"]
COUNTS = ["stays", "subjects", "icu_deaths", "matched", "matched_icu_deaths"]


def a_few_stays():
    """interim tables of two subjects: 1 has two stays in admission 11 and one in 12, in which it dies; 2 is moved.

    Images: of subject 1 a PA three hours before the first stay; of subject 2 an AP in its stay.
    """
    stays = [(31, 1, 11, 0, 60, "M"), (32, 1, 11, 70, 150, "M"), (33, 1, 12, 900, 1000, "M"), (34, 2, 13, 0, 80, "S")]
    icustays = pl.DataFrame(
        [(stay, s, h, "M", unit, IN + a * HOUR, IN + z * HOUR) for stay, s, h, a, z, unit in stays],
        schema={
            "stay_id": pl.Int32,
            "subject_id": pl.Int32,
            "hadm_id": pl.Int32,
            "first_careunit": pl.String,
            "last_careunit": pl.String,
            "intime": pl.Datetime("us"),
            "outtime": pl.Datetime("us"),
        },
        orient="row",
    )
    patients = pl.DataFrame(
        {"subject_id": [1, 2], "anchor_age": 50, "anchor_year": 2150, "anchor_year_group": "2011 - 2013", "dod": None},
        schema_overrides={"subject_id": pl.Int32, "anchor_age": pl.Int32, "anchor_year": pl.Int32, "dod": pl.Date},
    )
    admissions = pl.DataFrame(
        {
            "subject_id": [1, 1, 2],
            "hadm_id": [11, 12, 13],
            "deathtime": [None, IN + 990 * HOUR, None],
            "dischtime": IN + 1000 * HOUR,
            "hospital_expire_flag": [0, 1, 0],
        },
        schema_overrides={"subject_id": pl.Int32, "hadm_id": pl.Int32, "dischtime": pl.Datetime("us")},
    )
    metadata = pl.DataFrame(
        [("a", 1, 51, None, "PA", 9, 9, IN - 3 * HOUR), ("b", 2, 52, None, "AP", 9, 9, IN + HOUR)],
        schema=["dicom_id", "subject_id", "study_id", "procedure", "view_position", "rows", "columns", "study_time"],
        orient="row",
    ).with_columns(pl.col("subject_id").cast(pl.Int32), pl.col("study_time").cast(pl.Datetime("us")))
    return describe_stays(patients, admissions, icustays, icustays["stay_id"]), metadata


@pytest.fixture(scope="module")
def cohort(root):
    return params.load(root / "params.yaml").cohort


def test_counts_by_hand(cohort):
    every, metadata = a_few_stays()
    found = count(every, metadata, cohort)
    assert found.columns == ["preset", *CHOICES, *COUNTS]

    def of(*choice):
        (row,) = (
            found.filter(pl.col("preset").is_null(), **dict(zip(CHOICES, choice, strict=True))).select(COUNTS).rows()
        )
        return row

    assert of("all", False, 48, "AP+PA", 0) == (4, 2, 1, 1, 0)
    assert of("all", False, 48, "AP+PA", 6) == (4, 2, 1, 2, 0)
    assert of("all", False, 48, "AP", 6) == (4, 2, 1, 1, 0)
    assert of("all", True, 48, "AP", 6) == (3, 1, 1, 0, 0)
    assert of("all", True, 72, "AP+PA", 6) == (2, 1, 1, 0, 0)
    assert of("only_of_admission", False, 48, "AP+PA", 6) == (2, 2, 1, 1, 0)
    assert of("first_of_admission", False, 48, "AP+PA", 6) == (3, 2, 1, 2, 0)
    assert of("first_of_subject", False, 48, "AP+PA", 6) == (2, 2, 0, 2, 0)
    assert of("first_of_subject", False, 72, "AP+PA", 6) == (1, 1, 0, 1, 0)


def test_a_row_is_what_the_stage_makes_of_its_knobs(cohort):
    every, metadata = a_few_stays()
    found = count(every, metadata, cohort)
    for row, (name, variant) in zip(found.iter_rows(named=True), variants(cohort), strict=True):
        chosen, _ = apply_rules(every, rules(variant))
        assert (row["preset"], row["stays"]) == (name, chosen.height)
        assert row["matched"] == link_images(metadata, chosen, variant).images["stay_id"].n_unique()


def test_who_comes_after_death_is_in_no_variant(cohort):
    every, metadata = a_few_stays()
    donor = every.with_columns(after_death=pl.col("stay_id") == 34)
    found, before = count(donor, metadata, cohort), count(every.filter(pl.col("stay_id") != 34), metadata, cohort)
    assert found.equals(before)
    assert not found.equals(count(every, metadata, cohort))


def test_presets_come_first_and_the_grid_holds_each_choice_once(cohort):
    found = count(*a_few_stays(), cohort)
    assert found["preset"].head(2).to_list() == ["carebench", "prospective"]
    grid = found.filter(pl.col("preset").is_null()).select(CHOICES)
    assert grid.height == 4 * 2 * 2 * 2 * 3
    assert grid.is_unique().all()
    for name in ("carebench", "prospective"):  # with the knobs of params.yaml each is a row of the grid, too
        preset = found.filter(preset=name).drop("preset")
        assert found.filter(pl.col("preset").is_null()).drop("preset").join(preset, on=preset.columns).height == 1


def test_markdown_is_a_table(cohort):
    found = count(*a_few_stays(), cohort).with_columns(stays=pl.lit(26_000))
    lines = markdown(found).splitlines()
    assert len(lines) == 2 + found.height
    assert {line.count("|") for line in lines} == {found.width + 1}
    assert lines[2].startswith("| carebench | only_of_admission | yes | 48 | AP+PA | 0 | 26,000 |")


def command(folder, root, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.variants", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_data_the_command_says_in_one_line_how_to_make_them(tmp_path, root):
    done = command(tmp_path, root, "--params", str(root / "params.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "variants: error: data/interim/patients.parquet: not found; make it with `dvc repro ingest`\n"
    )


# stays, subjects, ICU deaths, matched, deaths among them: counted from the CSV files in SQL of its own.
DEMO = {
    ("only_of_admission", True, 48, "AP+PA", 0): (53, 47, 6, 36, 4),
    ("only_of_admission", True, 48, "AP+PA", 24): (53, 47, 6, 43, 4),
    ("only_of_admission", True, 48, "AP", 0): (53, 47, 6, 35, 4),
    ("first_of_admission", False, 48, "AP+PA", 0): (66, 54, 8, 41, 6),
    ("all", True, 48, "AP+PA", 6): (63, 50, 6, 44, 4),
    ("all", False, 48, "AP+PA", 0): (74, 56, 9, 46, 6),
    ("all", False, 72, "AP", 24): (55, 43, 9, 34, 6),
    ("first_of_subject", False, 48, "AP+PA", 0): (53, 53, 6, 33, 5),
    ("first_of_subject", True, 72, "AP", 6): (36, 36, 5, 24, 4),
}


@pytest.mark.real_data
def test_the_command_on_the_open_demo(tmp_path, root, demo_data):
    content = yaml.safe_load((root / "params.yaml").read_text())
    content["data"] |= {"mimiciv": str(demo_data / "mimic-iv-demo"), "mimic_cxr": str(demo_data / "mimic-cxr-jpg-demo")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    for stage in ("manifest", "ingest"):
        subprocess.run(
            [sys.executable, "-m", f"stages.{stage}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            check=True,
        )
    done = command(tmp_path, root, "--csv")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{CAREBENCH}\n"
    found = pl.read_csv(done.stdout.encode())
    grid = found.filter(pl.col("preset").is_null())
    rows = {row[:5]: row[5:] for row in grid.select(*CHOICES, *COUNTS).iter_rows()}
    assert {choice: rows[choice] for choice in DEMO} == DEMO
    assert found.filter(preset="carebench").select(COUNTS).row(0) == (53, 47, 6, 36, 4)
    assert found.filter(preset="prospective").select(COUNTS).row(0) == (66, 54, 8, 41, 6)
    people = command(tmp_path, root)
    assert people.returncode == 0, people.stderr
    *table, empty, last = people.stdout.splitlines()
    assert (len(table), empty, last) == (2 + found.height, "", CAREBENCH)
    again = command(tmp_path, root)
    assert again.stdout == people.stdout
